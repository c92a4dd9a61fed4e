"""`sftrl bench`: how fast this machine trains and decodes, against what it could, and against transformers and torch.

Peaks, our work and the peer's are measured in one run, ours and theirs in turns: a ratio of neighbours in time holds on
a machine that others use too, two numbers of two runs do not.
"""

import dataclasses
import gc
import tempfile
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from sftrl_jax.models import flops
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.programs.bench import machine_peak, table, workloads
from sftrl_jax.programs.bench.machine_peak import Peak
from sftrl_jax.programs.bench.paired_timing import alternate
from sftrl_jax.programs.bench.workloads import Timed
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.experiment.learner import Learner, make_rl_learner, make_sft_learner
from sftrl_jax.programs.loop.jitted import jit_functions
from sftrl_jax.programs.start import initial_params, trainable
from sftrl_jax.rollout.episodes import blank_episodes
from sftrl_jax.training.algorithms import rows_of
from sftrl_jax.training.log import write_json

PREFILL = (1, 256)   # rows, tokens
DECODE = ((1, 128), (16, 128), (64, 32))   # rows, tokens of their prompts
STEPS = 24   # tokens decoded a row
PAIRS = 5
WORK = ("prefill", "decode", "sft", "rl")
AGAINST = ("hf",)


@dataclasses.dataclass(frozen=True)
class Bench:
  """What is measured on: the parts of a run, its machine, and the peer or None."""

  experiment: Experiment
  peak: Peak
  peer: object
  pairs: int
  say: Callable[[str], None]


def run(config, verb: str, against: str = "", out: str = "", pairs: int = PAIRS, only: tuple[str, ...] = ()) -> dict:
  """Measures what the config trains, prints a table, and returns what bench.json in `out` holds."""
  refuse(against, pairs, only)
  kinds = [kind for kind in only or WORK if kind != "rl" or KINDS[verb].plays_episodes]
  experiment = build_experiment(config, verb)
  initial_params.check_start(experiment.start, experiment.model)
  with (jax.set_mesh(experiment.mesh), nn.logical_axis_rules(rules.activation_rules()),
        tempfile.TemporaryDirectory() as folder):
    peak = machine_peak.measure()
    print(table.told(peak), flush=True)
    start, params, frozen = trainable.init_trainable(experiment, Path(folder))
    peer = _peer(experiment, start, peak.threads) if against else None
    bench = Bench(experiment, peak, peer, pairs, lambda text: print(f"  {text}", flush=True))
    lines = []
    if {"prefill", "decode"} & set(kinds):
      decoding = experiment.actor.compiled.to_decoding(trainable.full_params_fn(experiment)(params, frozen)["model"])
      lines += [line for kind in kinds if kind in ("prefill", "decode") for line in DECODERS[kind](bench, decoding)]
      del decoding
    for kind in kinds:
      gc.collect()
      if kind == "sft":
        lines += _sft(bench, params, frozen)
      elif kind == "rl":
        lines += _rl(bench, params, frozen, {"model": start})
  result = {"config": experiment.config, "verb": verb, "device": dataclasses.asdict(peak), "jax": jax.__version__,
            "peer": peer.versions if peer else "", "lines": lines}
  print(table.table(lines, peak, experiment.model.config.dtype))
  if out:
    Path(out).mkdir(parents=True, exist_ok=True)
    write_json(Path(out) / "bench.json", result)
    print(f"Written: {Path(out) / 'bench.json'}")
  return result


def refuse(against: str, pairs: int, only) -> None:
  """ConfigError for words that mean nothing here."""
  if against and against not in AGAINST:
    raise ConfigError(f"--against is {against!r}; known: {', '.join(AGAINST)}.")
  if pairs < 1:
    raise ConfigError(f"--pairs is {pairs}; it must be at least 1.")
  for kind in only:
    if kind not in WORK:
      raise ConfigError(f"--only names {kind!r}; known: {', '.join(WORK)}.")


def _peer(experiment: Experiment, start, threads: int):
  from sftrl_jax.programs.bench import hf_peer as peer
  optimizer = experiment.optimizer
  if jax.device_count() > 1:
    raise ConfigError(f"--against=hf compares one device, but there are {jax.device_count()}: hide the others.")
  return peer.open(experiment.model.config, start, threads, optimizer.learning_rate, optimizer.clip)


def _prefill(bench: Bench, decoding) -> list[dict]:
  rows, length = PREFILL
  timed = workloads.prefill(bench.experiment.actor.decoder, decoding, bench.experiment.mesh, rows, length)
  theirs = None
  if bench.peer:
    from sftrl_jax.programs.bench import hf_peer as peer
    theirs = peer.prefill(bench.peer, workloads.ids_of(rows, length, bench.experiment.model.config.vocab))
  return [_measure(bench, "prefill", f"{rows}x{length}", timed, theirs)]


