r"""PPO on V-IRL: the verifier's rewards under absolute actions, two tries a point. Does it carry over to relative ones?

  sftrl rl --config=configs/virl/ppo.py --workdir=runs/virl_ppo
  sftrl rl --config=configs/virl/ppo.py:turn --workdir=runs/virl_ppo_turn       (a whole response is one action)

Hardware: one CPU core. Minutes: 2 to 3.
Result: on five bases, greedy, right responses go from 69% to 100% under absolute actions and under relative ones. The
paper's claim in small: RL generalizes.
"""

from configs.virl import task


def get_config(choice=""):
  if choice not in ("", "turn"):
    raise ValueError(f"choice is {choice!r}; it must be 'turn' or left out.")
  config = task.shared()
  config.steps = 10_000  # the budget ends the run
  config.flops = 3e12
  config.batch = 128
  config.algorithm = "ppo"
  config.ppo = dict(
      level=choice or "token", epochs=1, minibatches=4, clip=0.2, value_coef=0.2, gamma=1.0, turn_gamma=0.9,
      gae_lambda=0.95, truncation="end", value_layers=(64, 64))
  # The value head begins from nothing: at the policy's rate it stays behind, and advantages hold its errors.
  config.optimizer = dict(name="adamw", learning_rate=3e-4, clip=1.0, factors={"value/*": 10.0})
  config.schedule = dict(name="constant", warmup=10)
  # microbatches: what fits a core's cache. lengths: the published figures were made with rows of one length.
  config.compute = dict(microbatches=8, lengths=1)
  config.checkpoint = dict(every=1000, keep=2)
  config.log = dict(every=1)
  return config
