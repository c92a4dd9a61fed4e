"""The learning rate over a run."""

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args

import jax.numpy as jnp

Name = Literal["constant", "linear", "cosine", "wsd", "inverse_sqrt"]


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
  """The learning rate over optimizer updates.

  name: "constant", "linear" (to `end`), "cosine" (to `end`), "wsd" (stable, then down to `end`) or "inverse_sqrt"
  warmup: updates from 0 to the peak, linear
  updates: length of the whole schedule, for linear, cosine and wsd (0: all updates of the run)
  end: last learning rate as a share of the peak
  decay: share of the whole schedule in which wsd goes down, by 1 - sqrt
  """

  name: Name = "constant"
  warmup: int = 0
  updates: int = 0
  end: float = 0.0
  decay: float = 0.2

  def __post_init__(self):
    if self.name not in get_args(Name):
      raise ValueError(f"name is {self.name!r}; it must be one of {', '.join(get_args(Name))}.")
    for field in ("warmup", "updates"):
      if getattr(self, field) < 0:
        raise ValueError(f"{field} is {getattr(self, field)}; it must not be negative.")
    if not 0 <= self.end <= 1:
      raise ValueError(f"end is {self.end}; it must lie in [0, 1].")
    if not 0 < self.decay <= 1:
      raise ValueError(f"decay is {self.decay}; it must lie in (0, 1].")


def make_schedule(schedule: ScheduleConfig, peak: float, updates: int) -> Callable:
  """update number -> learning rate, f32. peak: the highest rate; updates: of the whole run."""
  warmup, total = schedule.warmup, schedule.updates or updates
  length = max(1, total - warmup)
  # Updates in which wsd goes down, after the warm-up; 1 - sqrt over a fifth of the run is that of Hägele et al. 2024.
  falling = min(length, max(1, round(schedule.decay * total)))
  after = {
      "constant": lambda n: jnp.ones(()),
      "linear": lambda n: _down(1.0 - _share(n, length), schedule.end),
      "cosine": lambda n: _down(0.5 * (1.0 + jnp.cos(jnp.pi * _share(n, length))), schedule.end),
      "wsd": lambda n: _down(1.0 - jnp.sqrt(_share(n - (length - falling), falling)), schedule.end),
      "inverse_sqrt": lambda n: jnp.sqrt(max(1, warmup) / (jnp.maximum(n, 0) + max(1, warmup)))}[schedule.name]
  # The first update already learns: warm-up runs from 1/warmup to 1.
  return lambda n: peak * jnp.where(n < warmup, (n + 1) / max(1, warmup), after(n - warmup))


def _share(n, length):
  return jnp.clip(n / length, 0.0, 1.0)


def _down(share, end):
  """From 1 to `end` as the share goes from 1 to 0."""
  return end + (1.0 - end) * share
