"""The interface of a scalar writer, and the writers that `config.log.writers` names."""

import importlib.util
from pathlib import Path
from typing import Protocol

from sftrl_jax.training.writers.tensorboard import TensorBoardWriter
from sftrl_jax.training.writers.trackio_writer import TrackioWriter
from sftrl_jax.training.writers.wandb_writer import WandbWriter


class ScalarWriter(Protocol):
  """Receives every scalar of a run, on the first process only.

  `Writer(workdir, step)` opens it for a run that continues after `step`; step 0 is a run that begins, perhaps in a
  workdir where an earlier run wrote scalars and no checkpoint. Steps past `step` are computed again: a writer shows
  each of them once. `Writer.package` is the package that it needs, imported when it is opened; "" for none.
  """

  package: str

  def scalars(self, step: int, values: dict[str, float]) -> None:
    """Writes scalars of one step; steps never decrease, and several calls may add names to the same step."""

  def close_part(self) -> None:
    """Makes safe what was written; called before each checkpoint is saved, because a resume starts after it."""

  def close(self) -> None:
    """Ends the writer after a last `close_part`."""


WRITERS: dict[str, type[ScalarWriter]] = {
    "tensorboard": TensorBoardWriter, "wandb": WandbWriter, "trackio": TrackioWriter}


def check_writers(names: tuple[str, ...]) -> None:
  """ValueError for an unknown or repeated name, and for a writer whose package is not installed; imports none."""
  for name in names:
    if name not in WRITERS:
      raise ValueError(f"writers is {names}, but {name!r} is no writer; known: {', '.join(WRITERS)}. Use "
                       "--config.log.writers='()' for none.")
    if names.count(name) > 1:
      raise ValueError(f"writers is {names}, which names {name!r} twice; name it once.")
    package = WRITERS[name].package
    spec = importlib.util.find_spec(package) if package else None
    # W&B leaves directories called `wandb`, which look like empty packages.
    if package and (spec is None or spec.origin is None):
      raise ValueError(f"writers is {names}, but {name} needs the package {package}, which is not installed: "
                       f'pip install "sftrl-jax[{name}]", or leave {name} out.')


def open_writers(names: tuple[str, ...], workdir: Path, step: int) -> tuple[ScalarWriter, ...]:
  """The writers of a run that continues after this step (0: it begins)."""
  return tuple(WRITERS[name](workdir, step) for name in names)
