r"""DPO on V-IRL: the better one of two responses at one point of a route. Does it carry over to relative actions?

  sftrl preference --config=configs/virl/dpo.py --workdir=runs/virl_dpo
  sftrl preference --config=configs/virl/dpo.py --workdir=runs/virl_noisy --config.data.noise=0.2

Hardware: one CPU core. Minutes: 2.
Result: on five bases, greedy, right responses go from 69% to 100% under absolute actions and to 95% under relative
ones.

At a random point of each route, after right responses at those before, the start responds twice, and the verifier's
rewards order both: runs/virl_dpo/pairs.jsonl, whose FLOPs are in the budget. What comes before the response is prompt:
it is read, and not learned.
"""

from configs.virl import task


def get_config():
  config = task.pairs()
  config.objective = "dpo"
  config.dpo = dict(loss="sigmoid", beta=0.1, sft_coef=1.0)
  config.optimizer = dict(name="adamw", learning_rate=1e-4, clip=1.0)
  config.schedule = dict(name="constant", warmup=20)
  return config
