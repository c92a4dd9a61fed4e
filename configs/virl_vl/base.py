r"""A base model for V-IRL from pictures: it reads signs, knows both action spaces, and is often careless.

  sftrl sft --config=configs/virl_vl/base.py --workdir=runs/virl_vl_base   (after recitation.py in this folder)

Hardware: one CPU core. Minutes: 5.
Result: on one seed, greedy, at the expert's states: signs read 86% in training's cities, 93% in new ones by dusk;
right responses 58% under absolute actions, 73% under relative ones. Played alone it fails at the first point (6%, 12%).

The mixture is an assumption of the study, and that of configs/virl/base.py: both action spaces, every landmark, day and
dusk; at every view the writer reads the sign rightly, and with a share that differs from view to view, 0 to 70%, acts
on the line before the one that holds.
"""

from configs.virl_vl import task


def get_config():
  config = task.before_training()
  config.start = "runs/virl_vl_recitation"
  config.steps = 1100
  config.batch = 8
  config.model.images = 8   # of two or three routes that share a row
  config.data = dict(length=160, points="all", careless=0.35, careless_spread=0.35)
  config.optimizer.update(learning_rate=3e-3, weight_decay=0.01, factors={"model/vision/*": 0.5}, args=dict(b2=0.98))
  config.schedule = dict(name="cosine", warmup=100, end=0.1)
  config.compute = dict(microbatches=1)   # in pieces, XLA computes gradients of convolutions 8 times slower on a CPU
  config.checkpoint = dict(every=1100, keep=1)
  config.log = dict(every=20)
  return config
