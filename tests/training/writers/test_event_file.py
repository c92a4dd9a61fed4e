"""Event files, read by protobuf and checksums that others wrote; no run imports torch for them."""

import math
import os
import struct
import subprocess
import sys

import google_crc32c
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from sftrl_jax.training.writers.event_file import PREFIX, EventFile

LARGEST = 3.4028234663852886e38


def records(content):
  """The records of a file of TFRecords; every checksum is right."""
  def crc(part):
    value = google_crc32c.value(part)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)
  while content:
    (size,) = struct.unpack_from("<Q", content)
    assert content[8:12] == crc(content[:8]) and content[12 + size : 16 + size] == crc(content[12 : 12 + size])
    yield content[12 : 12 + size]
    content = content[16 + size :]


@pytest.mark.parametrize("step", [0, 1, 127, 128, 16_384, 2**31, 2**62])
@pytest.mark.parametrize("value", [0.0, -1.5, 3, LARGEST, 1e-45, math.inf, -math.inf, 1e300, -1e300,
                                   pytest.param(10**400, id="a number of 401 digits")])
def test_a_point_is_read_as_it_was_written(tmp_path, step, value):
  file = EventFile(tmp_path)
  name = "loss/ü" + "x" * 300   # longer than a length of one byte
  file.scalar(1234.5, step, name, value)
  file.close()
  (path,) = tmp_path.iterdir()
  assert path.name.startswith(PREFIX)
  head, event = map(Event.FromString, records(path.read_bytes()))
  assert head.file_version == "brain.Event:2" and head.wall_time > 1e9
  (point,) = event.summary.value
  nearest = value if abs(value) <= LARGEST else math.inf if value > 0 else -math.inf
  assert (event.wall_time, event.step, point.tag) == (1234.5, step, name)
  assert point.simple_value == struct.unpack("<f", struct.pack("<f", nearest))[0]


def test_nan_is_a_point_and_a_session_start_is_none(tmp_path):
  file = EventFile(tmp_path)
  file.session_start(7)
  file.scalar(1.0, 7, "loss", math.nan)
  file.flush()
  (path,) = tmp_path.iterdir()
  _, start, point = map(Event.FromString, records(path.read_bytes()))   # a flush is enough
  assert (start.session_log.status, start.step, len(start.summary.value)) == (SessionLog.START, 7, 0)
  assert math.isnan(point.summary.value[0].simple_value) and not point.HasField("session_log")
  file.close()


def test_two_files_of_one_second_have_two_names(tmp_path):
  for _ in range(5):
    EventFile(tmp_path).close()
  assert len(list(tmp_path.iterdir())) == 5


TRAINED = """
import sys
from sftrl_jax.main import main
code = main(sys.argv[1:])
from sftrl_jax.programs import preference, rl
assert "torch" not in sys.modules, "imported"
import torch
sys.exit(code or not torch.is_usable)
"""


def test_a_run_that_writes_scalars_imports_no_torch(tmp_path):
  """A torch that is installed is left alone, and whoever imports it afterwards gets it."""
  package = tmp_path / "path" / "torch"
  package.mkdir(parents=True)
  (package / "__init__.py").write_text("is_usable = True\n")
  flags = " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)
  environment = {**os.environ, "XLA_FLAGS": flags,
                 "PYTHONPATH": os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])}
  words = ("sft", "--config=configs/general_points/sft.py:smoke", f"--workdir={tmp_path / 'run'}", "--config.steps=1",
           "--config.evals.variants=()", "--config.log.report=False", "--config.log.writers=('tensorboard',)")
  child = subprocess.run([sys.executable, "-c", TRAINED, *words], env=environment, capture_output=True, text=True,
                         check=False)
  assert child.returncode == 0, child.stderr
  assert list((tmp_path / "run" / "tensorboard").iterdir())
