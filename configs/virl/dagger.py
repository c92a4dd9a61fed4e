r"""DAgger on V-IRL: the expert's action at a point that the policy came to. Own states, the expert's targets.

  sftrl rl --config=configs/virl/dagger.py --workdir=runs/virl_dagger

Hardware: one CPU core. Minutes: 2 to 3.
Result: not yet measured on five bases. A route ends where both tries at a point are wrong, so its states are those up
to there; of each route one is drawn.
"""

from configs.virl import ppo


def get_config():
  config = ppo.get_config()
  config.algorithm = "dagger"
  del config.ppo
  config.dagger = dict(epochs=1, minibatches=4)
  del config.optimizer.factors   # of a value head, which there is none of
  return config
