r"""DPO on GeneralPoints: the model learns the better one of two of its own answers. Does that carry over to 11, 12, 13?

  sftrl preference --config=configs/general_points/dpo.py --workdir=runs/gp_dpo
  sftrl preference --config=configs/general_points/dpo.py --workdir=runs/gp_noisy --config.data.noise=0.2

Hardware: one CPU core. Minutes: 2.
Result: not run at full length.

The start answers every hand twice, the verifier's rewards order both, and ties are left out: runs/gp_dpo/pairs.jsonl,
whose FLOPs are in the budget. Without the SFT term (dpo.sft_coef=0) DPO lowers the preferred answers too, and breaks
the model.
"""

from configs.general_points import task


def get_config():
  config = task.pairs()
  config.objective = "dpo"
  config.dpo = dict(loss="sigmoid", beta=0.1, sft_coef=1.0)
  config.optimizer = dict(name="adamw", learning_rate=1e-4, clip=1.0)
  config.schedule = dict(name="constant", warmup=20)
  return config
