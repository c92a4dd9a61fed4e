r"""RLHF on GeneralPoints: PPO from a reward model of pairs, not from the verifier, which is measured beside it.

  sftrl rl --config=configs/general_points/rlhf.py --workdir=runs/gp_rlhf --config.reward_model.start=runs/gp_reward

Hardware: one CPU core. Minutes: 2, and 2 for the reward model.
Result: see configs/study/alignment_cpu.py.

runs/gp_reward is the workdir of reward.py in this folder, a finished run.

ppo.py with one attempt, scores in standard deviations of those of the reward model's training answers, and a KL to the
start that costs 0.3 of them a nat. With none the score rises while success falls to nothing, of which the alarm
over_optimisation warns. What the pairs and the reward model have cost is in the budget.
"""

from configs.general_points import ppo


def get_config():
  config = ppo.get_config()
  config.flops = 2.4e12
  config.env.attempts = 1
  config.ppo.kl_coef = 0.3
  config.reward_model = dict(start="", flops="recorded")   # give it: --config.reward_model.start=WORKDIR
  return config
