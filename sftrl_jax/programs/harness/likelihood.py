"""Log-likelihoods of token sequences behind contexts, in batches of few shapes.

Rows are aligned at their ends, so that the last columns hold what is scored: only these become logits. Answers of one
token behind one context share a row.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sftrl_jax.inputs import Inputs, left_pad
from sftrl_jax.models import Model
from sftrl_jax.objectives.logprobs import logprobs
from sftrl_jax.parallel import hosts, mesh as meshes
from sftrl_jax.parallel.mesh import shard_rows

SHORTEST = 32   # tokens of the shortest row
MOST_ROWS, MOST_TOKENS = 64, 8192   # of a batch; one row of a part of the mesh may be longer
MOST_LOGITS = 512   # tokens of a batch whose logits exist at once
NARROWEST = 8   # columns that are scored at least, and most answers that share a row


class Pair(NamedTuple):
  """The ids of a context, at least one, and those that are scored behind it, at least one."""

  context: Sequence[int]
  scored: Sequence[int]


class Likelihood(NamedTuple):
  """logprob: the sum over the scored ids, in nats. greedy: whether each of them is the likeliest."""

  logprob: float
  greedy: bool


class Row(NamedTuple):
  """What one row reads and scores.

  read: ids
  targets: ids that are scored: behind the last ones of `read` each, or all of them behind the last one
  numbers: of the pairs, one; or one for each target
  """

  read: tuple[int, ...]
  targets: tuple[int, ...]
  numbers: tuple[int, ...]


class Batch(NamedTuple):
  """Rows that one program computes.

  size: rows of the shape, at least as many as there are
  tokens, columns: of a row; the last `columns` of its tokens are scored, or the last token alone
  alternatives: whether all targets of a row stand behind its last token
  """

  rows: tuple[Row, ...]
  size: int
  tokens: int
  columns: int
  alternatives: bool


@functools.cache
def score_rows(model: Model) -> Callable[[dict, Inputs, jax.Array, bool], tuple[jax.Array, jax.Array]]:
  """jit of (params, inputs, targets_BT of the last columns, alternatives) -> (logprobs_BT, whether each is the
  likeliest), one for all parameters of a model."""

  @functools.partial(jax.jit, static_argnums=3)
  def score(params: dict, inputs: Inputs, targets_BT: jax.Array, alternatives: bool) -> tuple[jax.Array, jax.Array]:
    rows, columns = targets_BT.shape
    hidden_BTD = model.hidden(params, inputs)
    hidden_BTD = jnp.repeat(hidden_BTD[:, -1:], columns, axis=1) if alternatives else hidden_BTD[:, -columns:]
    logprobs_BT, _, greedy_BT = logprobs(hidden_BTD, model.unembedding(params), targets_BT,
                                         chunk=max(1, MOST_LOGITS // rows), readout=model.readout)
    return logprobs_BT, greedy_BT

  return score


@dataclasses.dataclass(frozen=True, eq=False)
class LikelihoodScorer:
  """A model with training parameters over a mesh that may split rows. Of several processes, all score the same."""

  model: Model
  params: dict
  mesh: Mesh

  def score(self, pairs: Sequence[Pair], after_each: Callable[[int], None] = lambda count: None) -> list[Likelihood]:
    """The likelihood of each pair, in their order.

    after_each: called after every batch with the number of its pairs
    """
    likelihoods: dict[int, Likelihood] = {}
    for batch in batches(pairs, meshes.rows(self.mesh)):
      inputs = left_pad([row.read for row in batch.rows], batch.tokens, batch.size)
      targets_BT = np.zeros((batch.size, batch.columns), np.int32)
      for number, row in enumerate(batch.rows):
        targets_BT[number, batch.columns - len(row.targets):] = row.targets
      placed = shard_rows(self.mesh, (inputs, targets_BT))
      logprobs_BT, greedy_BT = hosts.whole_arrays(score_rows(self.model)(self.params, *placed, batch.alternatives))
      before = len(likelihoods)
      for row, logs_T, greedy_T in zip(batch.rows, logprobs_BT, greedy_BT, strict=False):
        own = slice(batch.columns - len(row.targets), None)
        logs, greedy = logs_T[own].astype(np.float64), greedy_T[own]
        if not batch.alternatives:
          logs, greedy = [logs.sum()], [greedy.all()]
        likelihoods |= {pair: Likelihood(float(log), bool(is_greedy))
                        for pair, log, is_greedy in zip(row.numbers, logs, greedy, strict=True)}
      after_each(len(likelihoods) - before)
    return [likelihoods[number] for number in range(len(pairs))]


def batches(pairs: Sequence[Pair], parts: int = 1) -> Iterator[Batch]:
  """Batches of rows of about one length, the longest first: those that may not fit the memory come at once.

  parts: that the mesh splits rows into; the rows of a batch are a multiple of it
  """
  groups: dict[tuple[int, int, bool], list[Row]] = {}
  for row, alternatives in _rows(pairs):
    tokens = length_of(len(row.read))
    groups.setdefault((tokens, min(tokens, columns_of(len(row.targets))), alternatives), []).append(row)
  for (tokens, columns, alternatives), rows in sorted(groups.items(), key=lambda group: group[0], reverse=True):
    most = max(1, min(MOST_ROWS, MOST_TOKENS // tokens, _power(len(rows))))
    size = -(-most // parts) * parts
    for first in range(0, len(rows), size):
      yield Batch(tuple(rows[first:first + size]), size, tokens, columns, alternatives)


def _rows(pairs: Sequence[Pair]) -> Iterator[tuple[Row, bool]]:
  """(row, whether its targets are alternatives) of all pairs."""
  alternatives: dict[tuple[int, ...], list[tuple[int, int]]] = {}
  for number, (context, scored) in enumerate(pairs):
    if len(scored) == 1:
      alternatives.setdefault(tuple(context), []).append((scored[0], number))
    else:
      yield Row((*context, *scored)[:-1], tuple(scored), (number,)), False
  for context, answers in alternatives.items():
    for first in range(0, len(answers), NARROWEST):
      yield Row(context, *zip(*answers[first:first + NARROWEST], strict=True)), True


def length_of(tokens: int) -> int:
  """The columns in which so many tokens are read: four lengths an octave."""
  grain = max(SHORTEST, _power(tokens)) // 8
  return max(SHORTEST, -(-tokens // grain) * grain)


def columns_of(tokens: int) -> int:
  """The columns in which so many tokens are scored: 8, 32, 128 and so on."""
  columns = NARROWEST
  while columns < tokens:
    columns *= 4
  return columns


def _power(number: int) -> int:
  """The smallest power of two that is at least `number`."""
  return 1 << max(0, number - 1).bit_length()
