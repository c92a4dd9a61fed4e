r"""V-IRL-VL of the paper, initial SFT: right actions at what four views show, from which SFT and PPO start alike.

  sftrl sft --config=configs/paper/virl_vl_init.py:11b --workdir=runs/virl_vl_init           (eight chips of 80 GiB)
  sftrl sft --config=configs/paper/virl_vl_init.py:smolvlm --workdir=runs/virl_vl_init_small  (one GPU)

Plan first, without weights or network: sftrl plan --config=configs/paper/virl_vl_init.py:11b_numbers --topology=v5p-16

Hardware: eight accelerators of 80 GiB, the paper's node (a v5p-16). Minutes: not measured.
Result: not run. The paper, on Llama-3.2-11B-Vision: 35.7% of actions right under relative actions (rule_ood), 16.7% of
18 routes in other cities.

The paper's: as virl_l_init.py, with four views in one picture in place of what is observed now,
and the rate 5e-7. Here: streets drawn for generated cities, unless --config.env.routes=FILE --config.env.panoramas=DIR
name those of the authors. Its number of updates is not known. Here 600: its curves of compute begin at 1e10 GFLOPs,
which are as many of 128 examples of 2,030 tokens, 1,600 of them for the picture.
"""

from configs.paper.setup import task


def get_config(choice=""):
  return task.supervised("virl_vl", choice, "", steps=600, warmup=18)
