r"""V-IRL-L of the paper, PPO: the verifier's rewards under absolute actions, two tries a point. And relative ones?

  sftrl rl --config=configs/paper/virl_l_ppo.py:8b --workdir=runs/virl_l_ppo              (after virl_l_init.py:8b)
  sftrl rl --config=configs/paper/virl_l_ppo.py:8b_token --workdir=runs/virl_l_ppo_token  (every token is an action)

Plan first, without weights or network: sftrl plan --config=configs/paper/virl_l_ppo.py:numbers --topology=v5p-16

Hardware: eight accelerators of 80 GiB, the paper's node (a v5p-16). Minutes: not measured.
Result: not run. The paper: rule_ood rises from 80.8% to 91.8% of actions.

The paper's: as gp_l_ppo.py, with 15 iterations and a cosine of 20. Here: 192 episodes an iteration, in place of 2,048
turns (a route of a generated city has 11.4 points); --config.env.routes=FILE names the authors' routes instead; the
other differences are those of gp_l_ppo.py, and thought is all before the key "action" (the released code never finds
that key, so all but the last five tokens are thought). A prompt is written anew at every point, so that an episode is
several rows. --config.env.legacy=true is the verifier of the released code.

Planned whole, rollouts and scoring included, with --config.compute.lengths=1 --config.compute.microbatches=12 (four
minutes on two CPU cores): 68.32 of 95.73 GiB a chip, in the train step; turns of 64 rows take 21.5. A step takes at
least 1,723 s, if every route is walked to its end, so 15 steps take at least 57.4 chip-hours. The six microbatches
that are set here, for rows of tokens, do not fit with the bytes of :numbers, whose rows are three times as long.
"""

from configs.paper.setup import task


def get_config(choice=""):
  return task.ppo("virl_l", choice, updates=15, episodes=192, half_period=20)
