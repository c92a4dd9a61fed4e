r"""PPO of 1.5 to 11 billion parameters on a slice of TPU: does what it learns under one rule carry over to the other?

  sftrl rl --config=configs/pod/ppo.py:hub-1.5b-v5e-4 --workdir=gs://BUCKET/ppo       (a v5e-4)
  sftrl rl --config=configs/pod/ppo.py:hub-8b-v5e-16 --workdir=gs://BUCKET/ppo        (a v5e-16)

Plan first, without renting anything: sftrl plan --config=configs/pod/ppo.py:8b-v5e-16 --topology=v5e-16

Hardware: the slice in the choice's name. Minutes: `sftrl plan` bounds them.
Result: planned, not run: what of each choice fits its slice with f32 AdamW is in launch/README.md.

Planned whole, 8b-v5e-64 with 1,024 rows of 2,048 + 1,024 tokens (env.attempts=1, rollout.rows=1024, batch=1024,
rollout.prompt_tokens=2048, rollout.max_new_tokens=1024; 17 minutes of compiling on two cores): 13.7 of 15.75 GiB a chip
at most, while the cache holds 3,071 tokens; a step takes at least 32.5 s, two updates 15.3 s of it, decoding 10.7 s.
"""

from configs.pod import task


def get_config(choice=""):
  config = task.shared(choice)
  config.steps = 500
  config.batch = 256
  config.algorithm = "ppo"
  config.ppo = dict(
      level="token", epochs=1, minibatches=2, clip=0.2, value_coef=0.2, gamma=1.0, turn_gamma=0.9, gae_lambda=1.0,
      truncation="end")  # being out of attempts is this task's own end
  config.optimizer = dict(name="adamw", learning_rate=1e-6, clip=1.0)
  config.schedule = dict(name="constant", warmup=10)
  config.compute = dict(microbatches=task.microbatches(choice, config.batch // config.ppo.minibatches, 1),
                        logit_chunk=768)
  config.checkpoint = dict(every=50, keep=2)
  config.log = dict(every=1)
  return config
