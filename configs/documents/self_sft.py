r"""Self-SFT on a task of texts: the policy imitates its own right responses, fresh every iteration. No sign, no expert.

  sftrl rl --config=configs/documents/self_sft.py --workdir=runs/labels_self_sft
  sftrl rl --config=configs/documents/self_sft.py:reading --workdir=runs/reading_self_sft
  sftrl rl --config=configs/documents/self_sft.py:triples --workdir=runs/triples_self_sft

Hardware: one CPU core. Minutes: 2.
Result: not yet measured on five bases. Of triples, only a response with F1 = 1 is imitated.
"""

from configs.documents import ppo


def get_config(choice=""):
  config = ppo.get_config(choice)
  config.algorithm = "self_sft"
  del config.ppo, config.optimizer.factors   # of the value head
  config.self_sft = dict(epochs=1, minibatches=4)
  return config
