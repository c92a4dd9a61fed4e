"""Rows by their real length: a microbatch is computed at the smallest of a few compiled lengths that holds its rows.

A batch of RL has room for the longest possible chat, of which most chats need a part. Rows are right-padded, so what is
left out are columns of padding, and gradients and scores differ by rounding alone. Which length a microbatch needs is
read from the whole microbatch on the devices, so that all of them agree. One without a token costs nothing. A prompt
that rows share is cut by the same share as the rows.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sftrl_jax.inputs import Inputs, Prefix
from sftrl_jax.objectives.batches import LOGPROBS, Scores

ROUND = 8   # compiled lengths are multiples of it
COUNTS = "microbatches_by_length"   # metric of a train step, int32: how many were blank, how many had each length


@dataclasses.dataclass(frozen=True)
class RowLengths:
  """The compiled lengths of a run.

  sizes: ascending; the last one holds any row
  blank: the loss made with `blank_score`: (params, batch) -> (Mean, metrics) of rows without a token. It reads no model
  """

  sizes: tuple[int, ...]
  blank: Callable[[dict, Any], tuple]


def compiled_lengths(longest: int, count: int) -> tuple[int, ...]:
  """At most `count` lengths, ascending: the k-th is k / count of the longest, rounded up to a multiple of ROUND."""
  shares = (-(-longest * k // count) for k in range(1, count + 1))
  return tuple(sorted({min(longest, -(-share // ROUND) * ROUND) for share in shares}))


def lengths_of(inputs: Inputs) -> np.ndarray:
  """lengths_B, on the host: the tokens of right-padded rows."""
  return np.count_nonzero(inputs.segments_BT, axis=1)


def tokens_of(inputs: Inputs, rows_B: np.ndarray) -> float:
  """Tokens of these rows of right-padded ones, on the host; a prompt that rows share counts once a group."""
  prompts = inputs.prompts
  before = 0.0 if prompts is None else float(np.sum(prompts.lengths_B[rows_B])) / prompts.group
  return float(np.sum(lengths_of(inputs)[rows_B])) + before


def by_length(rows_B: np.ndarray, lengths_B: np.ndarray, microbatches: int, group: int = 1) -> np.ndarray:
  """The rows of a batch in an order in which each of its microbatches has rows of like length.

  Row i goes to microbatch i mod n (`step.deal`), so that the rows of a microbatch are spread over all devices.
  rows_B: numbers of rows; lengths_B: the length of each
  group: neighbours that stay together, as neighbours in one microbatch, by the longest of them
  """
  ascending = np.argsort(lengths_B.reshape(-1, group).max(axis=1), kind="stable")
  return rows_B.reshape(-1, group)[ascending].reshape(microbatches, -1).T.reshape(-1)


def blank_score(_: dict, inputs: Inputs, targets_BT: jax.Array, prefix: Prefix | None = None) -> Scores:
  """A `Score` of rows without a token, none of which is read."""
  zeros_BT = jnp.zeros(targets_BT.shape, jnp.float32)
  return Scores(zeros_BT, zeros_BT, zeros_BT, zeros_BT > 0, zeros_BT)


def case_of(sizes: tuple[int, ...], inputs: Inputs) -> jax.Array:
  """int32: 0 where no row has a token, else k of the k-th length, the smallest that holds every row and its prompt."""
  number = lambda longest, others: jnp.sum(longest > jnp.asarray(others, jnp.int32), dtype=jnp.int32)
  columns_T = jnp.arange(1, inputs.segments_BT.shape[1] + 1, dtype=jnp.int32)
  longest = jnp.max(jnp.where(jnp.any(inputs.segments_BT != 0, axis=0), columns_T, 0))
  case, prompts = number(longest, (0, *sizes[:-1])), inputs.prompts
  if prompts is None:
    return case
  before = [prompt_columns(prompts.columns, size, sizes[-1]) for size in sizes[:-1]]
  return jnp.where(case > 0, jnp.maximum(case, 1 + number(jnp.max(prompts.lengths_B), before)), 0)


def prompt_columns(columns: int, length: int, longest: int) -> int:
  """Columns of prompts that rows share, of `columns` in all, where rows are computed at one of the compiled lengths up
  to `longest`: the same share of them, rounded up to a multiple of ROUND."""
  return min(columns, -(-columns * length // longest // ROUND) * ROUND)


def cut(tree: Any, length: int) -> Any:
  """The first columns of every array [B, T], and the last ones of prompts; others stay, and so does a prefix."""
  leaf = lambda x: isinstance(x, Prefix) or (isinstance(x, Inputs) and x.prompts is not None)

  def columns(x: Any) -> Any:
    if isinstance(x, Prefix):
      return x
    if isinstance(x, Inputs):
      prompts, longest = x.prompts, x.tokens_BT.shape[1]
      kept = prompts.columns - prompt_columns(prompts.columns, length, longest)
      return cut(x.replace(prompts=None), length).replace(
          prompts=prompts.replace(tokens_BP=prompts.tokens_BP[:, kept:]))
    return x[:, :length] if x.ndim == 2 else x

  return jax.tree.map(columns, tree, is_leaf=leaf)


def widen(x_BL: jax.Array, length: int) -> jax.Array:
  """x_BT of `length` columns, 0 in the new ones."""
  return jnp.pad(x_BL, ((0, 0), (0, length - x_BL.shape[1])))


def gradient_by_length(gradient: Callable, lengths: RowLengths) -> Callable:
  """(params, batch) -> (gradients, (Mean, metrics)), computed at the length that the batch needs.

  Gradients are taken within each branch: nothing is differentiated through the switch.
  gradient: (params, batch) -> (gradients, (Mean, metrics)); its metrics get COUNTS
  """
  sizes = lengths.sizes

  def at(case: int) -> Callable:
    counts = np.zeros(len(sizes) + 1, np.int32)
    counts[case] = 1

    def branch(params: dict, batch: Any) -> tuple:
      if case:
        grads, (value, metrics) = gradient(params, cut(batch, sizes[case - 1]))
      else:
        grads, (value, metrics) = jax.tree.map(jnp.zeros_like, params), lengths.blank(params, cut(batch, 1))
      by_row = {LOGPROBS: widen(metrics[LOGPROBS], sizes[-1])} if LOGPROBS in metrics else {}
      return grads, (value, {**metrics, **by_row, COUNTS: jnp.asarray(counts)})

    return branch

  branches = [at(case) for case in range(len(sizes) + 1)]
  return lambda params, batch: jax.lax.switch(case_of(sizes, batch.inputs), branches, params, batch)
