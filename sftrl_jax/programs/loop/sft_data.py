"""Where the batches of supervised training come from: an environment's demonstrations, or rows and pairs of one's own.

Demonstrations follow from the config, which a workdir records; rows are in a file that may change. So a run prints and
records what it read before the first step (data.json), and resumes with the same data or not at all.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from sftrl_jax.data import mix, packing, report as reports
from sftrl_jax.data.batches import Cursors, beside, next_batch
from sftrl_jax.data.demonstrations import DemonstrationsConfig, demonstration
from sftrl_jax.data.pairs.batches import PairCorpus, load_pairs
from sftrl_jax.data.rows import Corpus, load
from sftrl_jax.metrics import Mean, floats, merge
from sftrl_jax.objectives.batches import PairBatch, TokenBatch
from sftrl_jax.parallel import hosts
from sftrl_jax.parallel.mesh import rows as mesh_rows, shard_rows
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.loop.run_state import RunState
from sftrl_jax.training.log import Log, write_json

RECORD, MIX = "data.json", "mix"   # and the key in it of the second source


@dataclasses.dataclass(frozen=True, eq=False)
class SftData:
  """What SFT, or training on pairs, reads.

  batches: cursor -> (batch, cursor), the cursor being how many examples, or pairs, were read; two of two sources
  record: what data.json holds; {} for demonstrations
  summary: the same for a person
  corpus, held: of own rows; the examples that are held out
  """

  batches: Callable[[Cursors], tuple[TokenBatch | PairBatch, Cursors]]
  record: dict = dataclasses.field(default_factory=dict)
  summary: str = ""
  corpus: Corpus | PairCorpus | None = None
  held: np.ndarray | None = None


def make_sft_data(experiment: Experiment) -> SftData:
  """The supply of a run; own rows are read here, whole. ConfigError for what nobody would train on."""
  second, mine = experiment.second_source(), _mine(experiment, experiment.batch)
  if second is None:
    return _of_source(experiment, mine)
  first = experiment.with_batch(experiment.batch - second.batch)
  sources = [_of_source(*part) for part in zip((first, second), mix.parts(mine, first.batch), strict=True)]
  new, old = sources
  record = {**new.record, **({MIX: old.record} if old.record else {})}
  summary = "\n".join(source.summary for source in sources if source.summary)
  return SftData(beside(new.batches, old.batches), record, summary, new.corpus, new.held)


def _of_source(experiment: Experiment, mine: frozenset[int] | None) -> SftData:
  """The supply of rows from one source. mine: the rows that this process makes, None for all"""
  data, seed, rows = experiment.data, experiment.seed, experiment.batch
  if isinstance(data, DemonstrationsConfig):
    chats = functools.partial(demonstration, experiment.env, data, seed)
    return SftData(functools.partial(next_batch, chats, experiment.tokenizer, rows, data.length, mine=mine))
  try:
    corpus = load(data, experiment.tokenizer)
  except ValueError as error:
    raise ConfigError(str(error)) from error
  return _of_corpus(experiment, corpus, mine)


def make_pair_data(experiment: Experiment) -> SftData:
  """Pairs, read whole; ConfigError for what nobody would train on."""
  try:
    corpus = load_pairs(experiment.data, experiment.tokenizer)
  except ValueError as error:
    raise ConfigError(str(error)) from error
  return of_corpus(experiment, corpus)


def of_corpus(experiment: Experiment, corpus: Corpus | PairCorpus) -> SftData:
  """The supply of a run from the rows that it has read."""
  return _of_corpus(experiment, corpus, _mine(experiment, experiment.batch))


def _of_corpus(experiment: Experiment, corpus: Corpus | PairCorpus, mine: frozenset[int] | None) -> SftData:
  data = experiment.data
  try:
    trained, held = packing.split(corpus, data.validation)
  except ValueError as error:
    raise ConfigError(str(error)) from error
  seed, rows = experiment.seed, experiment.batch
  packed = packing.account(corpus, data, trained, seed, rows)
  plain, shown = (reports.marked(experiment.tokenizer, *corpus.example(0), colour)
                  for colour in (False, sys.stdout.isatty()))
  batches = packing.make_batches(corpus, data, trained, seed, rows, mine)
  return SftData(batches, reports.plain(corpus.report, packed, plain),
                reports.text(corpus.report, packed, shown), corpus, held)


def _mine(experiment: Experiment, rows: int) -> frozenset[int] | None:
  """The rows of a batch that this process makes; None where it makes all."""
  return frozenset(hosts.share(experiment.mesh).slots(rows)) if hosts.several() else None


def refuse_changed(sft_data: SftData, workdir: Path) -> None:
  """ConfigError when the run in this workdir began with other data."""
  path = workdir / RECORD
  if not sft_data.record or not path.is_file():
    return
  try:
    before = json.loads(path.read_text())
    pairs = [(now, then["sha256"], then["kept"]) for now, then in (
        (sft_data.record, before), (sft_data.record.get(MIX), before.get(MIX))) if now and "sha256" in now]
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ConfigError(f"{path} is damaged ({error}): delete it to go on with the data as it is now, or give another "
                      "workdir.") from error
  for now, sha256, kept in pairs:
    if sha256 != now["sha256"]:
      raise ConfigError(f"{workdir} was begun with other data: {now['path']} gave {kept:,} examples then (sha256 "
                        f"{sha256[:12]}) and gives {now['kept']:,} now (sha256 {now['sha256'][:12]}). Put the data, or "
                        "the tokenizer, back as it was, or give another --workdir.")


def record(sft_data: SftData, workdir: Path, log: Log) -> None:
  """Prints what was read, and records it once."""
  if not sft_data.record:
    return
  log.say(sft_data.summary)
  if log.writes and not (workdir / RECORD).is_file():
    write_json(workdir / RECORD, sft_data.record)


def rows_at_once(experiment: Experiment) -> int:
  """Rows that are measured or scored at once: those of a microbatch, where the mesh can split them."""
  rows = experiment.batch // experiment.compute.microbatches
  return rows if rows % mesh_rows(experiment.mesh) == 0 else experiment.batch


def make_measure(experiment: Experiment, sft_data: SftData, loss: Callable, run_state: RunState,
                 names: Sequence[str] = ("mean_token_accuracy",)) -> Callable[[dict], dict[str, float]] | None:
  """measure(params) -> {"eval/loss", "eval/NAME", ...} over every held-out example; None where none is.

  loss: (params, batch) -> (Mean, metrics), of training. Compiled now, for as many rows as a microbatch has.
  names: of its metrics that are measured
  """
  if sft_data.held is None or not len(sft_data.held):
    return None
  data, rows = experiment.data, rows_at_once(experiment)
  batches = lambda: packing.held_batches(sft_data.corpus, data, sft_data.held, rows)

  def sums(params: dict, batch: TokenBatch | PairBatch) -> dict[str, Mean]:
    value, metrics = loss(params, batch)
    return {"eval/loss": value, **{f"eval/{name}": metrics[name] for name in names}}

  example = shard_rows(experiment.mesh, next(batches()))
  compiled = jax.jit(sums).lower(run_state.eval_params(run_state.state), example).compile()

  def measure(params: dict) -> dict[str, float]:
    total = None
    for batch in batches():
      sums_of_batch = jax.device_get(compiled(params, shard_rows(experiment.mesh, batch)))
      total = sums_of_batch if total is None else merge(total, sums_of_batch)
    return floats(total)

  return measure
