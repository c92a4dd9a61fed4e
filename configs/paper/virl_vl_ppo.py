r"""V-IRL-VL of the paper, PPO: the verifier's rewards at what four views show, two tries a point. And other cities?

  sftrl rl --config=configs/paper/virl_vl_ppo.py:11b --workdir=runs/virl_vl_ppo              (after virl_vl_init.py:11b)
  sftrl rl --config=configs/paper/virl_vl_ppo.py:11b_token --workdir=runs/virl_vl_ppo_token  (every token is an action)
  sftrl rl --config=configs/paper/virl_vl_ppo.py:smolvlm --workdir=runs/virl_vl_ppo_small  (one GPU)

Plan first, without weights or network: sftrl plan --config=configs/paper/virl_vl_ppo.py:11b_numbers --topology=v5p-16

Hardware: eight accelerators of 80 GiB, the paper's node (a v5p-16). Minutes: not measured.
Result: not run. The paper: rule_ood rises from 35.7% to 45.0% of actions, whole routes in other cities from 16.7% to
77.8% of 18.

The paper's and ours: as virl_l_ppo.py, with the rate 1e-7. A wrong action after a misread picture is paid with -1.5.
--config.env.legacy=true has the views where the released code has them, which is not where its prompt says.
"""

from configs.paper.setup import task


def get_config(choice=""):
  return task.ppo("virl_vl", choice, updates=15, episodes=192, half_period=20)
