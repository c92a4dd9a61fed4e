"""The work that `sftrl bench` times, as training and rollouts do it: a train step, reading prompts, decoding."""

import dataclasses
import math
import random
import types
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from sftrl_jax.data.batches import lay
from sftrl_jax.inputs import Inputs, first_fit
from sftrl_jax.models import Model, flops
from sftrl_jax.models.cache import Cache, empty
from sftrl_jax.objectives.batches import GroupBatch, PolicyBatch, TokenBatch
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.learner import Learner
from sftrl_jax.programs.loop.jitted import JittedFunctions
from sftrl_jax.programs.sample.generate import Generator
from sftrl_jax.programs.start import trainable
from sftrl_jax.rollout.sample import Sampling
from sftrl_jax.text.images import ImageReader

SHORTEST = 16   # tokens of the shortest ragged example
Examples = Sequence[tuple[Sequence[int], Sequence[float]]]   # (ids, weights)


@dataclasses.dataclass(frozen=True)
class Timed:
  """One piece of work: its function, and what a call of it computes.

  flops: of the model, padding included; labels: tokens with a loss; bytes: that one step of decoding has to read
  temporaries: bytes that the program needs besides arguments and results
  """

  run: Callable[[], None]
  tokens: int
  flops: float
  labels: int = 0
  bytes: float = 0.0
  temporaries: int = 0


@dataclasses.dataclass(frozen=True)
class Training:
  """What the train step of a run is made of. params: those that are trained; frozen: {"model": ...} beside adapters."""

  experiment: Experiment
  learner: Learner
  jitted: JittedFunctions
  params: dict
  frozen: dict


def ids_of(rows: int, length: int, vocab: int, seed: int = 0) -> np.ndarray:
  """Random ids [rows, length], without 0 to 3, which are often special, if the vocabulary has more ids."""
  generator = np.random.default_rng(seed)
  return generator.integers(min(4, vocab - 1), vocab, (rows, length)).astype(np.int32)


def unpadded_inputs(tokens_BT: np.ndarray) -> Inputs:
  """One text a row, without padding."""
  positions_BT = np.broadcast_to(np.arange(tokens_BT.shape[1], dtype=np.int32), tokens_BT.shape).copy()
  return Inputs(tokens_BT, positions_BT, np.ones_like(tokens_BT))


def without_padding(inputs: Inputs) -> Inputs:
  """The inputs with every place taken by a token, and their pictures."""
  return unpadded_inputs(inputs.tokens_BT).replace(images_BIYXC=inputs.images_BIYXC)


def unpadded(rows: int, length: int, vocab: int, reader: ImageReader | None = None) -> tuple[TokenBatch, Examples]:
  """(a batch without padding, in which every token is a label; the same as examples, for the peer).

  reader: of a model that reads pictures, which are then blank
  """
  ids = ids_of(rows, length + 1, vocab)
  inputs = unpadded_inputs(ids[:, :-1].copy()).replace(images_BIYXC=reader.blank(rows) if reader else None)
  batch = TokenBatch(inputs, ids[:, 1:].copy(), np.ones((rows, length), np.float32))
  return batch, [(row[:-1].tolist(), [1.0] * length) for row in ids]


def ragged(rows: int, length: int, vocab: int) -> tuple[TokenBatch, Examples]:
  """(a packed batch of examples; the same examples, for the peer).

  Lengths are log-uniform between SHORTEST and `length` tokens; the second half of an example are labels.
  """
  generator, used, segments = random.Random(0), [0] * rows, [0] * rows
  examples, slots = [], []
  while True:
    size = round(math.exp(generator.uniform(math.log(min(SHORTEST, length)), math.log(length))))
    slot = first_fit(size, used, segments, length)
    if slot is None:
      break
    ids = ids_of(1, size + 1, vocab, len(examples))[0].tolist()
    examples.append((ids, [0.0] * (len(ids) - len(ids) // 2) + [1.0] * (len(ids) // 2)))
    slots.append(slot)
  ids, weights = zip(*examples, strict=True)
  return lay(ids, weights, slots, rows, length), examples


def train(training: Training, batch: TokenBatch | PolicyBatch | GroupBatch, labels: int = 0) -> Timed:
  """A train step of the config's optimizer, compiled as a run compiles it; each call starts from the last one's result.

  batch: on the host or on the devices; its rows have as many tokens as those of the learner
  """
  experiment, jitted, frozen, length = training.experiment, training.jitted, training.frozen, training.learner.length
  batch = shard_rows(experiment.mesh, batch)
  held = [jitted.init_state(training.params)]   # the state, which the train step donates
  compiled = jitted.train_step.lower(held[0], batch, frozen).compile()

  def run() -> None:
    held[0], metrics = compiled(held[0], batch, frozen)
    jax.block_until_ready((held[0], metrics))

  tokens = len(batch.inputs.tokens_BT) * length
  adapters = trainable.adapter_count(experiment)
  cost = (flops.train(experiment.model.config, tokens, length, adapters)
          + flops.pictures(experiment.model.config, tokens / length, training=True, adapters=adapters))
  memory = compiled.memory_analysis()   # None where the backend does not report it
  return Timed(run, tokens, cost, labels, temporaries=int(getattr(memory, "temp_size_in_bytes", 0) or 0))


def prefill(model: Model, decoding: dict, mesh: Mesh, rows: int, length: int) -> Timed:
  """Reads prompts into a new cache, and picks the likeliest first token of each response."""
  inputs = shard_rows(mesh, unpadded_inputs(ids_of(rows, length, model.config.vocab)))

  @jax.jit
  def read(params: dict, inputs: Inputs) -> tuple[Cache, jax.Array]:
    cache = empty(model.config, rows, length)
    hidden_BTD, cache = model.extend(params, cache, inputs)
    return cache, model.unembed(params, hidden_BTD[:, -1]).argmax(-1)

  def run() -> None:
    jax.block_until_ready(read(decoding, inputs))

  return Timed(run, rows * length, flops.forward(model.config, rows * length, length, unembedded=rows))


def decode(model: Model, decoding: dict, mesh: Mesh, rows: int, length: int, steps: int) -> Timed:
  """Decodes `steps` greedy tokens a row after prompts of `length`, by the loop of rollouts; no row stops early."""
  endless = types.SimpleNamespace(stops=(-1,), pad=0)
  compiled = Generator(model, endless, decoding, mesh, Sampling(steps)).compiled
  prompts = shard_rows(mesh, unpadded_inputs(ids_of(rows, length, model.config.vocab)))
  cache = compiled.read(decoding, compiled.empty(rows, length + steps), prompts)
  ones = np.ones((rows, 1), np.int32)
  last_tokens = shard_rows(mesh, Inputs(ones, ones * length, ones))
  live_B, numbers_B = shard_rows(mesh, (np.ones(rows, bool), np.arange(rows, dtype=np.uint32)))
  key, held = jax.random.key(0), [cache]
  del cache

  def run() -> None:
    cache, response = compiled.sample(decoding, held[0], last_tokens, live_B, numbers_B, key, np.int32(0),
                                      np.float32(0.0))
    jax.block_until_ready(response)
    held[0] = compiled.rewind(cache, np.int32(length))   # to the end of the prompts

  cost = flops.forward(model.config, rows * steps, length + steps)
  return Timed(run, rows * steps, cost, bytes=flops.decode_bytes(model.config, decoding, rows, length + steps))
