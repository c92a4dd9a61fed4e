"""How many held-out pairs of each variant a model orders rightly: lines of evals.jsonl."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from sftrl_jax.data import packing, read
from sftrl_jax.data.pairs.batches import PairCorpus, load_pairs
from sftrl_jax.data.pairs.rows import PairsConfig
from sftrl_jax.metrics import Mean, floats, merge
from sftrl_jax.objectives.batches import PairBatch
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.loop import sft_data
from sftrl_jax.programs.loop.pairs import reference
from sftrl_jax.programs.loop.run_state import RunState
from sftrl_jax.programs.loop.sft_data import SftData
from sftrl_jax.rollout.tally import wilson
from sftrl_jax.training.log import Log

MEASURED = ("rewards/accuracies", "rewards/margins")


def make_measure_variants(experiment: Experiment, data: SftData, loss: Callable, run_state: RunState, log: Log
                          ) -> Callable[[dict], list[dict]] | None:
  """parameters -> a line of evals.jsonl for each file of config.data.heldout, the variant being its name; None without.

  For a loss that compares with the start, its log-probabilities are scored here, and kept beside those of training.
  loss: (params, batch) -> (Mean, metrics), of training. Compiled now.
  """
  section = experiment.data
  if not section.heldout:
    return None
  corpora = heldout_pairs(experiment)
  if run_state.jitted.score_rows is not None:
    corpora = {variant: dataclasses.replace(corpus, ref_logprobs_N2=reference.logprobs_of(
        experiment, corpus, run_state, log, f"reference_{variant}.json")) for variant, corpus in corpora.items()}
  rows = sft_data.rows_at_once(experiment)
  batches = lambda corpus: packing.held_batches(corpus, section, np.arange(corpus.count), rows)

  def sums(params: dict, batch: PairBatch) -> dict[str, Mean]:
    metrics = loss(params, batch)[1]
    return {name: metrics[name] for name in MEASURED}

  example = shard_rows(experiment.mesh, next(batches(next(iter(corpora.values())))))
  compiled = jax.jit(sums).lower(run_state.eval_params(run_state.state), example).compile()

  def line_of(params: dict, variant: str, corpus: PairCorpus) -> dict:
    total = None
    for batch in batches(corpus):
      part = jax.device_get(compiled(params, shard_rows(experiment.mesh, batch)))
      total = part if total is None else merge(total, part)
    right = round(float(total["rewards/accuracies"].total))
    return {"variant": variant, "pairs": corpus.count, **floats(total), "ci95": wilson(right, corpus.count)}

  def measure_variants(params: dict) -> list[dict]:
    lines = [line_of(params, variant, corpus) for variant, corpus in corpora.items()]
    log.say("held-out pairs  " + "  ".join(f"{line['variant']} {line['rewards/accuracies']:.1%} of {line['pairs']:,}"
                                           for line in lines))
    return lines

  return measure_variants


def heldout_pairs(experiment: Experiment) -> dict[str, PairCorpus]:
  """{variant: its pairs}, all packed alike. ConfigError, as for the pairs that are trained on."""
  section, corpora = experiment.data, {}
  if not Path(section.heldout).exists():
    raise ConfigError(f"config.data.heldout is {section.heldout!r}, but there is no such file or directory.")
  try:
    for file in read.files(Path(section.heldout)):
      settings = PairsConfig(path=str(file), length=section.length, pack=section.pack, on_bad_row=section.on_bad_row,
                             max_dropped=section.max_dropped, control_tokens=section.control_tokens)
      corpora[file.stem] = load_pairs(settings, experiment.tokenizer)
  except (ValueError, OSError) as error:
    raise ConfigError(str(error).replace("config.data.path", "config.data.heldout")) from error
  most = max(corpus.most for corpus in corpora.values())
  return {variant: dataclasses.replace(corpus, most=most) for variant, corpus in corpora.items()}
