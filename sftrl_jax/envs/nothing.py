"""No environment: what a run has that only reads rows of its own. There is nothing to play and nothing to evaluate."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

NAME = "none"
WAY_OUT = (f"config.env.name is {NAME!r}, so there is nothing to play: choose an environment with "
           "--config.env.name=... and say what is evaluated with --config.evals.variants=...")


@dataclasses.dataclass(frozen=True)
class Nothing:
  """It has no variants; whoever plays it gets a ValueError that says so."""

  variants: ClassVar[tuple[str, ...]] = ()
  codes: ClassVar[tuple[str, ...]] = ()
  attempts: ClassVar[int] = 1
  words: ClassVar[tuple[str, ...]] = ()

  def reset(self, seed):
    raise ValueError(WAY_OUT)

  def step(self, state, response):
    raise ValueError(WAY_OUT)

  def expert(self, state, choice=0):
    raise ValueError(WAY_OUT)
