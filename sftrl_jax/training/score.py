"""The function between a model and an objective: parameters and rows in, log-probabilities, entropy and values out."""

from collections.abc import Callable

import jax

from sftrl_jax.inputs import Inputs, Prefix, with_prefix
from sftrl_jax.models import Model, heads
from sftrl_jax.objectives.batches import Scores
from sftrl_jax.objectives.logprobs import Kl, logprobs, reverse_kl, with_teacher

CRITIC = "critic"   # the root of a critic's own trunk, beside "model" and "value"
Score = Callable[[dict, Inputs, jax.Array], Scores]


def make_score(model: Model, temperature: float = 1.0, chunk: int = 0, value_gradient: bool = False) -> Score:
  """score(params, inputs, targets_BT) -> Scores. params: {"model": ..., "value": ... or absent}; with {"critic":
  {"model": ...}} values are read from that trunk, which their loss trains, and else from the policy's.

  One graph gives old log-probabilities, reference log-probabilities and the differentiated ones.
  temperature: divides the logits; chunk: tokens of a row whose logits exist at once (0: all)
  value_gradient: whether the loss of the value head trains the trunk too
  """

  def score(params: dict, inputs: Inputs, targets_BT: jax.Array) -> Scores:
    trunk = params["model"]
    hidden_BTD = model.hidden(trunk, inputs)
    logprobs_BT, entropy_BT, correct_BT = logprobs(
        hidden_BTD, model.unembedding(trunk), targets_BT, temperature=temperature, chunk=chunk, readout=model.readout)
    values_BT = None
    if CRITIC in params:
      values_BT = heads.scalar(params["value"], model.hidden(params[CRITIC]["model"], inputs), stop_gradient=False)
    elif "value" in params:
      values_BT = heads.scalar(params["value"], hidden_BTD, not value_gradient)
    return Scores(logprobs_BT, entropy_BT, values_BT, correct_BT)

  return score


def make_teacher_score(model: Model, teacher: Model, temperature: float = 1.0, chunk: int = 0,
                       kl: Kl = reverse_kl) -> Score:
  """`make_score` with the KL to a teacher, for params {"model": ..., "teacher": ...}. The KL alone has a gradient.

  temperature: divides the logits of both; kl: `reverse_kl` or `forward_kl`
  With a prefix, the teacher reads it before each row; the policy does not.
  """

  def teacher_hidden(params: dict, inputs: Inputs, prefix: Prefix | None) -> jax.Array:
    if prefix is None:
      return teacher.hidden(params, inputs)
    return teacher.hidden(params, with_prefix(prefix, inputs))[:, prefix.tokens_BP.shape[1]:]

  def score(params: dict, inputs: Inputs, targets_BT: jax.Array, prefix: Prefix | None = None) -> Scores:
    kl_BT, logprobs_BT, entropy_BT, correct_BT = with_teacher(
        model.hidden(params["model"], inputs), model.unembedding(params["model"]),
        (teacher_hidden(params["teacher"], inputs, prefix), teacher.unembedding(params["teacher"])), targets_BT,
        temperature=temperature, chunk=chunk, readouts=(model.readout, teacher.readout), kl=kl)
    return Scores(logprobs_BT, entropy_BT, None, correct_BT, kl_BT)

  return score
