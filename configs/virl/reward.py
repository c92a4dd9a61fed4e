r"""A reward model on V-IRL: which of two responses at a point would the verifier prefer? Under relative actions too?

  sftrl preference --config=configs/virl/reward.py --workdir=runs/virl_reward

Hardware: one CPU core. Minutes: 2.
Result: on five bases it orders all held-out pairs rightly under absolute actions and 97% under relative ones.

It reads the whole chat up to the response, and scores that at its last token. So RL from it has a score for every
response of an episode. Its accuracy on held-out pairs of both action spaces is in evals.jsonl (rewards/accuracies).
"""

from configs.virl import task


def get_config():
  config = task.pairs()
  config.steps = 63   # two passes over 1,000 pairs
  config.flops = 0.0
  config.evals = dict(variants=())   # it scores and does not answer
  config.objective = "reward"
  config.bradley_terry = dict(centre=0.01)
  config.optimizer = dict(name="adam", learning_rate=1e-3, clip=1.0, args=dict(b2=0.98))
  config.schedule = dict(name="linear", warmup=20, end=0.1)
  return config
