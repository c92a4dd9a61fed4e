r"""GP-VL of the paper, PPO: the verifier's rewards for black cards in a picture, five attempts. And of red suits?

  sftrl rl --config=configs/paper/gp_vl_ppo.py:11b --workdir=runs/gp_vl_ppo              (after gp_vl_init.py:11b)
  sftrl rl --config=configs/paper/gp_vl_ppo.py:11b_token --workdir=runs/gp_vl_ppo_token  (every token is an action)
  sftrl rl --config=configs/paper/gp_vl_ppo.py:smolvlm --workdir=runs/gp_vl_ppo_small  (one GPU)

Plan first, without weights or network: sftrl plan --config=configs/paper/gp_vl_ppo.py:11b_numbers --topology=v5p-16

Hardware: eight accelerators of 80 GiB, the paper's node (a v5p-16). Minutes: not measured.
Result: not run. The paper: rule_ood rises from 11.2% to 14.2% of hands, red from 23.6% to 41.2%; the cards are read
more often too (evals.jsonl has both apart).

The paper's and ours: as gp_l_ppo.py. Misread cards are paid with -1.5, before the formula is looked at.

Planned whole, rollouts and scoring included, with --config.compute.lengths=1 (four lengths compile four times as long)
and rows in bytes: 36.8 of 96 GiB a chip, a step takes at least 131 s, 20 steps at least 5.8 chip-hours (44 minutes).
On 32 chips of 16 GiB, --topology=v5e-32 --config.compute.microbatches=7: 11.8 GiB; at least 206 s, before its tower
attended by splash.
"""

from configs.paper.setup import task


def get_config(choice=""):
  return task.ppo("gp_vl", choice, updates=20, episodes=448, half_period=100)
