r"""Reading first: a small vision-language model names the signs on routes of one leg, in both looks.

  sftrl sft --config=configs/virl_vl/recitation.py --workdir=runs/virl_vl_recitation

Hardware: one CPU core. Minutes: 5, by CPU seconds of its first steps.
Result: unfinished: no run has read signs. After 563 updates the loss is 0.23 nats a token, of which 0.20 are those of
guessing the sign on the way: the language and the copied sign are learned, and 6 in 100 tokens are wrong.

Of the three points of a route the first has no sign, the second one that the instruction does not name, and the third
that of the destination, which could be copied.
"""

from configs.virl_vl import task


def get_config():
  config = task.before_training(legs=1, drop=0.0, distractors=1.0)
  config.start = "scratch"
  config.steps = 900
  config.batch = 24
  config.model.images = 3   # the start, a sign on the way, that of the destination
  config.data = dict(length=54, points="all")
  config.evals.variants = ()   # base.py evaluates its start
  config.optimizer.update(learning_rate=1e-3, weight_decay=0.01, factors={})
  config.schedule = dict(name="constant", warmup=50)
  config.checkpoint = dict(every=100, keep=1)
  config.log = dict(every=20)
  return config
