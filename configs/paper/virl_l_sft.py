r"""V-IRL-L of the paper, SFT: right actions in absolute words. What becomes of relative ones?

  sftrl sft --config=configs/paper/virl_l_sft.py:8b --workdir=runs/virl_l_sft       (after virl_l_init.py:8b)

Plan first, without weights or network: sftrl plan --config=configs/paper/virl_l_sft.py:numbers --topology=v5p-16

Hardware: eight accelerators of 80 GiB, the paper's node (a v5p-16). Minutes: not measured.
Result: not run. The paper, at equal compute: rule_ood falls from 80.8% to 1.3% of actions.

As virl_l_init.py, from its end, for 500 updates: the paper's number is not known; its compute axis ends at 5e9 GFLOPs
for 10.7e9 weights, which is about 1,400 updates of 128 examples of 430 tokens.

Planned, with rows in bytes, three times as long: 23 of 96 GiB a chip, at least 3.9 chip-hours (29 minutes).
"""

from configs.paper.setup import task


def get_config(choice=""):
  return task.supervised("virl_l", choice, "runs/virl_l_init", steps=500, warmup=20)
