r"""RLHF by PPO: a chat model learns to answer as a reward model prefers, held to its start by a KL in the reward.

  sftrl rl --config=configs/rlhf/ppo.py --workdir=runs/rlhf --config.reward_model.start=runs/reward

Hardware: one GPU, or two CPU cores to try it. Minutes: not measured.
Result: not run at full length.

runs/reward is the workdir of configs/preference/reward.py, a finished run. Both read the little sample of pairs in
configs/preference; --config.data.path=FILE there and --config.env.path=FILE here give pairs and prompts of your own.
Scores are in standard deviations of those of the reward model's training answers,
so that kl_coef is what a nat costs in them: too little of it, and the score rises while the answers get worse, of which
the alarm over_optimisation warns. --config.ppo.kl_target=6 adapts it to 6 nats a response;
--config.reward_model.critic=True begins the value head as the score head.
"""

from configs.rlhf import task


def get_config():
  config = task.shared()
  config.algorithm = "ppo"
  config.ppo = dict(epochs=2, minibatches=4, kl_coef=0.1, gamma=1.0, turn_gamma=1.0, gae_lambda=0.95, value_coef=0.1,
                    critic_warmup=5)
  return config
