r"""V-IRL-L of the paper, initial SFT: 25 updates on right actions, from which SFT and PPO start alike.

  sftrl sft --config=configs/paper/virl_l_init.py:8b --workdir=runs/virl_l_init     (eight chips of 80 GiB)

Plan first, without weights or network: sftrl plan --config=configs/paper/virl_l_init.py:numbers --topology=v5p-16

Hardware: eight accelerators of 80 GiB, the paper's node (a v5p-16). Minutes: not measured.
Result: not run. The paper, on Llama-3.2-11B-Vision: 80.8% of actions right under relative actions (rule_ood).

The paper's: absolute actions, one right answer at a point of a route, 128 examples an update, the optimizer of
gp_l_init.py. Here: routes through generated cities, unless --config.env.routes=FILE names those of the authors.
The paper's warm-up for V-IRL-L is not known, as the size of its data is not; here it has five updates.

Planned as virl_l_sft.py, whose updates it has: 23 of 96 GiB a chip, at least 0.2 chip-hours (1.5 minutes).
"""

from configs.paper.setup import task


def get_config(choice=""):
  return task.supervised("virl_l", choice, "", steps=25, warmup=5)
