"""An event file of TensorBoard with scalars alone, written without protobuf.

tensorboardX writes such files too, but imports torch wherever it is installed: 2 s and 190 MB for every run. The format
is TFRecord around tensorflow/core/util/event.proto and framework/summary.proto, of which four fields are needed.
"""

import socket
import struct
import time
from pathlib import Path

PREFIX = "events.out.tfevents."   # TensorBoard reads files with these words in their names
VERSION = b"brain.Event:2"   # of the format; the first event of every file
START = 1                    # SessionLog.status: what earlier files hold from this step on is not shown


class EventFile:
  """PREFIX + TIME.HOST.ID in a folder that exists. Raises OSErrors of writing."""

  def __init__(self, folder: Path):
    now = time.time()
    name = f"{PREFIX}{int(now):010d}.{socket.gethostname()}.{time.time_ns()}"
    self._file = (folder / name).open("wb")
    self._write(now, 0, _field(3, VERSION))

  def session_start(self, step: int) -> None:
    """What earlier files hold of this step and later ones is not shown any more."""
    self._write(time.time(), step, _field(7, _field(1, START)))

  def scalar(self, wall_time: float, step: int, name: str, value: float) -> None:
    """One point of the curve `name`; the value is stored as float32, infinite beyond its range."""
    point = _field(1, name.encode()) + b"\x15" + _float32(value)   # Summary.Value: tag = 1, simple_value = 2
    self._write(wall_time, step, _field(5, _field(1, point)))

  def flush(self) -> None:
    """Hands everything to the operating system."""
    self._file.flush()

  def close(self) -> None:
    self._file.close()

  def _write(self, wall_time: float, step: int, what: bytes) -> None:
    """An Event: wall_time = 1, step = 2, and `what`, in the frame of a TFRecord."""
    event = b"\x09" + struct.pack("<d", wall_time) + _field(2, step) + what
    length = struct.pack("<Q", len(event))
    self._file.write(length + _checksum(length) + event + _checksum(event))


def _field(number: int, value: int | bytes) -> bytes:
  """A field of a protocol buffer: a whole number that is not negative, or bytes after their length."""
  if isinstance(value, int):
    return bytes([number << 3]) + _varint(value)
  return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
  """Seven bits a byte, the lowest first; all bytes but the last have the eighth."""
  digits = []
  while value > 127:
    digits.append(value & 127 | 128)
    value >>= 7
  return bytes([*digits, value])


def _float32(value: float) -> bytes:
  try:
    return struct.pack("<f", float(value))
  except OverflowError:
    return struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def _crc32c_table() -> tuple[int, ...]:
  """The remainders of all bytes for Castagnoli's polynomial, bits reversed."""
  table = []
  for byte in range(256):
    for _ in range(8):
      byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    table.append(byte)
  return tuple(table)


_TABLE = _crc32c_table()


def _checksum(content: bytes) -> bytes:
  """CRC-32C, masked as in TFRecord: rotated right by 15 bits, plus a constant."""
  crc = 0xFFFFFFFF
  for byte in content:
    crc = _TABLE[(crc ^ byte) & 255] ^ crc >> 8
  crc ^= 0xFFFFFFFF
  return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
