"""`sftrl bench`: how fast this machine trains and decodes, against what it could, and against transformers and torch.

Peaks, our work and the peer's are measured in one run, ours and theirs in turns: a ratio of neighbours in time holds on
a machine that others use too, two numbers of two runs do not.
"""

import dataclasses
import functools
import gc
import tempfile
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from sftrl_jax.models import flops
from sftrl_jax.objectives.sft import sft_loss
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.programs import adapters, measurements, peak as peaks, start as starts, workload
from sftrl_jax.programs.evaluate import row_length
from sftrl_jax.programs.mistakes import ConfigError
from sftrl_jax.programs.pairs import alternate
from sftrl_jax.programs.peak import Peak
from sftrl_jax.programs.setup import Parts, assemble
from sftrl_jax.programs.workload import Timed
from sftrl_jax.training.log import write_json
from sftrl_jax.training.optimizer import make_optimizer
from sftrl_jax.training.schedule import make_schedule
from sftrl_jax.training.score import make_score
from sftrl_jax.training.step import make_train_step

PREFILL = (1, 256)   # rows, tokens
DECODE = ((1, 128), (16, 128), (64, 32))   # rows, tokens of their prompts
STEPS = 24   # tokens decoded a row
PAIRS = 5
KINDS = ("prefill", "decode", "sft", "rl")
AGAINST = ("hf",)


@dataclasses.dataclass(frozen=True)
class Bench:
  """What is measured on: the parts of a run, its machine, and the peer or None."""

  parts: Parts
  peak: Peak
  peer: object
  pairs: int
  say: Callable[[str], None]


def run(config, verb: str, against: str = "", out: str = "", pairs: int = PAIRS, only: tuple[str, ...] = ()) -> dict:
  """Measures what the config trains, prints a table, and returns what bench.json in `out` holds."""
  refuse(against, pairs, only)
  kinds = [kind for kind in only or KINDS if kind != "rl" or verb == "rl"]
  parts = assemble(config, verb)
  starts.check(parts.config["start"], parts.model)
  with (jax.set_mesh(parts.mesh), nn.logical_axis_rules(rules.activation_rules()),
        tempfile.TemporaryDirectory() as folder):
    peak = peaks.measure()
    print(measurements.told(peak), flush=True)
    start, params, frozen = adapters.begin(parts, Path(folder))
    peer = _peer(parts, start, peak.threads) if against else None
    bench = Bench(parts, peak, peer, pairs, lambda text: print(f"  {text}", flush=True))
    lines = []
    if {"prefill", "decode"} & set(kinds):
      decoding = parts.actor.compiled[2](adapters.whole(parts)(params, frozen)["model"])
      lines += [line for kind in kinds if kind in ("prefill", "decode") for line in DECODERS[kind](bench, decoding)]
      del decoding
    for kind in kinds:
      gc.collect()
      if kind == "sft":
        lines += _sft(bench, params, frozen)
      elif kind == "rl":
        lines += _rl(bench, params, frozen, {"model": start})
  result = {"config": parts.config, "verb": verb, "device": dataclasses.asdict(peak), "jax": jax.__version__,
            "peer": peer.versions if peer else "", "lines": lines}
  print(measurements.table(lines, peak, parts.model.config.dtype))
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
    if kind not in KINDS:
      raise ConfigError(f"--only names {kind!r}; known: {', '.join(KINDS)}.")


def _peer(parts: Parts, start, threads: int):
  from sftrl_jax.programs import peer
  optimizer = parts.settings["optimizer"]
  if jax.device_count() > 1:
    raise ConfigError(f"--against=hf compares one device, but there are {jax.device_count()}: hide the others.")
  return peer.open(parts.model.config, start, threads, optimizer.learning_rate, optimizer.clip)


def _prefill(bench: Bench, decoding) -> list[dict]:
  rows, length = PREFILL
  timed = workload.prefill(bench.parts.actor.decoder, decoding, bench.parts.mesh, rows, length)
  theirs = None
  if bench.peer:
    from sftrl_jax.programs import peer
    theirs = peer.prefill(bench.peer, workload.ids_of(rows, length, bench.parts.model.config.vocab))
  return [_measure(bench, "prefill", f"{rows}x{length}", timed, theirs)]


def _decode(bench: Bench, decoding) -> list[dict]:
  lines = []
  for rows, length in DECODE:
    if rows % meshes.rows(bench.parts.mesh):
      bench.say(f"decode batch {rows} is left out: the mesh splits rows {meshes.rows(bench.parts.mesh)} ways")
      continue
    timed = workload.decode(bench.parts.actor.decoder, decoding, bench.parts.mesh, rows, length, STEPS)
    theirs, note = None, ""
    if bench.peer:
      from sftrl_jax.programs import peer
      tokens = workload.ids_of(rows, length, bench.parts.model.config.vocab)
      theirs, note = peer.decode(bench.peer, tokens, STEPS)
    lines.append(_measure(bench, "decode", f"batch {rows}", timed, theirs, steps=STEPS, note=note))
    del timed, theirs
    gc.collect()
  return lines


