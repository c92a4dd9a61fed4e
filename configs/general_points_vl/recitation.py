r"""Reading first: a small vision-language model names the three cards of clean pictures of every deck and suit.

  sftrl sft --config=configs/general_points_vl/recitation.py --workdir=runs/gp_vl_recitation

Hardware: one CPU core. Minutes: 1.
Result: the cards of 5 to 7 in 10 hands, by deck (one seed); base.py goes on from it. A probe that trained on noisy
pictures from the first step learned the language and read nothing.
"""

from configs.general_points_vl import task


def get_config():
  config = task.before_training(noise=0.0, answer="cards")
  config.start = "scratch"
  config.steps = 500
  config.batch = 32
  config.data = dict(length=task.PROMPT + 4)   # CARDS c c c and the end, which is only a target
  config.optimizer.update(learning_rate=1e-3, weight_decay=0.01, factors={})
  config.schedule = dict(name="constant", warmup=50)
  config.evals.env.update(noise=0.0, answer="cards")
  config.checkpoint = dict(every=500, keep=1)
  config.log = dict(every=20)
  return config
