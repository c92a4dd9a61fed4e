"""What a run has sent to a tracking service that can neither overwrite nor drop a point."""

import json
import uuid
from pathlib import Path

from sftrl_jax import paths


class SentScalars:
  """The id of a service's run and the last step sent to it, in WORKDIR/NAME.json.

  A resumed run computes the steps after its checkpoint again, with the same bits. Those that the killed process sent
  are not sent again, so a service has each step once; after a kill -9 it may lack the last second. A run that begins
  gets a new id, because nothing of an earlier run in this workdir counts.
  The file is written with every step on this machine; in a bucket, where each write is a request, by `save` alone.
  """

  def __init__(self, path: Path, step: int):
    self._path = path
    record = json.loads(path.read_text()) if step and path.is_file() else {}
    self.run_id: str = record.get("id") or uuid.uuid4().hex[:12]
    self._step, self._names = record.get("step", -1), set(record.get("names", ()))
    self.save()

  def unsent(self, step: int, values: dict[str, float]) -> dict[str, float]:
    """The values of this step that have not been sent."""
    if step < self._step:
      return {}
    return {name: value for name, value in values.items() if step > self._step or name not in self._names}

  def add(self, step: int, values: dict[str, float]) -> None:
    """Records values as sent."""
    self._names = (self._names if step == self._step else set()) | set(values)
    self._step = step
    if paths.is_here(self._path):
      self.save()

  def save(self) -> None:
    record = {"id": self.run_id, "step": self._step, "names": sorted(self._names)}
    paths.write_whole(self._path, json.dumps(record) + "\n")


def recorded_config(workdir: Path) -> dict:
  """WORKDIR/config.json, to be shown beside the run; {} where there is none."""
  path = workdir / "config.json"
  return json.loads(path.read_text()) if path.is_file() else {}
