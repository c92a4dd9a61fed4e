"""How an objective asks a model: parameters and rows in, log-probabilities, entropy and values out."""

from collections.abc import Callable

from sftrl_jax.inputs import Inputs
from sftrl_jax.models import Model, heads
from sftrl_jax.objectives.batches import Scores
from sftrl_jax.objectives.logprobs import logprobs

Score = Callable[[dict, Inputs, object], Scores]


def make_score(model: Model, temperature: float = 1.0, chunk: int = 0, value_gradient: bool = False) -> Score:
  """score(params, inputs, targets_BT) -> Scores. params: {"model": ..., "value": ... or absent}.

  The same graph gives old log-probabilities, reference log-probabilities and the ones that are differentiated.
  """

  def score(params: dict, inputs: Inputs, targets_BT) -> Scores:
    trunk = params["model"]
    hidden_BTD = model.hidden(trunk, inputs)
    logprobs_BT, entropy_BT, correct_BT = logprobs(
        hidden_BTD, model.unembedding(trunk), targets_BT, temperature=temperature, chunk=chunk, ids=model.ids)
    values_BT = heads.scalar(params["value"], hidden_BTD, not value_gradient) if "value" in params else None
    return Scores(logprobs_BT, entropy_BT, values_BT, correct_BT)

  return score
