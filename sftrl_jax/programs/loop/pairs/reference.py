"""What DPO compares with: the log-probabilities of every pair's responses by the start, scored once and kept.

They are two numbers a pair, in WORKDIR/reference.json, beside a checksum of the parameters that gave them and of the
data: a run that goes on reads them, so that its losses are those of a run that was not stopped, and refuses another
start.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sftrl_jax.checkpoints.checksum import checksums, sha256
from sftrl_jax.data import packing
from sftrl_jax.data.pairs.batches import PairCorpus
from sftrl_jax.models import flops
from sftrl_jax.parallel import hosts
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.loop import sft_data
from sftrl_jax.programs.loop.run_state import RunState
from sftrl_jax.programs.loop.sft_data import SftData
from sftrl_jax.programs.start import trainable
from sftrl_jax.training.log import Log, write_json

FILE = "reference.json"


def scored_by_start(experiment: Experiment) -> Callable[[SftData, RunState, Log], tuple[SftData, RunState, float]]:
  """(data, run state, log) -> (the data with the start's log-probabilities, the run state, FLOPs of scoring).

  The run state loses the start's parameters, unless evaluations compare with them too.
  """

  def prepare(data: SftData, run_state: RunState, log: Log) -> tuple[SftData, RunState, float]:
    data, length = with_reference(experiment, data, run_state, log), experiment.data.length
    config, rows = experiment.model.config, scored_rows(experiment, data.corpus)
    cost = flops.forward(config, rows * length, length) + flops.pictures(config, rows)
    kept = run_state.start if trainable.measures_kl(experiment) else {}
    return data, dataclasses.replace(run_state, start=kept), cost

  return prepare


def with_reference(experiment: Experiment, data: SftData, run_state: RunState, log: Log) -> SftData:
  """The data with the start's log-probabilities, read from the workdir or scored now.

  ConfigError where they were scored by other parameters, or of other pairs. All processes score together.
  """
  logprobs_N2 = logprobs_of(experiment, data.corpus, run_state, log)
  return sft_data.of_corpus(experiment, dataclasses.replace(data.corpus, ref_logprobs_N2=logprobs_N2))


def logprobs_of(experiment: Experiment, corpus: PairCorpus, run_state: RunState, log: Log, file: str = FILE
                ) -> np.ndarray:
  """logprobs_N2 of a corpus by the start, read from a file of the workdir or scored now, and then written there."""
  fingerprint = sha256({"start": checksums(run_state.start), "data": corpus.report.sha256})
  path = run_state.workdir / file
  logprobs_N2 = _kept(path, fingerprint, corpus.count)
  if logprobs_N2 is None:
    log.progress("compile", run_state.position, "scoring the pairs by the start", force=True)
    logprobs_N2 = _scored(experiment, corpus, run_state, log)
    if log.writes:
      write_json(path, {"fingerprint": fingerprint, "logprobs": logprobs_N2.tolist()})
  return logprobs_N2


def scored_rows(experiment: Experiment, corpus: PairCorpus) -> int:
  """Rows of all pairs, the blank ones of the last batch included: what scoring costs."""
  rows, (_, ends) = sft_data.rows_at_once(experiment), _packed(experiment, corpus)
  return -(-len(ends) // rows) * rows


def _packed(experiment: Experiment, corpus: PairCorpus) -> tuple[np.ndarray, np.ndarray]:
  data = experiment.data
  return packing.packed(corpus.sizes, np.arange(corpus.count), data.length, data.pack, corpus.most,
                        corpus.pictured)


def _scored(experiment: Experiment, corpus: PairCorpus, run_state: RunState, log: Log) -> np.ndarray:
  members, ends = _packed(experiment, corpus)
  spans, rows, length = np.split(members, ends[:-1]), sft_data.rows_at_once(experiment), experiment.data.length
  logprobs_N2, params = np.zeros((corpus.count, 2), np.float32), {"model": run_state.start}
  score = None
  for first in tqdm(range(0, len(spans), rows), desc="scoring by the start", unit=" batches", leave=False,
                    disable=not sys.stderr.isatty()):
    some = spans[first : first + rows]
    batch = shard_rows(experiment.mesh, corpus.laid(some, rows, length))
    score = score or run_state.jitted.score_rows.lower(params, batch).compile()
    scores_BS = hosts.whole_arrays((score(params, batch),))[0]
    for row, span in enumerate(some):
      logprobs_N2[span] = scores_BS[row, : 2 * len(span)].reshape(-1, 2)
    log.heartbeat()
  return logprobs_N2


def _kept(path: Path, fingerprint: str, count: int) -> np.ndarray | None:
  """What is in the file; None where there is none."""
  if not path.is_file():
    return None
  try:
    record = json.loads(path.read_text())
    begun, logprobs_N2 = record["fingerprint"], np.asarray(record["logprobs"], np.float32)
    if logprobs_N2.shape != (count, 2) or not np.isfinite(logprobs_N2).all():
      raise ValueError(f"its log-probabilities are not finite numbers of {count} pairs")
  except (ValueError, KeyError, TypeError) as error:
    raise _unusable(path, f"it is damaged ({error})") from error
  if begun != fingerprint:
    raise _unusable(path, "they are of other parameters, or of other pairs, than config.start and config.data give now")
  return logprobs_N2


def _unusable(path: Path, why: str) -> ConfigError:
  return ConfigError(f"{path} holds the start's log-probabilities of this run, but {why}: put the start back as it "
                     "was, delete the file to score anew, or use another --workdir.")
