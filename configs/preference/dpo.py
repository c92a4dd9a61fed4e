r"""DPO of a chat model on pairs of your own: after it, the model answers more as the preferred responses do.

  sftrl preference --config=configs/preference/dpo.py --workdir=runs/dpo --config.data.path=FILE.jsonl

Hardware: one GPU, or two CPU cores to try it. Minutes: not measured.
Result: not run at full length.

`rewards/accuracies` is the share of pairs whose preferred response has gained more; both log-probabilities may fall
while it rises. --config.data.validation=0.1 measures it on pairs that are held out. --config.dpo.sft_coef=1 holds the
preferred responses up.

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
  config.objective = "dpo"
  config.dpo = dict(loss="sigmoid", beta=0.1)
  config.env = dict(name="none")  # nothing is played; evals.variants of an environment would be
  config.tokenizer = dict(name="pretrained")
  config.model = dict(name="pretrained", dtype="float32")  # bfloat16 on an accelerator
  config.data = dict(path=str(Path(__file__).with_name("pairs_sample.jsonl")), length=256)
  config.optimizer = dict(name="adamw", learning_rate=1e-6, clip=1.0)
  config.schedule = dict(name="cosine", warmup=10, end=0.1)
  config.compute = dict(microbatches=4, logit_chunk=256)  # a vocabulary of 49 thousand is the largest array there is
  config.checkpoint = dict(every=50, keep=2)
  config.log = dict(every=1)
  return config
