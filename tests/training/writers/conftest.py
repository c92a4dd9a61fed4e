"""What the files of TensorBoard, W&B and trackio hold, read back without their servers."""

import json
import struct

import pytest

BLOCK = 32768   # of a .wandb file, which is a log of LevelDB behind a header of 7 bytes


def framed(content):
  """The records of an event file."""
  while content:
    (size,) = struct.unpack_from("<Q", content)
    yield content[12 : 12 + size]
    content = content[16 + size :]


def logged(content):
  """The records of a .wandb file."""
  place, parts = 7, []
  while place + 7 <= len(content):
    left = BLOCK - place % BLOCK
    if left < 7:
      place += left
      continue
    size, kind = struct.unpack_from("<HB", content, place + 4)
    parts.append(content[place + 7 : place + 7 + size])
    place += 7 + size
    if kind in (1, 4):   # a whole record, or the last part of one
      yield b"".join(parts)
      parts = []


@pytest.fixture(scope="session")
def board_points():
  """board_points(folder) -> [(tag, step, value)] that TensorBoard shows, which drops what is past a session start."""
  from tensorboardX.proto.event_pb2 import Event, SessionLog

  def read(folder):
    points = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
      for record in framed(path.read_bytes()):
        event = Event.FromString(record)
        if event.session_log.status == SessionLog.START:
          points = [point for point in points if point[1] < event.step]
        points += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return points

  return read


@pytest.fixture(scope="session")
def wandb_points():
  """wandb_points(workdir) -> [(run id, {name: value} of one call)] of all offline runs below the workdir, in order."""
  wandb = pytest.importorskip("wandb")
  from wandb.proto.wandb_internal_pb2 import Record

  def read(workdir):
    wandb.teardown()   # W&B's own process may still be writing when a run is finished
    calls = []
    for path in sorted(workdir.glob("wandb/offline-run-*/*.wandb")):
      for record in map(Record.FromString, logged(path.read_bytes())):
        values = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        if values:
          calls.append((path.stem, {name: value for name, value in values.items() if not name.startswith("_")}))
    return calls

  return read


@pytest.fixture
def offline(monkeypatch, tmp_path):
  """W&B and trackio that write to this test's folder and reach no network."""
  monkeypatch.chdir(tmp_path)
  for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false",
                      "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}.items():
    monkeypatch.setenv(name, value)
  for name in ("WANDB_DIR", "WANDB_PROJECT", "TRACKIO_PROJECT", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
    monkeypatch.delenv(name, raising=False)
