"""`sftrl bench`: how fast this machine trains and decodes, against what it could, and against transformers and torch.

One run measures peaks, our work and the peer's, ours and theirs in turns. On a shared machine the ratio of measurements
close in time can be trusted, and a comparison of two runs cannot.
"""

import contextlib
import dataclasses
import functools
import gc
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from sftrl_jax.inputs import Inputs
from sftrl_jax.parallel import mesh, rules
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.programs.bench import hf_peer, machine_peak, rl_iteration, scripted_rollout, table, workloads
from sftrl_jax.programs.bench.hf_peer import Peer
from sftrl_jax.programs.bench.measurement import (
  RECOMPUTED,
  SCRIPTED,
  Bench,
  Measurement,
  ScriptedLengths,
  measure,
)
from sftrl_jax.programs.bench.trl import grpo as trl_grpo, sft as trl_sft, stepping
from sftrl_jax.programs.bench.workloads import Timed, Training
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.experiment.learner import make_rl_learner, make_sft_learner
from sftrl_jax.programs.loop.jitted import blank_rollout, jit_functions, reference_params
from sftrl_jax.programs.start import initial_params, trainable
from sftrl_jax.training.advantages import NOT_SCORED
from sftrl_jax.training.log import write_json

PREFILL = (1, 256)   # rows, tokens
DECODE = ((1, 128), (16, 128), (64, 32))   # rows, tokens of their prompts
STEPS = 24   # tokens decoded a row
PAIRS = 5
AGAINST = ("hf", "trl")


def run(config: ConfigDict, verb: str, against: str = "", out: str = "", pairs: int = PAIRS,
        only: tuple[str, ...] = (), scripted: ScriptedLengths = SCRIPTED) -> dict:
  """Measures the training of a config, prints a table, and returns the content of bench.json.

  against: the peer, of AGAINST, or ""; out: a directory for bench.json, or ""; only: of MEASUREMENTS, () for all, or
  for what "trl" does of this training; scripted: lengths of the responses of "rollout"
  """
  refuse(against, pairs, only)
  of_trl = ("iteration",) if KINDS[verb].plays_episodes else ("sft",)
  names = [name for name in only or (of_trl if against == "trl" else MEASUREMENTS)
           if KINDS[verb].plays_episodes or not MEASUREMENTS[name].needs_episodes]
  if not names:
    raise ConfigError(f"--against={against} --only={','.join(only)} measures training that plays episodes, but this "
                      f"config is one of {verb}: use one of rl.")
  versions = stepping.versions(machine_peak.threads()) if against == "trl" else ""
  experiment = build_experiment(config, verb)
  initial_params.check_start(experiment.start, experiment.model, experiment.lora)
  if against:
    _refuse_devices(experiment, against)
  if against == "trl":
    for name, refuse_unlike in (("iteration", trl_grpo.refuse), ("sft", trl_sft.refuse)):
      if name in names:
        refuse_unlike(experiment)
  with jax.set_mesh(experiment.mesh), rules.applied(), tempfile.TemporaryDirectory() as folder:
    peak = machine_peak.measure()
    print(table.describe_machine(peak), flush=True)
    start, params, frozen = trainable.init_trainable(experiment, Path(folder))
    peer = _peer(experiment, start, peak.threads) if against == "hf" else None
    bench = Bench(experiment, start, params, frozen, peak, against, peer, pairs, scripted,
                  lambda text: print(f"  {text}", flush=True))
    lines = []
    for name in names:
      lines += MEASUREMENTS[name].measure(bench)
      gc.collect()   # what one measurement held is gone before the next one begins
  result = {"config": experiment.config, "verb": verb, "device": dataclasses.asdict(peak), "jax": jax.__version__,
            "peer": peer.versions if peer else versions, "lines": lines}
  print(table.table(lines, peak, experiment.model.config.dtype))
  if result["peer"]:
    print(f"peer: {result['peer']}")
  if out:
    Path(out).mkdir(parents=True, exist_ok=True)
    write_json(Path(out) / "bench.json", result)
    print(f"Written: {Path(out) / 'bench.json'}")
  return result


def refuse(against: str, pairs: int, only: Sequence[str]) -> None:
  """ConfigError for words of the command line that mean nothing."""
  if against and against not in AGAINST:
    raise ConfigError(f"--against is {against!r}; known: {', '.join(AGAINST)}.")
  if pairs < 1:
    raise ConfigError(f"--pairs is {pairs}; it must be at least 1.")
  for name in only:
    if name not in MEASUREMENTS:
      raise ConfigError(f"--only names {name!r}; known: {', '.join(MEASUREMENTS)}.")
    if against and against not in MEASUREMENTS[name].peers:
      known = [name for name in MEASUREMENTS if against in MEASUREMENTS[name].peers]
      raise ConfigError(f"--only names {name!r}, which --against={against} does not do: it does {', '.join(known)}.")


def _refuse_devices(experiment: Experiment, against: str) -> None:
  devices = experiment.mesh.size
  if devices > 1:
    raise ConfigError(f"--against={against} compares one device, but there are {devices}: hide the others.")


def _peer(experiment: Experiment, start: dict, threads: int) -> Peer:
  optimizer = experiment.optimizer
  return hf_peer.load_peer(experiment.model.config, start, threads, optimizer.learning_rate, optimizer.clip)


def _decoding_params(bench: Bench) -> dict:
  full_params = trainable.full_params_fn(bench.experiment)(bench.params, bench.frozen)
  return bench.experiment.actor.compiled.to_decoding(full_params["model"])


def _prompts(bench: Bench, rows: int, text: int) -> Inputs:
  return workloads.prompts(rows, text, bench.experiment.model.config.vocab, bench.experiment.tokenizer.reader)


