r"""PPO on GeneralPoints from pictures: the verifier's rewards for one deck under J = Q = K = 10, two attempts.

  sftrl rl --config=configs/general_points_vl/ppo.py --workdir=runs/gp_vl_ppo   (after base.py in this folder)

Hardware: one CPU core. Minutes: 2.
Result: on five bases, greedy: in distribution 25% to 44%, on held-out pairs 23% to 21%, under the shifted rule 20% to
23%; hands read with deck1 71% to 68%, with the dark deck 91% to 89%.

The verifier looks at the cards line first, then at the number line, then at the formula, so that what is misread is
paid apart from what is misapplied.
"""

from configs.general_points_vl import task


def get_config():
  config = task.shared()
  config.steps = 10_000   # the budget ends the run
  config.flops = 1.5e12
  config.batch = 256
  config.algorithm = "ppo"
  config.ppo = dict(
      level="token", epochs=1, minibatches=4, clip=0.2, value_coef=0.1, gamma=1.0, turn_gamma=0.9, gae_lambda=1.0,
      truncation="end")   # being out of attempts is this task's own end
  config.schedule = dict(name="constant", warmup=10)
  config.compute = dict(microbatches=1, lengths=1)
  config.checkpoint = dict(every=40, keep=2)
  config.log = dict(every=1)
  return config
