r"""SFT on V-IRL from pictures: the right action at every point, in absolute words. What becomes of the rest?

  sftrl sft --config=configs/virl_vl/sft.py --workdir=runs/virl_vl_sft                          (after base.py here)
  sftrl sft --config=configs/virl_vl/sft.py:equal_updates --workdir=runs/virl_vl_updates        (PPO's updates)

Hardware: one CPU core. Minutes: 2, by the FLOPs.
Result: unfinished: there is no base that reads.
"""

from configs.virl_vl import task


def get_config(choice=""):
  if choice not in ("", "equal_updates"):
    raise ValueError(f"choice is {choice!r}; it must be 'equal_updates' or left out.")
  config = task.shared()
  config.steps = 100_000   # the budget ends the run
  config.flops = 1.5e12
  config.batch = 80 if choice else 8
  config.data = dict(length=task.ROW, points="all")
  config.schedule = dict(name="constant", warmup=20)
  config.checkpoint = dict(every=1000, keep=2)
  config.log = dict(every=10)
  return config
