r"""V-IRL-VL of the paper, SFT: right actions in absolute words at what is seen. And relative ones, or other cities?

  sftrl sft --config=configs/paper/virl_vl_sft.py:11b --workdir=runs/virl_vl_sft         (after virl_vl_init.py:11b)
  sftrl sft --config=configs/paper/virl_vl_sft.py:smolvlm --workdir=runs/virl_vl_sft_small  (one GPU)

Plan first, without weights or network: sftrl plan --config=configs/paper/virl_vl_sft.py:11b_numbers --topology=v5p-16

Hardware: eight accelerators of 80 GiB, the paper's node (a v5p-16). Minutes: not measured.
Result: not run. The paper, at equal compute: rule_ood falls from 35.7% to 2.5% of actions, whole routes in other cities
from 16.7% to 11.1%.

As virl_vl_init.py, from its end, for 2,400 updates: the paper's curves end at 5e10 GFLOPs, the start included.
"""

from configs.paper.setup import task


def get_config(choice=""):
  return task.supervised("virl_vl", choice, "runs/virl_vl_init", steps=2400, warmup=20)
