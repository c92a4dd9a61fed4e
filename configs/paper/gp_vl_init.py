r"""GP-VL of the paper, initial SFT: right answers about black cards in a picture, from which SFT and PPO start alike.

  sftrl sft --config=configs/paper/gp_vl_init.py:11b --workdir=runs/gp_vl_init           (eight chips of 80 GiB)
  sftrl sft --config=configs/paper/gp_vl_init.py:smolvlm --workdir=runs/gp_vl_init_small  (one GPU)

Plan first, without weights or network: sftrl plan --config=configs/paper/gp_vl_init.py:11b_numbers --topology=v5p-16

Hardware: eight accelerators of 80 GiB, the paper's node (a v5p-16). Minutes: not measured.
Result: not run. The paper, on Llama-3.2-11B-Vision: 11.2% of hands under the shifted rule (rule_ood), 23.6% with red
suits (red).

The paper's: as gp_l_init.py, with the cards in a picture of 1200 x 1200 pixels and not in the prompt, the rate 5e-7,
and tower, connector and text model trained alike. Its number of updates is not known. Here 1,300: its curves of compute
begin at 2e10 GFLOPs, which are as many of 128 examples of 1,850 tokens, 1,600 of them for the picture.
"""

from configs.paper.setup import task


def get_config(choice=""):
  return task.supervised("gp_vl", choice, "", steps=1300, warmup=47)
