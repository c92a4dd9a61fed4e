r"""RLHF on a task of texts: PPO from a reward model of pairs; the verifier is measured beside it.

  sftrl rl --config=configs/documents/rlhf.py --workdir=runs/labels_rlhf --config.reward_model.start=runs/labels_reward

runs/labels_reward is the workdir of reward.py in this folder, a finished run. Choices reading and triples, the same.

Hardware: one CPU core. Minutes: 2, and 2 for the reward model.
Result: not yet measured on five bases.

Scores are in standard deviations of those of the reward model's training responses, and a KL to the start costs 0.3 of
them a nat. What the pairs and the reward model have cost is in the budget.
"""

from configs.documents import ppo


def get_config(choice=""):
  config = ppo.get_config(choice)
  config.ppo.kl_coef = 0.3
  config.reward_model = dict(start="", flops="recorded")   # give it: --config.reward_model.start=WORKDIR
  return config
