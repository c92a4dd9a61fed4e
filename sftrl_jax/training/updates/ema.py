"""An exponential moving average of the parameters, evaluated beside them: SFT's cheapest average of checkpoints."""

import dataclasses
from typing import NamedTuple

import jax
import optax

from sftrl_jax.training.state import TrainState

EMA = "ema"   # of names: the root of its arrays in an optimizer's state, WORKDIR:ema, and the variants ema:VARIANT


@dataclasses.dataclass(frozen=True)
class EmaConfig:
  """An average of the parameters that training does not read.

  decay: of the average in an update, ema' = decay ema + (1 - decay) params', from the start's parameters on (0: none)
  """

  decay: float = 0.0

  def __post_init__(self):
    if not 0 <= self.decay < 1:
      raise ValueError(f"decay is {self.decay}; it must be from 0 (no average) to below 1, for example 0.998.")


class EmaState(NamedTuple):
  """Of an optimizer with an average beside it."""

  ema: dict   # like the parameters that are trained
  inner: optax.OptState


def with_ema(optimizer: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
  """The optimizer, whose state holds the average of the parameters that its updates give.

  In the state of the optimizer it is sharded like the parameters, counted with their memory, saved with every
  checkpoint, and left as it is by an update that is not applied.
  decay: 0 gives the optimizer as it is
  """
  if not decay:
    return optimizer

  def update(updates: optax.Updates, state: EmaState, params: optax.Params) -> tuple[optax.Updates, EmaState]:
    updates, inner = optimizer.update(updates, state.inner, params)
    toward = lambda ema, new: ema + ((1 - decay) * (new - ema)).astype(ema.dtype)   # constant parameters stay its bits
    return updates, EmaState(jax.tree.map(toward, state.ema, optax.apply_updates(params, updates)), inner)

  return optax.GradientTransformation(lambda params: EmaState(params, optimizer.init(params)), update)


def ema_params(state: TrainState) -> dict | None:
  """The average of the parameters that a state holds, None without one; reads no array."""
  return state.opt_state.ema if isinstance(state.opt_state, EmaState) else None


def of_weights(name: str, kind: str) -> str:
  """What an evaluation calls a variant: NAME, or ema:NAME. kind: "" or EMA"""
  return f"{kind}:{name}" if kind else name
