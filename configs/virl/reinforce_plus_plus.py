r"""REINFORCE++ on V-IRL: PPO's task and clip, without a value function and without groups.

  sftrl rl --config=configs/virl/reinforce_plus_plus.py --workdir=runs/virl_reinforce_plus_plus

Hardware: one CPU core. Minutes: 2 to 3.
Result: not yet measured on five bases. A token's advantage is what its turn and the later ones earn, discounted by turn
and whitened over the batch.
"""

from configs.virl import ppo


def get_config():
  config = ppo.get_config()
  config.algorithm = "reinforce_plus_plus"
  del config.ppo
  config.reinforce_plus_plus = dict(epochs=1, minibatches=4, clip=0.2, turn_gamma=0.9)
  del config.optimizer.factors   # of a value head, which there is none of
  return config
