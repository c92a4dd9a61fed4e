r"""SFT on V-IRL from pictures: right actions in absolute words, four cities by day. What becomes of the rest?

  sftrl sft --config=configs/virl_vl/sft.py --workdir=runs/virl_vl_sft                  (after base.py in this folder)
  sftrl sft --config=configs/virl_vl/sft.py:equal_updates --workdir=runs/virl_vl_sft_updates   (PPO's updates)
  sftrl sft --config=configs/virl_vl/sft.py:frozen --workdir=runs/virl_vl_sft_frozen    (the tower stays)

Hardware: one CPU core. Minutes: 4.
Result: on one base, greedy: right responses 88% to 100%, under relative actions to 47%; signs read in new cities 95% to
20%.

Equal FLOPs are not equal updates: rows of ten times as many routes make about as many updates as PPO.
"""

from configs.virl_vl import task


def get_config(choice=""):
  if choice not in ("", "equal_updates", "frozen"):
    raise ValueError(f"choice is {choice!r}; it must be 'equal_updates', 'frozen' or left out.")
  config = task.shared()
  config.steps = 100_000   # the budget ends the run
  config.flops = 2e12
  config.batch = 80 if choice == "equal_updates" else 8
  config.data = dict(length=task.ROUTE, points="all")
  config.schedule = dict(name="constant", warmup=20)
  config.compute = dict(microbatches=1)   # as in base.py
  if choice == "frozen":
    config.optimizer.freeze = ("model/vision/*",)
  config.checkpoint = dict(every=1000, keep=2)
  config.log = dict(every=10)
  return config
