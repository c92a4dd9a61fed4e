r"""SFT on GeneralPoints from pictures: right answers about one deck under J = Q = K = 10. What becomes of the others?

  sftrl sft --config=configs/general_points_vl/sft.py --workdir=runs/gp_vl_sft          (after base.py in this folder)
  sftrl sft --config=configs/general_points_vl/sft.py:frozen --workdir=runs/gp_vl_sft_frozen    (the tower stays)
  sftrl sft --config=configs/general_points_vl/sft.py:equal_updates --workdir=runs/gp_vl_sft_updates   (PPO's updates)

Hardware: one CPU core. Minutes: 2.
Result: on five bases, greedy: in distribution 25% to 88%, on held-out pairs 23% to 14%, under the shifted rule 20% to
0%; hands read with deck1 71% to 47%, with the dark deck 91% to 71%. With the tower frozen (eight bases) reading
stays, and the rule is lost all the same; with PPO's updates the rule ends at 12%.
"""

from configs.general_points_vl import task


def get_config(choice=""):
  if choice not in ("", "frozen", "equal_updates"):
    raise ValueError(f"choice is {choice!r}; it must be 'frozen', 'equal_updates' or left out.")
  config = task.shared()
  config.steps = 100_000   # the budget ends the run
  config.flops = 1.5e12
  config.batch = 176 if choice == "equal_updates" else 32   # 5.5 times as many rows: PPO's updates at its FLOPs
  config.data = dict(length=task.PROMPT + task.RESPONSE - 1)   # the last token is only a target
  config.schedule = dict(name="constant", warmup=20)
  config.compute = dict(microbatches=1)   # in 4 pieces a step of 176 rows takes 2.2 times as long on one core
  if choice == "frozen":
    config.optimizer.freeze = ("model/vision/*",)
  config.checkpoint = dict(every=500, keep=2)
  config.log = dict(every=10)
  return config
