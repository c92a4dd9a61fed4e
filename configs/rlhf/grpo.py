r"""RLHF by GRPO: answers to one prompt are compared by a reward model, without a value function; the KL is in the loss.

  sftrl rl --config=configs/rlhf/grpo.py --workdir=runs/rlhf_grpo --config.reward_model.start=runs/reward

Hardware: one GPU, or two CPU cores to try it. Minutes: not measured.
Result: not run at full length.

Pairs and prompts are those of ppo.py. Where grpo.scale divides by the deviation of a group, the unit of the scores is
gone, and kl_coef is what a nat costs in such deviations.
"""

from configs.rlhf import task


def get_config():
  config = task.shared()
  config.algorithm = "grpo"
  config.grpo = dict(group=8, epochs=1, minibatches=2, kl_coef=0.1, kl="loss", kl_estimator="k2")
  return config
