r"""GP-VL of the paper, SFT: right answers about black cards under J = Q = K = 10. What of 11, 12, 13, and of red suits?

  sftrl sft --config=configs/paper/gp_vl_sft.py:11b --workdir=runs/gp_vl_sft             (after gp_vl_init.py:11b)
  sftrl sft --config=configs/paper/gp_vl_sft.py:smolvlm --workdir=runs/gp_vl_sft_small  (one GPU)

Plan first, without weights or network: sftrl plan --config=configs/paper/gp_vl_sft.py:11b_numbers --topology=v5p-16

Hardware: eight accelerators of 80 GiB, the paper's node (a v5p-16). Minutes: not measured.
Result: not run. The paper, at equal compute: rule_ood falls from 11.2% to 5.6% of hands, red from 23.6% to 13.7%, and
in distribution no SFT passes 30%. It also freezes the tower, or tower and connector, with the same result:
--config.optimizer.freeze="('model/vision/*',)".

As gp_vl_init.py, from its end, for 3,300 updates: the paper's curves end at 7e10 GFLOPs, the start included.

Planned whole, evaluations' rollouts included, with rows in bytes: 33.8 of 96 GiB a chip, an update takes at least 4.6 s
by its FLOPs, 3,300 at least 33.5 chip-hours (4.2 hours). On 32 chips of 16 GiB, --topology=v5e-32
--config.compute.microbatches=4: 10.5 GiB, at least 9.1 s by what it moves, which on the v5p-16 XLA cannot print.
"""

from configs.paper.setup import task


def get_config(choice=""):
  return task.supervised("gp_vl", choice, "runs/gp_vl_init", steps=3300, warmup=20)
