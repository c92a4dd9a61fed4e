r"""A base model for GeneralPoints from pictures: it reads every deck, knows any rule, and slips half the time.

  sftrl sft --config=configs/general_points_vl/base.py --workdir=runs/gp_vl_base   (after recitation.py in this folder)

Hardware: one CPU core. Minutes: 4.
Result: on five bases, greedy, within two attempts, 25% in distribution and 20% under the shifted rule; the cards of
94% of hands are read, and of 71% with the deck of deck1.

The mixture is an assumption of the study: half of the final answers have their first operator turned into its
opposite, and the values of face cards are random, so the shifted rule is as familiar as the training rule, and so is
every deck.
"""

from configs.general_points_vl import task


def get_config():
  config = task.before_training(careless_by="slip")
  config.start = "runs/gp_vl_recitation"
  config.steps = 3500
  config.batch = 40
  # A prompt, a wrong answer, a word of feedback and an answer; the last token is only a target.
  config.data = dict(length=task.PROMPT + 2 * task.RESPONSE, attempts=(0.6, 0.4), careless=0.5, misread=0.3, choices=4)
  config.optimizer.update(learning_rate=2e-3, weight_decay=0.01, factors={"model/vision/*": 0.5})
  config.schedule = dict(name="cosine", warmup=100, end=0.1)
  config.checkpoint = dict(every=1000, keep=1)
  config.log = dict(every=20)
  return config
