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
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.learner import Learner
from sftrl_jax.programs.loop.jitted import JittedFunctions
from sftrl_jax.programs.sample.generate import Generator
from sftrl_jax.programs.start import trainable
from sftrl_jax.rollout.sample import Sampling
from sftrl_jax.text.images import ImageReader, Pictures, TiledReader
from sftrl_jax.training.updates.pass_flops import PassFlops

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
  whole, prompts = unpadded_inputs(inputs.tokens_BT), inputs.prompts
  if prompts is not None:
    lengths_B = np.full_like(prompts.lengths_B, prompts.columns)
    whole = whole.replace(positions_BT=whole.positions_BT + lengths_B[:, None],
                          prompts=prompts.replace(lengths_B=lengths_B))
  return whole.replace(images_BIYXC=inputs.images_BIYXC)


def unpadded(rows: int, length: int, vocab: int, reader: ImageReader | None = None) -> tuple[TokenBatch, Examples]:
  """(a batch without padding, in which every token is a label; the same as examples, for the peer).

  reader: of a model that reads pictures, which are then blank
  """
  ids = ids_of(rows, length + 1, vocab)
  inputs = unpadded_inputs(ids[:, :-1].copy()).replace(images_BIYXC=reader.blank(rows) if reader else None)
  batch = TokenBatch(inputs, ids[:, 1:].copy(), np.ones((rows, length), np.float32))
  return batch, [(row[:-1].tolist(), [1.0] * length) for row in ids]


def picture_of(reader: ImageReader) -> tuple[list[int], Pictures]:
  """(ids, pixels) of a picture of noise, which has as many tiles as a square one may have."""
  size = (2 * reader.width,) * 2 if isinstance(reader, TiledReader) else (reader.height, reader.width)
  generator = np.random.default_rng(0)
  picture = generator.integers(0, 256, (*size, 3), np.uint8)
  return reader.ids(picture), reader.pixels(picture)


def prompts(rows: int, text: int, vocab: int, reader: ImageReader | None = None) -> Inputs:
  """Rows of `text` random ids, without padding. Before them stand pictures, where the model reads them, as many as a
  row may have."""
  tokens_BT = ids_of(rows, text, vocab)
  if reader is None:
    return unpadded_inputs(tokens_BT)
  ids, pixels = picture_of(reader)
  count = reader.images // len(pixels)
  tokens_BT[tokens_BT == reader.image_id] = 1
  before_BT = np.broadcast_to(np.asarray(ids * count, np.int32), (rows, count * len(ids)))
  inputs = unpadded_inputs(np.concatenate([before_BT, tokens_BT], axis=1))
  return reader.add(inputs, [pixels * count] * rows)


def with_pictures(rows: int, length: int, vocab: int, reader: ImageReader) -> tuple[TokenBatch, Examples]:
  """As `unpadded`, with pictures at the beginning of each row, whose ids are no labels. ConfigError where a row has no
  room for text behind them."""
  before = prompts(1, 0, vocab, reader).tokens_BT.shape[1]
  if length < before + 2:
    raise ConfigError(f"config.data.length is {length}, but the pictures of a row take {before} tokens: use "
                      f"--config.data.length={before + 2} or more.")
  inputs = prompts(rows, length + 1 - before, vocab, reader)
  ids_BT, weights_BT = inputs.tokens_BT, np.ones((rows, length), np.float32)
  weights_BT[:, : before - 1] = 0.0
  inputs = unpadded_inputs(ids_BT[:, :-1].copy()).replace(images_BIYXC=inputs.images_BIYXC)
  examples = [(row.tolist(), [0.0, *weights.tolist()]) for row, weights in zip(ids_BT, weights_BT, strict=True)]
  return TokenBatch(inputs, ids_BT[:, 1:].copy(), weights_BT), examples


def ragged(rows: int, length: int, vocab: int, longest: int = 0) -> tuple[TokenBatch, Examples]:
  """(a packed batch of examples; the same examples, for the peer).

  Lengths are log-uniform between SHORTEST and `longest` tokens (0: `length`); the second half of an example are labels.
  """
  longest = longest or length
  generator, used, segments = random.Random(0), [0] * rows, [0] * rows
  examples, slots = [], []
  while True:
    size = round(math.exp(generator.uniform(math.log(min(SHORTEST, longest)), math.log(longest))))
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
  cost = (training.learner.pass_flops or PassFlops(
      experiment.model.config, trainable.adapter_count(experiment), trainable.adapts_pictures(experiment)))
  memory = compiled.memory_analysis()   # None where the backend does not report it
  return Timed(run, tokens, cost(tokens, length).train, labels,
               temporaries=int(getattr(memory, "temp_size_in_bytes", 0) or 0))


def prefill(model: Model, decoding: dict, mesh: Mesh, inputs: Inputs) -> Timed:
  """Reads prompts, which have no padding, into a new cache, and picks the likeliest first token of each response."""
  (rows, length), inputs = inputs.tokens_BT.shape, shard_rows(mesh, inputs)

  @jax.jit
  def read(params: dict, inputs: Inputs) -> tuple[Cache, jax.Array]:
    cache = empty(model.config, rows, length)
    hidden_BTD, cache = model.extend(params, cache, inputs)
    return cache, model.unembed(params, hidden_BTD[:, -1]).argmax(-1)

  def run() -> None:
    jax.block_until_ready(read(decoding, inputs))

  cost = flops.forward(model.config, rows * length, length, unembedded=rows) + flops.pictures(model.config, rows)
  return Timed(run, rows * length, cost)


def decode(model: Model, decoding: dict, mesh: Mesh, inputs: Inputs, steps: int) -> Timed:
  """Decodes `steps` greedy tokens a row after these prompts, by the loop of rollouts; no row stops early."""
  rows, length = inputs.tokens_BT.shape
  endless = types.SimpleNamespace(stops=(-1,), pad=0)
  compiled = Generator(model, endless, decoding, mesh, Sampling(steps)).compiled
  cache = compiled.read(decoding, compiled.empty(rows, length + steps), shard_rows(mesh, inputs))
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
