r"""GP-VL of the paper, PPO: the verifier's rewards for black cards in a picture, five attempts. And of red suits?

  sftrl rl --config=configs/paper/gp_vl_ppo.py:11b --workdir=runs/gp_vl_ppo              (after gp_vl_init.py:11b)
  sftrl rl --config=configs/paper/gp_vl_ppo.py:11b_token --workdir=runs/gp_vl_ppo_token  (every token is an action)
  sftrl rl --config=configs/paper/gp_vl_ppo.py:smolvlm --workdir=runs/gp_vl_ppo_small  (one GPU)

Plan first, without weights or network: sftrl plan --config=configs/paper/gp_vl_ppo.py:11b_numbers --topology=v5p-16

Hardware: eight accelerators of 80 GiB, the paper's node (a v5p-16). Minutes: not measured.
Result: not run. The paper: rule_ood rises from 11.2% to 14.2% of hands, red from 23.6% to 41.2%; the cards are read
more often too (evals.jsonl has both apart).

The paper's and ours: as gp_l_ppo.py. Misread cards are paid with -1.5, before the formula is looked at.
"""

from configs.paper.setup import task


def get_config(choice=""):
  return task.ppo("gp_vl", choice, updates=20, episodes=448, half_period=100)
