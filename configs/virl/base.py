r"""A base model for V-IRL: a small decoder that knows both action spaces and every city's words, and is often careless.

  sftrl sft --config=configs/virl/base.py --workdir=runs/virl_base
  sftrl sft --config=configs/virl/base.py:clean --workdir=runs/virl_clean_base     (never careless)

Hardware: one CPU core. Minutes: 2.
Result: on five bases, greedy, 62 to 74% of responses are right, under absolute and relative actions alike.

The mixture is an assumption of the study, and the report says so: at every view the writer is careless with a share
that differs from view to view, 0 to 70%, and then acts on the line before the one that holds. Without careless text the
base has nothing that RL could select (choice `clean`).
"""

from configs.virl import task


def get_config(choice=""):
  if choice not in ("", "clean"):
    raise ValueError(f"choice is {choice!r}; it must be 'clean' or left out.")
  config = task.shared(space="mixed", pool="all")
  config.start = "scratch"
  config.steps = 330 if choice else 1500
  config.batch = 16
  careless = 0.0 if choice else 0.35
  config.data = dict(length=128, points="all", careless=careless, careless_spread=careless)
  config.optimizer = dict(name="adamw", learning_rate=3e-3, weight_decay=0.01, clip=1.0)
  config.schedule = dict(name="cosine", warmup=100, end=0.1)
  config.evals.update(env=dict(space="absolute", pool="known"), at=(), kl=False)
  config.compute = dict(microbatches=8)  # what fits a core's cache
  config.checkpoint = dict(every=1000, keep=2)
  config.log = dict(every=20)
  return config
