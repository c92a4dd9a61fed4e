r"""A reward model on GeneralPoints: which of two answers would the verifier prefer? And which under 11, 12, 13?

  sftrl preference --config=configs/general_points/reward.py --workdir=runs/gp_reward

Hardware: one CPU core. Minutes: 2.
Result: not run at full length.

Its accuracy on held-out pairs of both rules is in evals.jsonl (rewards/accuracies). runs/gp_reward/reward_scale.json
has the mean and deviation of its scores, by which RL from it is scaled.
"""

from configs.general_points import task


def get_config():
  config = task.pairs()
  config.steps = 188   # one pass over 12,000 pairs
  config.flops = 0.0
  config.evals = dict(variants=())   # it scores and does not answer
  config.objective = "reward"
  config.bradley_terry = dict(centre=0.01)
  config.optimizer = dict(name="adam", learning_rate=1e-3, clip=1.0, args=dict(b2=0.98))
  config.schedule = dict(name="linear", warmup=20, end=0.1)
  return config
