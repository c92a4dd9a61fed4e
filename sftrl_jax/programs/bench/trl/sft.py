"""The peer of `sftrl bench --against=trl` in SFT: steps of TRL's SFTTrainer on our examples, as its own loop runs them.

It is set up as its users would: one example a row, padded to the longest of a batch, its default AdamW. Its packing
needs flash attention, which CPUs lack: without it TRL packs a batch into one row.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sftrl_jax.programs.bench import hf_peer
from sftrl_jax.programs.bench.paired_timing import Work
from sftrl_jax.programs.bench.trl import stepping
from sftrl_jax.programs.bench.workloads import Examples
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.experiment import Experiment

IGNORED = -100   # the label of a token without a loss


def refuse(experiment: Experiment) -> None:
  """ConfigError for what the peer does not do, before anything is compiled."""
  if experiment.tokenizer.reader:
    raise ConfigError("--against=trl compares text, but the model reads pictures: use --against=hf.")
  loss, optimizer = (experiment.config.get("sft") or {}).get("loss", "nll"), experiment.optimizer
  stepping.refuse_unlike((
      ("sft.loss", loss, loss == "nll", "nll", "cross-entropy is compared"),
      ("lora.rank", experiment.lora.rank, not experiment.lora.rank, "0", "whole models are compared"),
      ("optimizer.name", optimizer.name, optimizer.name == "adamw", "adamw", "AdamW is compared")))


@contextlib.contextmanager
def steps(experiment: Experiment, start: dict, threads: int, count: int, examples: Examples, rows: int
          ) -> Iterator[Work]:
  """Work that is one optimizer step over all examples, `rows` at a time, at most `count` times. It returns the seconds
  for as many labels as the examples have: the last microbatch is filled up with the first examples.

  start: parameters of `model`, stacked; threads: of torch; rows: examples of a microbatch
  """
  pieces = -(-len(examples) // rows)
  filled = [*examples, *examples[: pieces * rows - len(examples)]]
  labels = lambda chosen: sum(weight > 0 for _, weights in chosen for weight in weights[1:])
  share, seconds = labels(examples) / labels(filled), [0.0]

  def ended(whole: float) -> None:
    seconds[0] = whole

  with tempfile.TemporaryDirectory() as folder:
    with stepping.quiet():
      trainer = _trainer(experiment, start, Path(folder), count, filled, rows)
    with stepping.steps(trainer, threads, lambda: None, ended) as work:

      def step() -> float:
        work()
        return share * seconds[0]

      yield step


def _trainer(experiment: Experiment, start: dict, folder: Path, count: int, examples: Examples, rows: int) -> Any:
  """The trainer, on our weights and ids. folder: empty, and there until the trainer is."""
  import datasets
  import trl
  config = experiment.model.config
  model = hf_peer.load_model(folder / "model", config, start, "float32")
  data = [{"input_ids": list(ids), "labels": [number if weight > 0 else IGNORED
                                              for number, weight in zip(ids, weights, strict=True)]}
          for ids, weights in examples]
  arguments = trl.SFTConfig(
      output_dir=str(folder / "trl"), report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
      use_cpu=model.device.type == "cpu", bf16=config.dtype == "bfloat16", dataloader_pin_memory=False,
      gradient_checkpointing=hf_peer.recomputes(config), max_steps=count, train_sampling_strategy="sequential",
      per_device_train_batch_size=rows, gradient_accumulation_steps=len(data) // rows, max_length=None, packing=False,
      learning_rate=stepping.RATE, lr_scheduler_type="constant", max_grad_norm=experiment.optimizer.clip,
      weight_decay=experiment.optimizer.weight_decay)
  return trl.SFTTrainer(
      model=model, args=arguments, train_dataset=datasets.Dataset.from_list(data * count),
      processing_class=stepping.id_tokenizer(config.vocab, experiment.tokenizer))
