r"""A base model for GeneralPoints: a small decoder that reads any rule from its prompt and is careless half the time.

  sftrl sft --config=configs/general_points/base.py --workdir=runs/base
  sftrl sft --config=configs/general_points/base.py:slips --workdir=runs/slips_base
  sftrl sft --config=configs/general_points/base.py:five_cards --workdir=runs/five_cards_base
  sftrl sft --config=configs/general_points/base.py:cot --workdir=runs/cot_base               (answers with their steps)
  sftrl sft --config=configs/general_points/base.py:smollm2 --workdir=runs/smollm2_base     (an accelerator)

Hardware: one CPU core. Minutes: 6 (slips: 3).
Result: greedy, within 3 attempts, id_seen and rule_ood are both near 30%.

The mixture is an assumption of the study, and the report says so: half of the final answers aim at some other target,
as text from the web would; the face cards' values are random, so the shifted rule is as familiar as the training rule.
In `slips` the careless half are instead the expert's formulas with their first operator turned into its opposite: one
habit, the same for every hand and rule. It has 1,500 steps, as have five_cards and cot, which slip too.
"""

from configs.general_points import task


def get_config(choice=""):
  game, pretrained = task.GAMES.get(choice, {}), choice in task.PRETRAINED
  slips = bool(game) or choice == "slips"
  config = task.shared("" if choice == "slips" else choice, faces="mixed", holdout=0.0,
                       careless_by="slip" if slips else "target")
  config.steps = 400 if pretrained else 1500 if slips else 3600
  config.batch = 32
  config.data = dict(length=256 if pretrained else game.get("base_row", 76), attempts=(0.5, 0.3, 0.2), careless=0.5,
                     misread=0.2, choices=4)
  config.optimizer = dict(name="adamw", learning_rate=3e-3, weight_decay=0.01, clip=1.0)
  config.schedule = dict(name="cosine", warmup=100, end=0.1)
  faces = game.get("env", {}).get("faces", 10)
  config.evals.update(env=dict(faces=faces, holdout=0.25), at=(), kl=False, episodes=256)
  config.compute = dict(microbatches=8)  # what fits a core's cache
  config.checkpoint = dict(every=1000, keep=2)
  config.log = dict(every=20)
  return real(config, choice) if pretrained else scratch(config)


def scratch(config):
  config.start = "scratch"
  return config


def real(config, choice):
  """A chat model knows how to count: it learns the form of the answer, and to be careless half the time."""
  config.optimizer.learning_rate = 1e-4
  config.schedule.warmup = 20
  config.compute = task.compute(choice, microbatches=4)
  config.checkpoint.every = 100
  return config
