r"""PPO on V-IRL from pictures: the verifier's rewards for absolute actions, four cities by day, two tries a point.

  sftrl rl --config=configs/virl_vl/ppo.py --workdir=runs/virl_vl_ppo   (after base.py in this folder)

Hardware: one CPU core. Minutes: 4.
Result: on one base, greedy: right responses 88% to 100%, under relative actions too; signs read 96% to 81%.

A right action is paid whatever the response says that it has seen; a wrong one costs more if the sign is misread too.
"""

from configs.virl_vl import task


def get_config():
  config = task.shared()
  config.steps = 10_000   # the budget ends the run
  config.flops = 2e12
  config.batch = 128
  config.algorithm = "ppo"
  config.ppo = dict(
      level="token", epochs=1, minibatches=4, clip=0.2, value_coef=0.2, gamma=1.0, turn_gamma=0.9, gae_lambda=0.95,
      truncation="end", value_layers=(64, 64))
  # The value head begins from nothing: at the policy's rate it stays behind, and advantages hold its errors.
  config.optimizer.factors = {"model/vision/*": 1 / 3, "value/*": 10.0}
  config.schedule = dict(name="constant", warmup=10)
  config.compute = dict(microbatches=1, lengths=1)   # as in base.py
  config.checkpoint = dict(every=1000, keep=2)
  config.log = dict(every=1)
  return config
