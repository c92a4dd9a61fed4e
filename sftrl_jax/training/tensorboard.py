"""Curves for TensorBoard. Event files grow; in a bucket every part of a run's logs is one whole event file instead."""

import tempfile
import threading
import time
from pathlib import Path

from sftrl_jax import paths


class Scalars:
  """WORKDIR/tensorboard. Nothing is made before the first number."""

  def __init__(self, home):
    self.home, self.purge, self._board, self._held, self._lock = home, None, None, [], threading.Lock()

  def resumed(self, step: int) -> None:
    """What is shown past this step is written again."""
    self.purge = step + 1

  def add(self, step: int, values: dict, prefix: str) -> None:
    numbers = [(prefix + name, value, step, time.time()) for name, value in values.items()
               if isinstance(value, int | float)]
    if not paths.is_here(self.home):
      with self._lock:
        self._held += numbers
      return
    if self._board is None:
      self._board = self._begin(self.home)
    for number in numbers:
      self._board.add_scalar(*number)

  def close_part(self) -> None:
    """What is held becomes an event file in the bucket."""
    with self._lock:
      if not self._held:
        return
      with tempfile.TemporaryDirectory() as folder:
        board = self._begin(folder, f".{time.time_ns()}")
        for number in self._held:
          board.add_scalar(*number)
        board.close()
        paths.upload(Path(folder), self.home)
      self._held.clear()
      self.purge = None

  def close(self) -> None:
    if self._board is not None:
      self._board.close()

  def _begin(self, folder, suffix: str = ""):
    from tensorboardX import SummaryWriter
    return SummaryWriter(str(folder), purge_step=self.purge, filename_suffix=suffix)
