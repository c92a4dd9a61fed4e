r"""GP-L of the paper, PPO: the verifier's rewards under J = Q = K = 10, five attempts. And under 11, 12, 13?

  sftrl rl --config=configs/paper/gp_l_ppo.py:8b --workdir=runs/gp_l_ppo              (after gp_l_init.py:8b)
  sftrl rl --config=configs/paper/gp_l_ppo.py:8b_token --workdir=runs/gp_l_ppo_token  (every token is an action)

Plan first, without weights or network: sftrl plan --config=configs/paper/gp_l_ppo.py:numbers --topology=v5p-16

Hardware: eight accelerators of 80 GiB, the paper's node (a v5p-16). Minutes: not measured.
Result: not run. The paper: rule_ood rises from 11.5% to 15.0% of hands (234 hands: about one standard error).

The paper's: turn-level ratio in which thought, all before the key of the answer, weighs 0.5, with clip 0.1 for policy
and value, value weight 0.5, gamma 0.9 and lambda 0.95 over turns, four epochs, eight optimizer updates for each of 20
iterations of 2,048 turns, temperature 0.2, Adam with rate 1e-6 and eps 1e-7, a cosine of 100 iterations, no KL and no
entropy term, one model as policy and critic with every weight trained, a value head with layers of 1,024 and 512,
ratios above 10 cut. Here: 448 episodes an iteration (2,048 turns at 4.6 attempts each); responses of 96 tokens (512);
advantages whitened over the whole batch (per process); a truncated episode ends there (its value leaks into the next
one); a response without the key has no thought (all but its last five tokens), and the first two tokens of a thought
count too (they are left out).
--config.env.legacy=true --config.env.attempts=6 is the verifier of the released code.

Planned whole, rollouts and scoring included, with --config.compute.lengths=1 and rows in bytes, which are three times
as long: 22.3 of 96 GiB a chip; a step takes at least 65 s, so 20 steps take at least 2.9 chip-hours.
"""

from configs.paper.setup import task


def get_config(choice=""):
  return task.ppo("gp_l", choice, updates=20, episodes=448, half_period=100)
