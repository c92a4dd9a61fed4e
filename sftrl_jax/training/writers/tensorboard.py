"""Scalars for TensorBoard. Event files grow; in a bucket every part of a run is one whole event file instead."""

import tempfile
import time
from pathlib import Path

from sftrl_jax import paths
from sftrl_jax.training.writers.event_file import PREFIX, EventFile

FLUSH_SECONDS = 30.0       # between two looks at a file on this machine that may show more

Point = tuple[float, int, dict[str, float]]   # wall clock, step, {name: value}


class TensorBoardWriter:
  """WORKDIR/tensorboard; no file exists before the first scalar.

  A run that begins removes the event files of an earlier one. A resumed run writes a session start that makes
  TensorBoard drop what earlier files show past the resumed step.
  """

  package = ""

  def __init__(self, workdir: Path, step: int):
    self._home, self._purge_step = workdir / "tensorboard", step + 1 if step else None
    self._file, self._flushed_at, self._held = None, 0.0, []
    if not step and self._home.is_dir():
      for path in self._home.iterdir():
        if path.name.startswith(PREFIX):
          path.unlink()

  def scalars(self, step: int, values: dict[str, float]) -> None:
    point = (time.time(), step, values)
    if not paths.is_here(self._home):
      self._held.append(point)
      return
    if self._file is None:
      self._file = self._open(self._home)
    with paths.named_errors(self._home):
      _write(self._file, point)
    if time.time() > self._flushed_at + FLUSH_SECONDS:
      self._flush()

  def close_part(self) -> None:
    """Flushes the event file; in a bucket the held scalars become one more file."""
    if self._file is not None:
      self._flush()
    if self._held:
      with tempfile.TemporaryDirectory() as folder:
        file = self._open(Path(folder))
        for point in self._held:
          _write(file, point)
        file.close()
        paths.upload(Path(folder), self._home)
      self._held.clear()

  def close(self) -> None:
    if self._file is not None:
      self._file.close()

  def _open(self, folder: Path) -> EventFile:
    """A new event file, the first of which drops what earlier ones show past the resumed step."""
    paths.make(folder)
    file = EventFile(folder)
    if self._purge_step is not None:
      file.session_start(self._purge_step)
      self._purge_step = None
    return file

  def _flush(self) -> None:
    with paths.named_errors(self._home):
      self._file.flush()
    self._flushed_at = time.time()


def _write(file: EventFile, point: Point) -> None:
  wall_time, step, values = point
  for name, value in values.items():
    file.scalar(wall_time, step, name, value)
