"""The work that is timed, as training and rollouts do it: a train step, the reading of prompts, decoding."""

import dataclasses
import math
import random
import types
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sftrl_jax.data.batches import lay
from sftrl_jax.inputs import Inputs, first_fit
from sftrl_jax.models import Model, cache as caches, flops
from sftrl_jax.objectives.batches import TokenBatch
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.learner import Learner
from sftrl_jax.programs.loop.jitted import jit_functions
from sftrl_jax.programs.sample.generate import Generator
from sftrl_jax.rollout.sample import Sampling

SHORTEST = 16   # ids of the shortest ragged example
Examples = Sequence[tuple[Sequence[int], Sequence[float]]]   # (ids, weights)


@dataclasses.dataclass(frozen=True)
class Timed:
  """One piece of work. flops: of the model, padding included; bytes: that one decoding step has to read."""

  run: Callable[[], None]
  tokens: int
  flops: float
  labels: int = 0
  bytes: float = 0.0
  temporaries: int = 0


def ids_of(rows: int, length: int, vocab: int, seed: int = 0) -> np.ndarray:
  """Random ids [rows, length]; 0 to 3, which are often special, are left out where there are others."""
  source = np.random.default_rng(seed)
  return source.integers(min(4, vocab - 1), vocab, (rows, length)).astype(np.int32)


def unpadded(rows: int, length: int, vocab: int) -> tuple[TokenBatch, Examples]:
  """(a batch without padding whose every token is a label, the same for the peer, which reads its targets itself)."""
  ids = ids_of(rows, length + 1, vocab)
  positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length)).copy()
  inputs = Inputs(ids[:, :-1].copy(), positions, np.ones((rows, length), np.int32))
  batch = TokenBatch(inputs, ids[:, 1:].copy(), np.ones((rows, length), np.float32))
  return batch, [(row[:-1].tolist(), [1.0] * length) for row in ids]


def ragged(rows: int, length: int, vocab: int) -> tuple[TokenBatch, Examples]:
  """(a packed batch of examples between SHORTEST and `length` tokens, evenly spread on a log scale, the second half of
  each a label; the same examples)."""
  source, used, segments = random.Random(0), [0] * rows, [0] * rows
  examples, slots = [], []
  while True:
    size = round(math.exp(source.uniform(math.log(min(SHORTEST, length)), math.log(length))))
    slot = first_fit(size, used, segments, length)
    if slot is None:
      break
    ids = ids_of(1, size + 1, vocab, len(examples))[0].tolist()
    examples.append((ids, [0.0] * (len(ids) - len(ids) // 2) + [1.0] * (len(ids) // 2)))
    slots.append(slot)
  ids, weights = zip(*examples, strict=True)
  return lay(ids, weights, slots, rows, length), examples


def train(experiment: Experiment, learner: Learner, params, frozen, batch, tokens: int, cost: float,
          labels: int = 0) -> Timed:
  """A train step that goes on from its own result, compiled as a run compiles it."""
  jitted = jit_functions(experiment, learner, params)
  placed = meshes.shard_rows(experiment.mesh, batch)
  held = [jitted.init_state(params)]
  compiled = jitted.train_step.lower(held[0], placed, frozen).compile()

  def run():
    held[0], metrics = compiled(held[0], placed, frozen)
    jax.block_until_ready((held[0], metrics))

  return Timed(run, tokens, cost, labels, temporaries=temporaries(compiled))


def temporaries(compiled) -> int:
  """Bytes that a program needs besides its arguments and results; 0 where the backend does not tell."""
  found = compiled.memory_analysis()
  return int(getattr(found, "temp_size_in_bytes", 0) or 0)


def prefill(model: Model, decoding, mesh, rows: int, length: int) -> Timed:
  """Prompts read into a fresh cache, and the likeliest first token of each response."""
  tokens = ids_of(rows, length, model.config.vocab)
  positions = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape).copy()
  inputs = meshes.shard_rows(mesh, Inputs(tokens, positions, np.ones_like(tokens)))

  @jax.jit
  def read(params, inputs):
    cache = caches.empty(model.config, rows, length)
    hidden_BTD, cache = model.extend(params, cache, inputs)
    return cache, model.unembed(params, hidden_BTD[:, -1]).argmax(-1)

  def run():
    jax.block_until_ready(read(decoding, inputs))

  return Timed(run, rows * length, flops.forward(model.config, rows * length, length, unembedded=rows))


def decode(model: Model, decoding, mesh, rows: int, length: int, steps: int) -> Timed:
  """`steps` greedy tokens a row after prompts of `length`, by the loop that rollouts sample with; no row ends."""
  endless = types.SimpleNamespace(stops=(-1,), pad=0)
  blank, read, say, _, rewind = Generator(model, endless, decoding, mesh, Sampling(steps)).compiled
  tokens = ids_of(rows, length, model.config.vocab)
  positions = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape).copy()
  place = lambda *arrays: meshes.shard_rows(mesh, Inputs(*arrays))
  cache = read(decoding, blank(rows, length + steps), place(tokens, positions, np.ones_like(tokens)))
  ones = np.ones((rows, 1), np.int32)
  leads = place(ones, ones * length, ones)
  live_B, numbers_B = meshes.shard_rows(mesh, (np.ones(rows, bool), np.arange(rows, dtype=np.uint32)))
  key, held = jax.random.key(0), [cache]
  del cache

  def run():
    cache, response = say(decoding, held[0], leads, live_B, numbers_B, key, np.int32(0), np.float32(0.0))
    jax.block_until_ready(response)
    held[0] = rewind(cache, np.int32(length))   # the prompts stay

  cost = flops.forward(model.config, rows * steps, length + steps)
  return Timed(run, rows * steps, cost, bytes=flops.decode_bytes(model.config, decoding, rows, length + steps))
