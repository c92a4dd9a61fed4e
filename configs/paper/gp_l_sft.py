r"""GP-L of the paper, SFT: right answers under J = Q = K = 10 for one pass over 800,000 examples. What of 11, 12, 13?

  sftrl sft --config=configs/paper/gp_l_sft.py:8b --workdir=runs/gp_l_sft           (after gp_l_init.py:8b)

Plan first, without weights or network: sftrl plan --config=configs/paper/gp_l_sft.py:numbers --topology=v5p-16

Hardware: eight accelerators of 80 GiB, the paper's node (a v5p-16). Minutes: not measured.
Result: not run. The paper, at equal compute: rule_ood falls from 11.5% to 3.4% of hands, while the training rule rises
towards 100%.

As gp_l_init.py, from its end. The optimizer's memory begins anew, so it has 20 updates of warm-up.

Planned, with rows in bytes, three times as long: 21 of 96 GiB a chip, at least 17.1 chip-hours (2.1 hours).
"""

from configs.paper.setup import task


def get_config(choice=""):
  return task.supervised("gp_l", choice, "runs/gp_l_init", steps=5850, warmup=20)
