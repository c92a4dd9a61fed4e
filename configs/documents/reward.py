r"""A reward model on a task of texts: which of two responses would the verifier prefer?

  sftrl preference --config=configs/documents/reward.py --workdir=runs/labels_reward
  sftrl preference --config=configs/documents/reward.py:reading --workdir=runs/reading_reward
  sftrl preference --config=configs/documents/reward.py:triples --workdir=runs/triples_reward

Hardware: one CPU core. Minutes: 2.
Result: not yet measured on five bases. Its accuracy on held-out pairs, in the other wording too, is in evals.jsonl.
"""

from configs.documents import task


def get_config(choice=""):
  config = task.pairs(choice)
  config.steps = 63   # two passes over 2,000 pairs
  config.flops = 0.0
  config.evals = dict(variants=())   # it scores and does not answer
  config.objective = "reward"
  config.bradley_terry = dict(centre=0.01)
  config.optimizer = dict(name="adam", learning_rate=1e-3, clip=1.0, args=dict(b2=0.98))
  config.schedule = dict(name="linear", warmup=20, end=0.1)
  return config
