r"""Self-SFT on GeneralPoints: the policy imitates its own right answers, fresh every iteration. No sign, no expert.

  sftrl rl --config=configs/general_points/self_sft.py --workdir=runs/gp_self_sft
  sftrl rl --config=configs/general_points/self_sft.py:smollm2 --workdir=runs/smollm2_self_sft   (an accelerator)

Hardware: one CPU core. Minutes: 3.
Result: not yet measured on five bases. Episodes and updates are PPO's; what was wrong has weight 0. A row without a
right answer is blank, and microbatches of blank rows cost nothing.
"""

from configs.general_points import ppo


def get_config(choice=""):
  config = ppo.get_config(choice)
  config.algorithm = "self_sft"
  del config.ppo
  config.self_sft = dict(epochs=1, minibatches=4)
  config.compute.lengths = 4
  return config
