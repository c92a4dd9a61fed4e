r"""GRPO on a task of texts: eight responses to one text are judged against each other; PPO without a value function.

  sftrl rl --config=configs/documents/grpo.py --workdir=runs/labels_grpo
  sftrl rl --config=configs/documents/grpo.py:reading --workdir=runs/reading_grpo
  sftrl rl --config=configs/documents/grpo.py:triples --workdir=runs/triples_grpo

Hardware: one CPU core. Minutes: 2.
Result: not yet measured on five bases.
"""

from configs.documents import ppo


def get_config(choice=""):
  config = ppo.get_config(choice)
  config.algorithm = "grpo"
  del config.ppo, config.optimizer.factors   # of the value head
  config.compute.share_prompts = False   # the published figures were made with whole rows
  config.grpo = dict(group=8, epochs=1, minibatches=4, clip=0.2, scale=False, mean="sequence", kl_coef=0.0)
  return config
