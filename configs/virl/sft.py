r"""SFT on V-IRL: the right action at every point of a route, in absolute words. What becomes of relative ones?

  sftrl sft --config=configs/virl/sft.py --workdir=runs/virl_sft
  sftrl sft --config=configs/virl/sft.py:equal_updates --workdir=runs/virl_sft_updates   (as few updates as PPO makes)
  sftrl sft --config=configs/virl/sft.py:eps --workdir=runs/virl_sft_eps                 (Adam's eps 1e-4, not 1e-8)
  sftrl sft --config=configs/virl/sft.py:early --workdir=runs/virl_sft_early             (a tenth of the budget)
  sftrl sft --config=configs/virl/sft.py:chosen --workdir=runs/virl_chosen   (pairs of reward.py in this folder)

Hardware: one CPU core. Minutes: 2 to 3.
Result: on five bases, greedy, right responses go from 69% to 100% under absolute actions, and under relative ones from
69% to 100% in 77 updates, and to 15% in 3,815. The paper's claim in small: SFT memorizes, if it goes on.
"""

from configs.virl import task

CHOICES = ("", "equal_updates", "eps", "early", "chosen")


def get_config(choice=""):
  if choice not in CHOICES:
    raise ValueError(f"choice is {choice!r}; it must be one of {', '.join(CHOICES[1:])}, or left out.")
  config = task.shared()
  config.steps = 100_000  # the budget ends the run
  config.flops = 3e11 if choice == "early" else 3e12
  config.batch = 80 if choice == "equal_updates" else 8
  config.data = dict(length=88, points="all")
  config.optimizer = dict(name="adamw", learning_rate=3e-4, clip=1.0)
  if choice == "eps":
    config.optimizer.args = dict(eps=1e-4)
  config.schedule = dict(name="constant", warmup=20)
  config.compute = dict(microbatches=config.batch // 4)  # what fits a core's cache
  config.checkpoint = dict(every=1000, keep=2)
  config.log = dict(every=10)
  return preferred(config) if choice == "chosen" else config


def preferred(config):
  """The preferred response of every pair in the place of the expert's; what the pairs have cost is in the budget."""
  config.batch = 4
  # 192: three responses, each with what comes before it; an update has about as many tokens as one on expert's routes
  config.data = dict(path="runs/virl_reward/pairs.jsonl", format="chosen", flops="recorded", length=192)
  config.compute.microbatches = 2
  return config
