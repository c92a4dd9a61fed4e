r"""PPO on GeneralPoints: the verifier's rewards under J = Q = K = 10, three attempts. Does it carry over to 11, 12, 13?

  sftrl rl --config=configs/general_points/ppo.py --workdir=runs/gp_ppo
  sftrl rl --config=configs/general_points/ppo.py:all_7 --workdir=runs/all_7_ppo   (faces count as 7)
  sftrl rl --config=configs/general_points/ppo.py:five_cards --workdir=runs/five_cards_ppo   (after base.py:five_cards)
  sftrl rl --config=configs/general_points/ppo.py:cot --workdir=runs/cot_ppo   (after base.py:cot)
  sftrl rl --config=configs/general_points/ppo.py:smollm2 --workdir=runs/smollm2_ppo       (an accelerator)
  sftrl rl --config=configs/general_points/ppo.py:qwen2.5-0.5b --workdir=runs/qwen_ppo     (an accelerator)
  sftrl rl --config=configs/general_points/ppo.py:llama3.2-1b --workdir=runs/llama_ppo     (an accelerator)
  sftrl rl --config=configs/general_points/ppo.py:llama3.2-3b --workdir=runs/llama_ppo     (an accelerator)

Hardware: one CPU core. Minutes: 3.
Result: on five bases, greedy, within 3 attempts, id_seen goes from 34% to 59%, and rule_ood from 31% to 33%: kept,
where SFT loses it. The paper's claim in small: RL generalizes.

Critic: it explains 0 to 3% of the returns' variance, so this is in effect REINFORCE with a whitened constant baseline.
In 60 iterations a value head of one or two layers, a higher rate, a warm-up, or the prompt's state beside the token's
explains about 2%, the trunk with ppo.value_gradient and value_coef=1 about 3%, a network of its own about 5%.
"""

from configs.general_points import task


def get_config(choice=""):
  config = task.shared(choice)
  config.steps = 10_000  # the budget ends the run
  config.flops = 3e12
  config.batch = 256
  config.algorithm = "ppo"
  config.ppo = dict(
      level="token", epochs=1, minibatches=4, clip=0.2, value_coef=0.2, gamma=1.0, turn_gamma=0.9, gae_lambda=1.0,
      truncation="end")  # being out of attempts is this task's own end
  config.optimizer = dict(name="adamw", learning_rate=3e-4, clip=1.0)
  config.schedule = dict(name="constant", warmup=10)
  # microbatches: what fits a core's cache. lengths: the published figures were made with rows of one length.
  config.compute = dict(microbatches=4, lengths=1)
  config.checkpoint = dict(every=40, keep=2)
  config.log = dict(every=1)
  return real(config, choice) if choice in task.PRETRAINED else config


def real(config, choice):
  """What a model of a hundred million parameters and more wants instead."""
  config.flops = 1e16
  config.batch = 128
  config.optimizer.learning_rate = 1e-5
  config.compute = task.compute(choice, microbatches=8)
  config.checkpoint.every = 20
  return config
