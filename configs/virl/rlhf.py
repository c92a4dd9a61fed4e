r"""RLHF on V-IRL: PPO from a reward model that scores every response of a route; the verifier is measured beside it.

  sftrl rl --config=configs/virl/rlhf.py --workdir=runs/virl_rlhf --config.reward_model.start=runs/virl_reward

Hardware: one CPU core. Minutes: 2, and 2 for the reward model.
Result: on five bases, greedy, right responses go from 69% to 100% under absolute actions and under relative ones.

runs/virl_reward is the workdir of reward.py in this folder, a finished run.

ppo.py with scores in standard deviations of those of the reward model's training responses, and a KL to the start that
costs 0.3 of them a nat. The verifier still says where a route goes on and when it ends; it rewards nothing. What the
pairs and the reward model have cost is in the budget.
"""

from configs.virl import ppo


def get_config():
  config = ppo.get_config()
  config.flops = 2e12
  config.ppo.kl_coef = 0.3
  config.reward_model = dict(start="", flops="recorded")   # give it: --config.reward_model.start=WORKDIR
  return config
