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

from configs.preference import task


def get_config():
  config = task.shared()
  config.objective = "dpo"
  config.dpo = dict(loss="sigmoid", beta=0.1)
  config.optimizer.learning_rate = 1e-6
  return config
