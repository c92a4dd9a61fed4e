r"""A base model for GeneralPoints: a small decoder that reads any rule from its prompt and is careless half the time.

  sftrl sft --config=configs/general_points/base.py --workdir=runs/base

Hardware: one CPU core. Minutes: 6.
Result: greedy, within 3 attempts, id_seen and rule_ood are both near 30%.

The mixture is an assumption of the study, and the report says so: half of the final answers aim at some other target,
as text from the web would; the face cards' values are random, so the shifted rule is as familiar as the training rule.
"""

from configs.general_points import task


def get_config():
  config = task.shared(faces="mixed", holdout=0.0)
  config.start = "scratch"
  config.steps = 3600
  config.batch = 32
  config.data = dict(length=76, attempts=(0.5, 0.3, 0.2), careless=0.5, misread=0.2, choices=4)
  config.optimizer = dict(name="adamw", learning_rate=3e-3, weight_decay=0.01, clip=1.0)
  config.schedule = dict(name="cosine", warmup=100, end=0.1)
  config.evals.update(env=dict(faces=10, holdout=0.25), at=(), kl=False, episodes=256)
  config.compute = dict(microbatches=8)  # what fits a core's cache
  config.checkpoint = dict(every=1000, keep=2)
  config.log = dict(every=20)
  return config