def _decode(bench: Bench, decoding) -> list[dict]:
  lines = []
  for rows, length in DECODE:
    if rows % meshes.rows(bench.experiment.mesh):
      bench.say(f"decode batch {rows} is left out: the mesh splits rows {meshes.rows(bench.experiment.mesh)} ways")
      continue
    timed = workloads.decode(bench.experiment.actor.decoder, decoding, bench.experiment.mesh, rows, length, STEPS)
    theirs, note = None, ""
    if bench.peer:
      from sftrl_jax.programs.bench import hf_peer as peer
      tokens = workloads.ids_of(rows, length, bench.experiment.model.config.vocab)
      theirs, note = peer.decode(bench.peer, tokens, STEPS)
    lines.append(_measure(bench, "decode", f"batch {rows}", timed, theirs, steps=STEPS, note=note))
    del timed, theirs
    gc.collect()
  return lines


DECODERS = {"prefill": _prefill, "decode": _decode}


def _sft(bench: Bench, params, frozen) -> list[dict]:
  """One step on rows without padding, and one on half as many rows packed with ragged examples."""
  experiment, vocab = bench.experiment, bench.experiment.model.config.vocab
  rows, length = shape(experiment)
  learner = make_sft_learner(experiment, length)
  half = rows // 2 if rows % (2 * experiment.compute.microbatches) == 0 else rows
  lines = []
  for name, count, make in (("sft", rows, workloads.unpadded), ("sft ragged", half, workloads.ragged)):
    batch, examples = make(count, length, vocab)
    timed = _step(bench, learner, params, frozen, batch, count, int(batch.weights_BT.sum()))
    theirs = None
    if bench.peer:
      from sftrl_jax.programs.bench import hf_peer as peer
      theirs = peer.train(bench.peer, examples, count)
    lines.append(_measure(bench, name, f"{count}x{length}", timed, theirs))
    del timed, theirs   # the state of one is gone before the next one's is made
    gc.collect()
  return lines


def _rl(bench: Bench, params, frozen, ref) -> list[dict]:
  """Scoring a batch of episodes, and one update on a minibatch of them. Blank episodes cost what others do."""
  experiment = bench.experiment
  name, section = experiment.config["algorithm"], experiment.algorithm_config
  learner = make_rl_learner(experiment)
  jitted = jit_functions(experiment, learner, params)
  blank = blank_episodes(learner.rows)
  rows, outcomes = meshes.shard_rows(experiment.mesh, (
      rows_of(experiment, section, blank, learner.length), experiment.algorithm.outcomes(experiment, section, blank)))
  whole, reference = trainable.full_params_fn(experiment)(params, frozen), ref if section.kl_coef else None

  def scoring():
    jax.block_until_ready(jitted.advantages(jitted.score_rows(whole, reference, rows), rows, outcomes))

  tokens = learner.rows * learner.length
  read = (experiment.model.config, tokens, learner.length)
  cost = flops.forward(*read, adapters=trainable.adapter_count(experiment))
  cost += flops.forward(*read) if reference else 0.0
  scored = _measure(bench, f"{name} score", f"{learner.rows}x{learner.length}", Timed(scoring, tokens, cost), None)
  batch, _ = jitted.advantages(jitted.score_rows(whole, reference, rows), rows, outcomes)
  minibatch = jitted.take(batch, np.arange(learner.minibatch, dtype=np.int32))
  timed = _step(bench, learner, params, frozen, minibatch, learner.minibatch)
  return [scored, _measure(bench, f"{name} update", f"{learner.minibatch}x{learner.length}", timed, None)]


def _step(bench: Bench, learner: Learner, params, frozen, batch, rows: int, labels: int = 0) -> Timed:
  """A train step of the config's optimizer on this batch of so many rows."""
  experiment, tokens = bench.experiment, rows * learner.length
  cost = flops.train(experiment.model.config, tokens, learner.length, trainable.adapter_count(experiment))
  return workloads.train(experiment, learner, params, frozen, batch, tokens, cost, labels)


def shape(experiment: Experiment) -> tuple[int, int]:
  """(rows, tokens) of a batch of this run."""
  return experiment.batch, experiment.data.length if experiment.data else experiment.actor.row_len()


def _measure(bench: Bench, work: str, shape: str, timed: Timed, theirs, steps: int = 1, note: str = "") -> dict:
  measured = alternate(timed.run, theirs, bench.pairs)
  line = table.line_of(work, shape, timed, measured, bench.peak, bench.experiment.model.config.dtype, steps)
  if note:
    line["note"] = note
  bench.say(table.said(line))
  return line