DECODERS = {"prefill": _prefill, "decode": _decode}


def _sft(bench: Bench, params, frozen) -> list[dict]:
  """One step on rows without padding, and one on half as many rows packed with ragged examples."""
  parts = bench.parts
  compute, vocab = parts.settings["compute"], parts.model.config.vocab
  rows, length = shape(parts)
  loss = functools.partial(sft_loss, score=make_score(parts.model, chunk=compute.logit_chunk))
  half = rows // 2 if rows % (2 * compute.microbatches) == 0 else rows
  lines = []
  for name, count, make in (("sft", rows, workload.unpadded), ("sft ragged", half, workload.ragged)):
    batch, examples = make(count, length, vocab)
    timed = _step(bench, loss, params, frozen, batch, count, length, int(batch.weights_BT.sum()))
    theirs = None
    if bench.peer:
      from sftrl_jax.programs import peer
      theirs = peer.train(bench.peer, examples, count)
    lines.append(_measure(bench, name, f"{count}x{length}", timed, theirs))
    del timed, theirs   # the state of one is gone before the next one's is made
    gc.collect()
  return lines


def _rl(bench: Bench, params, frozen, ref) -> list[dict]:
  """Scoring a batch of episodes, and one update on a minibatch of them. Blank episodes cost what others do."""
  from sftrl_jax.models import heads
  from sftrl_jax.programs.algorithms import ALGORITHMS, closes
  from sftrl_jax.rollout.episodes import Episode
  from sftrl_jax.training.experience import take
  parts = bench.parts
  name = parts.config["algorithm"]
  algorithm, section, compute = ALGORITHMS[name], parts.settings[name], parts.settings["compute"]
  episodes, length = parts.config["batch"], row_length(parts, closing=closes(section))
  score = make_score(parts.model, parts.actor.rollout.temperature, compute.logit_chunk,
                     getattr(section, "value_gradient", False))
  if algorithm.value_head:
    params = {**params, "value": heads.init(parts.model.config.width)}
  prepare = jax.jit(algorithm.prepare(section, score, compute.microbatches * section.minibatches))
  blank = [Episode(0, (), (), False)] * episodes
  arrays = meshes.place(parts.mesh, algorithm.arrays(parts, section, blank, length))
  whole, reference = adapters.whole(parts)(params, frozen), ref if section.kl_coef else None

  def scoring():
    jax.block_until_ready(prepare(whole, reference, *arrays))

  tokens = episodes * length
  read = (parts.model.config, tokens, length)
  cost = flops.forward(*read, adapters=adapters.count(parts)) + (flops.forward(*read) if reference else 0.0)
  scored = _measure(bench, f"{name} score", f"{episodes}x{length}", Timed(scoring, tokens, cost), None)
  batch, _ = prepare(whole, reference, *arrays)
  size = episodes // section.minibatches
  loss = algorithm.loss(section, score, parts)
  timed = _step(bench, loss, params, frozen, take(batch, np.arange(size, dtype=np.int32)), size, length)
  return [scored, _measure(bench, f"{name} update", f"{size}x{length}", timed, None)]


def _step(bench: Bench, loss, params, frozen, batch, rows: int, length: int, labels: int = 0) -> Timed:
  """A train step of the config's optimizer on this batch."""
  parts = bench.parts
  optimizer, compute = parts.settings["optimizer"], parts.settings["compute"]
  schedule = make_schedule(parts.settings["schedule"], optimizer.learning_rate, max(1, parts.config["steps"]))
  optax = make_optimizer(optimizer, schedule)
  train_step = make_train_step(loss, optax, schedule, compute.microbatches, adapters.whole(parts))
  cost = flops.train(parts.model.config, rows * length, length, adapters.count(parts))
  return workload.train(parts, train_step, params, frozen, optax, batch, rows * length, cost, labels)


def shape(parts: Parts) -> tuple[int, int]:
  """(rows, tokens) of a batch of this run."""
  data = parts.settings.get("data")
  return parts.config["batch"], data.length if data else row_length(parts)


def _measure(bench: Bench, work: str, shape: str, timed: Timed, theirs, steps: int = 1, note: str = "") -> dict:
  measured = alternate(timed.run, theirs, bench.pairs)
  line = measurements.line_of(work, shape, timed, measured, bench.peak, bench.parts.model.config.dtype, steps)
  if note:
    line["note"] = note
  bench.say(measurements.said(line))
  return line
