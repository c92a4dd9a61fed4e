r"""PPO on a task of texts: the verifier's rewards in the plain wording. Does it carry over to other labels?

  sftrl rl --config=configs/documents/ppo.py --workdir=runs/labels_ppo                  (classify documents)
  sftrl rl --config=configs/documents/ppo.py:reading --workdir=runs/reading_ppo         (answer a question)
  sftrl rl --config=configs/documents/ppo.py:triples --workdir=runs/triples_ppo         (extract triples: F1)

Hardware: one CPU core. Minutes: 2.
Result: on one base, labels, with a linear value head, greedy: id from 66% to 100%, label_ood from 62% to 95%.

Each starts from the run of base.py for its task.
"""

from configs.documents import task


def get_config(choice=""):
  config = task.shared(choice)
  config.steps = 10_000  # the budget ends the run
  config.flops = 1e12
  config.batch = 256
  config.algorithm = "ppo"
  config.ppo = dict(
      level="token", epochs=1, minibatches=4, clip=0.2, value_coef=0.2, gamma=1.0, turn_gamma=0.9, gae_lambda=1.0,
      truncation="end", value_layers=(64, 64))  # being out of attempts is this task's own end
  # As on V-IRL: a linear value head at the policy's rate had raised the alarm poor_values.
  config.optimizer = dict(name="adamw", learning_rate=3e-4, clip=1.0, factors={"value/*": 10.0})
  config.schedule = dict(name="constant", warmup=10)
  config.compute = dict(microbatches=4, lengths=2)
  config.checkpoint = dict(every=40, keep=2)
  config.log = dict(every=1)
  return config
