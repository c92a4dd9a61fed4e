r"""A base model for V-IRL from pictures: it reads every sign, knows both action spaces, and is often careless.

  sftrl sft --config=configs/virl_vl/base.py --workdir=runs/virl_vl_base   (after recitation.py in this folder)

Hardware: one CPU core. Minutes: 5, by CPU seconds of a stopped run (0.33 an update).
Result: unfinished: without recitation, at a rate of 3e-3, a run was stopped after 430 updates at a loss of 0.51 nats,
above the 0.24 of a model that copies what the instruction names, is as careless as its data, and reads nothing.

The mixture is an assumption of the study: at every view the writer is careless with a share that differs from view to
view, 0 to 60%, and then acts on the line before the one that holds, but reads the sign rightly.
"""

from configs.virl_vl import task


def get_config():
  config = task.before_training(distractors=1.0)
  config.start = "runs/virl_vl_recitation"
  config.steps = 900
  config.batch = 16
  # A careless response before the right one, and WRONG between them, at every point.
  config.data = dict(length=task.ROW + task.POINTS * (task.RESPONSE + 1), points="all", careless=0.3,
                     careless_spread=0.3)
  config.optimizer.update(learning_rate=2e-3, weight_decay=0.01, factors={"model/vision/*": 0.5})
  config.schedule = dict(name="cosine", warmup=100, end=0.1)
  config.checkpoint = dict(every=500, keep=2)
  config.log = dict(every=20)
  return config
