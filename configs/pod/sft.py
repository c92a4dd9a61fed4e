r"""SFT of 1.5 to 70 billion parameters on a slice of TPU: does right answers under one rule cost the other rule?

  sftrl sft --config=configs/pod/sft.py:hub-1.5b-v5e-4 --workdir=gs://BUCKET/sft       (a v5e-4)
  sftrl sft --config=configs/pod/sft.py:hub-8b-v5e-16 --workdir=gs://BUCKET/sft        (a v5e-16)

Plan first, without renting anything: sftrl plan --config=configs/pod/sft.py:8b-v5e-16 --topology=v5e-16

Hardware: the slice in the choice's name. Minutes: `sftrl plan` bounds them.
Result: planned, not run: what of each choice fits its slice with f32 AdamW is in launch/README.md.
"""

from configs.pod import task


def get_config(choice=""):
  config = task.shared(choice)
  config.steps = 1000
  config.batch = 128
  config.data = dict(length=2048 if choice else 64)  # three examples, packed
  config.optimizer = dict(name="adamw", learning_rate=5e-6, clip=1.0)
  config.schedule = dict(name="constant", warmup=20)
  config.compute = dict(microbatches=task.microbatches(choice, config.batch, 1), logit_chunk=1024)
  config.checkpoint = dict(every=100, keep=2)
  config.log = dict(every=10)
  return config
