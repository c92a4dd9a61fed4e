"""The scores that a reward model gives responses of RL, in rows as they were sampled."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sftrl_jax.inputs import Inputs
from sftrl_jax.models import Model, heads
from sftrl_jax.objectives.batches import Scores
from sftrl_jax.rollout.collect import ResponseRows
from sftrl_jax.training.advantages import score_pieces
from sftrl_jax.training.score import Score


def make_response_score(model: Model) -> Score:
  """score(params, inputs, None) -> Scores with values alone: those of a score head, for every token.

  params: {"model": ..., "value": ...} of a reward model
  """

  def score(params: dict, inputs: Inputs, targets_BT: None) -> Scores:
    del targets_BT
    return Scores(None, None, heads.scalar(params["value"], model.hidden(params["model"], inputs)), None)

  return score


def make_score_responses(score: Score, pieces: int, sizes: tuple[int, ...] = ()) -> Callable:
  """score_responses(params, rows, order_B) -> (scores_BU in f32, counts or None), to be jitted.

  The score of a response is read at its last token, the right-most one that the policy wrote: what follows it in the
  row, or fills it, is not read. score: gives values alone; pieces, sizes, order_B, counts: as of `make_score_rows`
  """

  def score_responses(params: dict, rows: ResponseRows, order_B: jax.Array | None = None) -> tuple:
    _, values_BT, *counts = score_pieces(score, params, (rows.inputs, None), pieces, order_B, sizes)
    return jnp.take_along_axis(values_BT, rows.ends_BU, axis=1), *(counts or [None])

  return score_responses
