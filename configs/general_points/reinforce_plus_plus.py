r"""REINFORCE++ on GeneralPoints: PPO's task and clip, without a value function and without groups.

  sftrl rl --config=configs/general_points/reinforce_plus_plus.py --workdir=runs/gp_reinforce_plus_plus

Hardware: one CPU core. Minutes: 3.
Result: not yet measured on five bases. Its advantage is the rewards from a token on, whitened over the batch: that of
PPO without its critic, which explains 0 to 3% of the returns' variance here (ppo.py).
"""

from configs.general_points import ppo


def get_config(choice=""):
  config = ppo.get_config(choice)
  config.algorithm = "reinforce_plus_plus"
  del config.ppo
  config.reinforce_plus_plus = dict(epochs=1, minibatches=4, clip=0.2, turn_gamma=0.9)
  return config
