r"""SFT on a task of texts: right responses in the plain wording. What becomes of other wordings and other labels?

  sftrl sft --config=configs/documents/sft.py --workdir=runs/labels_sft                 (classify documents)
  sftrl sft --config=configs/documents/sft.py:reading --workdir=runs/reading_sft        (answer a question)
  sftrl sft --config=configs/documents/sft.py:triples --workdir=runs/triples_sft        (extract triples)
  sftrl sft --config=configs/documents/sft.py --workdir=runs/noisy --config.data.noise=0.1   (a tenth is mislabelled)

Hardware: one CPU core. Minutes: 2.
Result: on one base, labels, greedy: id from 66% to 100%, label_ood from 62% to 91% (93% on its way).

Each starts from the run of base.py for its task.
"""

from configs.documents import task


def get_config(choice=""):
  config = task.shared(choice)
  config.steps = 100_000  # the budget ends the run
  config.flops = 1e12
  config.batch = 32   # about 1,100 updates
  config.data = dict(length=task.about(choice)["row"])
  config.optimizer = dict(name="adamw", learning_rate=3e-4, clip=1.0)
  config.schedule = dict(name="constant", warmup=20)
  config.compute = dict(microbatches=2)  # what fits a core's cache
  config.checkpoint = dict(every=500, keep=2)
  config.log = dict(every=10)
  return config
