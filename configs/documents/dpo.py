r"""DPO on a task of texts: the better one of two responses of the start to one text, ordered by the verifier.

  sftrl preference --config=configs/documents/dpo.py --workdir=runs/labels_dpo
  sftrl preference --config=configs/documents/dpo.py:reading --workdir=runs/reading_dpo
  sftrl preference --config=configs/documents/dpo.py:triples --workdir=runs/triples_dpo

Hardware: one CPU core. Minutes: 2.
Result: not yet measured on five bases.

Ties are left out. The pairs are in runs/labels_dpo/pairs.jsonl, and their FLOPs in the budget.
"""

from configs.documents import task


def get_config(choice=""):
  config = task.pairs(choice)
  config.objective = "dpo"
  config.dpo = dict(loss="sigmoid", beta=0.1, sft_coef=1.0)
  config.optimizer = dict(name="adamw", learning_rate=1e-4, clip=1.0)
  config.schedule = dict(name="constant", warmup=20)
  return config
