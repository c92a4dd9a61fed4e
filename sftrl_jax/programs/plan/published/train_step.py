"""A train step of a decoder on one chip from its shapes: FLOPs, memory traffic, and what it sends. No compiler.

`sftrl plan` asks the compiler for these; a model of 64 billion parameters takes it too long for a table of thirty.
Everything here is the least that an implementation with a flash attention kernel, sharded parameters (FSDP) and tensor
parallelism has to do, so that a roofline of it is a lower bound as in compilation.py.
"""

import dataclasses
import math

from sftrl_jax.models import flops
from sftrl_jax.models.config import DecoderConfig
from sftrl_jax.programs.plan.hlo_traffic import Traffic
from sftrl_jax.programs.plan.published.runs import ATTENTION, COUNTS, MODELS, PublishedRun
from sftrl_jax.projections import PROJECTIONS

BF16, F32 = 2, 4   # bytes
LAST = "mlp/down"   # nothing of the backward pass of a block reads its result


@dataclasses.dataclass(frozen=True)
class TrainStep:
  """A train step on one chip.

  config: the model; tokens: that the chip computes; length: of a row
  chips: that share parameters and optimizer state; tensor: that share each matrix; saved: as in PublishedRun
  """

  config: DecoderConfig
  tokens: float
  length: int
  chips: int
  tensor: int = 1
  saved: tuple[str, ...] = ()

  @property
  def computed_flops(self) -> float:
    """FLOPs with what the backward pass computes again.

    Projections: 2 tokens x parameters forward, twice that backward, and once more where the result is not saved.
    Attention: keys up to a query's own, (length + 1) / 2 on average; 2 products forward, 5 backward, since the kernel
    computes scores again (Dao et al. 2022), and 2 where its result is not saved.
    """
    c = self.config
    again = c.layers * sum(math.prod(PROJECTIONS[path].shape(c)) for path in self._recomputed)
    products = 7 + 2 * (ATTENTION not in self.saved)
    scores = c.layers * c.heads * c.head_dim * (self.length + 1) / 2
    return 2.0 * self.tokens * (3 * flops.matmul_parameters(c) + again + products * scores)

  @property
  def traffic(self) -> Traffic:
    """The least bytes to and from memory, and the bytes sent.

    Memory: matrices in bf16, as gathered, are written and read for each pass, gradients in bf16 are written and read;
    parameters and both moments in f32 are read and written by the optimizer; projections read and write activations.
    Network: of matrices, all-gathers for forward and backward and a reduce-scatter of gradients, in bf16; of
    activations, two all-reduces of a block in either direction (Shoeybi et al. 2019).
    """
    c, total = self.config, parameters(self.config)
    part, owned = total / self.tensor, total / self.chips
    present = [projection for projection in PROJECTIONS.values() if projection.present(c)]
    read_and_written = lambda projection: sum(
        math.prod(_sizes(axes, projection, c)) for axes in (projection.reads, projection.writes))
    passes = lambda projection: 3 + (projection.path in self._recomputed)
    activations = sum(passes(projection) * read_and_written(projection) for projection in present) * c.layers
    again = bool(self._recomputed)
    moved = part * BF16 * (2 + 2 + again + 2) + owned * F32 * 6 + self.tokens * activations * BF16 / self.tensor
    shards, apart = self.chips // self.tensor, lambda count: (count - 1) / count
    group = self.tokens * self.tensor * c.width * BF16   # activations of the chips that share matrices
    collectives = (("all-gather", 2.0, 2 * part * BF16 * apart(shards)),
                   ("reduce-scatter", 1.0, part * BF16 * apart(shards)),
                   ("all-reduce", 4.0 * c.layers, 4 * c.layers * 2 * group * apart(self.tensor)))
    return Traffic(moved, collectives)

  @property
  def _recomputed(self) -> tuple[str, ...]:
    return tuple(path for path, projection in PROJECTIONS.items()
                 if projection.present(self.config) and path not in (*self.saved, LAST))


def of(run: PublishedRun) -> TrainStep:
  """The train step of a published run."""
  return TrainStep(MODELS[run.model], run.rows * run.length, run.length, run.chips, run.tensor, run.saved)


def counted_flops(run: PublishedRun, count: str) -> float:
  """FLOPs of a step on one chip by one of COUNTS, as a publisher counts them; recomputation is not counted."""
  c, tokens = MODELS[run.model], run.rows * run.length
  scores = 2 * c.layers * c.heads * c.head_dim * run.length
  in_products = parameters(c) if count == COUNTS[0] else flops.matmul_parameters(c)
  return 6.0 * tokens * (in_products + scores * (1 if count == COUNTS[1] else 0.5))


def parameters(config: DecoderConfig) -> float:
  """All parameters: matrices, an embedding that is not tied, and the scales of norms."""
  embedding = 0 if config.tie_embeddings else config.vocab * config.width
  return flops.matmul_parameters(config) + embedding + config.width * (2 * config.layers + 1)


def _sizes(axes: tuple[str, ...], projection, config: DecoderConfig) -> tuple[int, ...]:
  """Sizes of some axes of a projection's kernel."""
  return tuple(size for axis, size in zip((*projection.reads, *projection.writes), projection.shape(config),
                                          strict=True) if axis in axes)
