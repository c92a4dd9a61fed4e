r"""Self-SFT on V-IRL: the policy imitates its own right responses, fresh every iteration. No sign, no expert.

  sftrl rl --config=configs/virl/self_sft.py --workdir=runs/virl_self_sft

Hardware: one CPU core. Minutes: 2 to 3.
Result: not yet measured on five bases. Episodes and updates are PPO's; what was wrong has weight 0.
"""

from configs.virl import ppo


def get_config():
  config = ppo.get_config()
  config.algorithm = "self_sft"
  del config.ppo
  config.self_sft = dict(epochs=1, minibatches=4)
  del config.optimizer.factors   # of a value head, which there is none of
  return config
