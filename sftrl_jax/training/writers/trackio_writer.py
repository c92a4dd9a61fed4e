"""Scalars for trackio (extra `trackio`)."""

import contextlib
import os
import sys
from pathlib import Path

from sftrl_jax.training.writers.sent_scalars import SentScalars, recorded_config


class TrackioWriter:
  """One trackio run a workdir, by the id in WORKDIR/trackio.json; a resumed run continues it.

  trackio's own environment variables choose where: TRACKIO_DIR on this machine, TRACKIO_SPACE_ID or TRACKIO_SERVER_URL
  elsewhere; TRACKIO_PROJECT names the project (else sftrl-jax).
  """

  package = "trackio"

  def __init__(self, workdir: Path, step: int):
    import trackio
    self._sent = SentScalars(workdir / "trackio.json", step)
    with contextlib.redirect_stdout(sys.stderr):
      # trackio finds a run again by its name, which therefore has the id: workdirs may share theirs.
      self._run = trackio.init(
          project=os.environ.get("TRACKIO_PROJECT", "sftrl-jax"), name=f"{workdir.name}-{self._sent.run_id}",
          config=recorded_config(workdir), resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False)

  def scalars(self, step: int, values: dict[str, float]) -> None:
    if unsent := self._sent.unsent(step, values):
      self._run.log(unsent, step=step)
      self._sent.add(step, unsent)

  def close_part(self) -> None:
    self._sent.save()

  def close(self) -> None:
    import trackio
    with contextlib.redirect_stdout(sys.stderr):
      trackio.finish()   # not `self._run.finish()`, which would be repeated, and speak, when the process ends
