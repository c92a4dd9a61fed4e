"""No environment, for runs on rows of a file: there is nothing to play and nothing to evaluate."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NoReturn

NAME = "none"
WAY_OUT = (f"config.env.name is {NAME!r}, so there is nothing to play: choose an environment with "
           "--config.env.name=... and say what is evaluated with --config.evals.variants=...")


@dataclasses.dataclass(frozen=True)
class Nothing:
  """It has no variants; every method raises a ValueError with the way out."""

  variants: ClassVar[tuple[str, ...]] = ()
  codes: ClassVar[tuple[str, ...]] = ()
  attempts: ClassVar[int] = 1
  words: ClassVar[tuple[str, ...]] = ()

  def reset(self, seed: int | str) -> NoReturn:
    raise ValueError(WAY_OUT)

  def step(self, state: Any, response: str) -> NoReturn:
    raise ValueError(WAY_OUT)

  def expert(self, state: Any, choice: int = 0) -> NoReturn:
    raise ValueError(WAY_OUT)
