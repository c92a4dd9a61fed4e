r"""A reward model from pairs of your own: it scores an answer higher, the more a person would prefer it.

  sftrl preference --config=configs/preference/reward.py --workdir=runs/reward --config.data.path=FILE.jsonl

Hardware: one GPU, or two CPU cores to try it. Minutes: not measured.
Result: not run at full length.

`rewards/accuracies` is the share of pairs that it orders rightly; `rewards/accuracies_not_longer` is that of the pairs
whose preferred response is not the longer one. --config.data.validation=0.1 measures them on pairs that are held out.

FILE is .jsonl, .json or .parquet, a directory of such files, or owner/name on the hub, with `chosen` and `rejected`:
texts or lists of messages, after a `prompt`, or beginning with it. Without it, the little sample beside this file is
trained on. Any model can be the start: --config.start=DIR, a .gguf file, or a name on the hub;
--config.lora.rank=16 trains adapters instead of all of it.
"""

from pathlib import Path

from ml_collections import ConfigDict


def get_config():
  config = ConfigDict()
  config.seed = 0
  config.start = "smollm2"
  config.steps = 100
  config.batch = 8
  config.objective = "reward"
  config.bradley_terry = dict(centre=0.01)
  config.env = dict(name="none")  # nothing is played; evals.variants of an environment would be
  config.tokenizer = dict(name="pretrained")
  config.model = dict(name="pretrained", dtype="float32")  # bfloat16 on an accelerator
  config.data = dict(path=str(Path(__file__).with_name("pairs_sample.jsonl")), length=256)
  config.optimizer = dict(name="adamw", learning_rate=1e-5, clip=1.0)
  config.schedule = dict(name="cosine", warmup=10, end=0.1)
  config.compute = dict(microbatches=4, logit_chunk=256)  # a vocabulary of 49 thousand is the largest array there is
  config.checkpoint = dict(every=50, keep=2)
  config.log = dict(every=1)
  return config