def _prefill(bench: Bench) -> list[dict]:
  experiment, inputs = bench.experiment, _prompts(bench, *PREFILL)
  timed = workloads.prefill(experiment.actor.decoder, _decoding_params(bench), experiment.mesh, inputs)
  theirs = hf_peer.prefill(bench.peer, inputs) if bench.peer else None
  return [measure(bench, "prefill", "x".join(map(str, inputs.tokens_BT.shape)), timed, theirs)]


def _decode(bench: Bench) -> list[dict]:
  lines, decoding = [], _decoding_params(bench)
  for rows, length in DECODE:
    if rows % mesh.rows(bench.experiment.mesh):
      bench.say(f"decode batch {rows} is left out: the mesh splits rows {mesh.rows(bench.experiment.mesh)} ways")
      continue
    inputs, theirs, note = _prompts(bench, rows, length), None, ""
    timed = workloads.decode(bench.experiment.actor.decoder, decoding, bench.experiment.mesh, inputs, STEPS)
    if bench.peer:
      theirs, note = hf_peer.decode(bench.peer, inputs, STEPS)
    lines.append(measure(bench, "decode", f"batch {rows}", timed, theirs, steps=STEPS, note=note))
    del timed, theirs
    gc.collect()
  return lines


def _sft(bench: Bench) -> list[dict]:
  """One step on rows without padding, and one on half as many rows packed with ragged examples; of a model that reads
  pictures, one on rows that begin with pictures."""
  experiment, vocab = bench.experiment, bench.experiment.model.config.vocab
  rows, length = experiment.batch, experiment.data.length if experiment.data else experiment.actor.row_len()
  learner = make_sft_learner(experiment, length)
  jitted = jit_functions(experiment, learner, bench.params)
  training = Training(experiment, learner, jitted, bench.params, bench.frozen)
  remat = experiment.model.config.remat
  theirs_too = remat if hf_peer.recomputes(experiment.model.config) else "none"
  sides = f"ours recomputes {RECOMPUTED[remat]} (model.remat={remat}), the peer {RECOMPUTED[theirs_too]}"
  half = rows // 2 if rows % (2 * experiment.compute.microbatches) == 0 else rows
  lines, reader = [], experiment.tokenizer.reader
  longest = int(bench.scripted.longest)
  if longest > length:
    raise ConfigError(f"--longest is {longest}, but a row has {length} tokens: use --config.data.length={longest}.")
  ragged = functools.partial(workloads.ragged, longest=longest)
  kinds = (("sft", rows, workloads.unpadded), ("sft ragged", half, ragged))
  kinds = (("sft", rows, functools.partial(workloads.with_pictures, reader=reader)),) if reader else kinds
  for name, count, make_batch in kinds:
    batch, examples = make_batch(count, length, vocab)
    if learner.minibatches > 1:   # of what the train step reads, its numbers do not change how long it takes
      batch = batch.replace(old_logprobs_BT=np.zeros_like(batch.weights_BT))
    timed = workloads.train(training, batch, int(batch.weights_BT.sum()))
    with contextlib.ExitStack() as stack:
      theirs = hf_peer.train(bench.peer, examples, count, batch.inputs.images_BIYXC) if bench.peer else None
      if bench.against == "trl":
        theirs = stack.enter_context(trl_sft.steps(
            experiment, bench.start, bench.peak.threads, bench.pairs + 2, examples, count))
      lines.append(measure(bench, name, f"{count}x{length}", timed, theirs, sides=sides))
    del timed, theirs   # frees the state before the next one is made
    gc.collect()
  return lines


def _rl(bench: Bench) -> list[dict]:
  """Scoring a batch of episodes, where a run does, and one update on a minibatch of them; no row has padding."""
  experiment, name = bench.experiment, bench.experiment.config["algorithm"]
  learner = make_rl_learner(experiment)
  jitted = jit_functions(experiment, learner, bench.params)
  rows, outcomes = blank_rollout(experiment, learner)
  rows = rows.replace(inputs=workloads.without_padding(rows.inputs))
  order = learner.score_order(np.zeros(learner.rows))
  rows, outcomes = shard_rows(experiment.mesh, (rows, outcomes))
  full_params = trainable.full_params_fn(experiment)(bench.params, bench.frozen)
  reference = reference_params(experiment, bench.start)

  def score() -> tuple:
    scored = jitted.score_rows(full_params, reference, rows, *order) if jitted.score_rows else NOT_SCORED
    return jax.block_until_ready(jitted.advantages(scored, rows, outcomes))

  def scoring() -> None:
    score()

  tokens = learner.rows * learner.length
  timed = Timed(scoring, tokens, learner.pass_flops(tokens, learner.length).score)
  shape = f"{learner.rows}x{learner.length}"
  lines = [measure(bench, f"{name} score", shape, timed, None)] if jitted.score_rows else []
  minibatch = jitted.take(score()[0], np.arange(learner.minibatch, dtype=np.int32))
  timed = workloads.train(Training(experiment, learner, jitted, bench.params, bench.frozen), minibatch)
  return [*lines, measure(bench, f"{name} update", f"{learner.minibatch}x{learner.length}", timed, None)]


MEASUREMENTS = {
    "prefill": Measurement(_prefill, peers=("hf",)), "decode": Measurement(_decode, peers=("hf",)),
    "sft": Measurement(_sft, peers=AGAINST), "rl": Measurement(_rl, needs_episodes=True),
    "rollout": Measurement(scripted_rollout.measure, needs_episodes=True),
    "iteration": Measurement(rl_iteration.measure, needs_episodes=True, peers=("trl",))}
