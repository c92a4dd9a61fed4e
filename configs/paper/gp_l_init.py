r"""GP-L of the paper, initial SFT: 400 updates on right answers, from which SFT and PPO start alike.

  sftrl sft --config=configs/paper/gp_l_init.py:8b --workdir=runs/gp_l_init         (eight chips of 80 GiB)

Plan first, without weights or network: sftrl plan --config=configs/paper/gp_l_init.py:numbers --topology=v5p-16

Hardware: eight accelerators of 80 GiB, the paper's node (a v5p-16). Minutes: not measured.
Result: not run. The paper, on Llama-3.2-11B-Vision: 11.5% of hands under the shifted rule (rule_ood).

The paper's: four cards to 24, J = Q = K = 10, one right answer a prompt, 128 examples an update, AdamW with rate 1e-6,
b2 0.98, eps 1e-7, no decay, clip 1; warm-up over 3% of one pass over its 800,000 examples, then a constant rate.
Here: Llama-3.1-8B-Instruct, hands drawn for every update instead of a file, one of at most four formulas at random.

Planned, with rows in bytes, three times as long: 21 of 96 GiB a chip, at least 1.2 chip-hours (9 minutes).
"""

from configs.paper.setup import task


def get_config(choice=""):
  return task.supervised("gp_l", choice, "", steps=400, warmup=188)
