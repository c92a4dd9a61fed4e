"""The learning rate over a run."""

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args

import jax.numpy as jnp

Name = Literal["constant", "linear", "cosine", "wsd", "inverse_sqrt"]
WITH_LENGTH = ("linear", "cosine", "wsd")   # schedules that come to an end


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
  """The learning rate over optimizer updates.

  name: "constant", "linear" (to `end`), "cosine" (to `end`), "wsd" (stable, then down to `end`) or "inverse_sqrt"
  warmup: updates from 0 to the peak, linear
  updates: length of the whole schedule, for linear, cosine and wsd (0: the run's, by its steps or its FLOPs, whichever
    end it first)
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
    if self.has_length and 0 < self.updates <= self.warmup:
      raise ValueError(f"warmup is {self.warmup}; it must be below schedule.updates = {self.updates}, the length of "
                       "the whole schedule.")

  @property
  def has_length(self) -> bool:
    """Whether the rate depends on how long the run is."""
    return self.name in WITH_LENGTH


def make_schedule(schedule: ScheduleConfig, peak: float, updates: int) -> Callable:
  """(update number, spent) -> learning rate, f32. peak: the highest rate; updates: of the whole run.

  spent: of a run that ends by FLOPs, the share of them that is spent, in [0, 1]. The rate is then that of the end that
  is nearer. Left out, updates alone count.
  """
  warmup, total = schedule.warmup, schedule.updates or updates
  length = max(1, total - warmup)
  # Updates in which wsd goes down, after the warm-up; 1 - sqrt over a fifth of the run is that of Hägele et al. 2024.
  falling = min(length, max(1, round(schedule.decay * total)))
  shape = {
      "constant": lambda n, _: jnp.ones(()),
      "linear": lambda _, done: _down(1.0 - done, schedule.end),
      "cosine": lambda _, done: _down(0.5 * (1.0 + jnp.cos(jnp.pi * done)), schedule.end),
      "wsd": lambda _, done: _down(1.0 - jnp.sqrt(done), schedule.end),
      "inverse_sqrt": lambda n, _: jnp.sqrt(max(1, warmup) / (jnp.maximum(n, 0) + max(1, warmup)))}[schedule.name]
  first, over = (length - falling, falling) if schedule.name == "wsd" else (0, length)

  stable = 1.0 - schedule.decay if schedule.name == "wsd" else 0.0   # the share of the whole before it goes down

  def rate(n, spent=None):
    done = _share(n - warmup - first, over)
    if spent is not None:
      done = jnp.maximum(done, _share(spent - stable, 1.0 - stable))
    # The first update already learns: warm-up runs from 1/warmup to 1.
    return peak * jnp.where(n < warmup, (n + 1) / max(1, warmup), shape(n - warmup, done))

  return rate


def _share(n, length):
  return jnp.clip(n / float(length), 0.0, 1.0)   # as an integer it may be beyond 32 bits


def _down(share, end):
  """From 1 to `end` as the share goes from 1 to 0."""
  return end + (1.0 - end) * share
