"""Headers as the package gguf writes them, numbers as it multiplies them out, and files that lie."""

import struct

import numpy as np
import pytest

from sftrl_jax.checkpoints import gguf_file

gguf = pytest.importorskip("gguf")
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")


def write(path, tensors=None, **keys):
  """{name: (array, kind)} and metadata, by the package."""
  writer = gguf.GGUFWriter(str(path), "llama")
  for name, value in keys.items():
    add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool}
    add.get(type(value), writer.add_array)(name.replace("__", "."), value)
  for name, (array, kind) in (tensors or {}).items():
    wanted = gguf.GGMLQuantizationType[kind]
    data = array if kind == "F32" else gguf.quants.quantize(array, wanted)
    writer.add_tensor(name, data, raw_dtype=wanted)
  for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
    step()
  return path


def numbers(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_the_package(tmp_path, kind, monkeypatch):
  monkeypatch.setattr(gguf_file, "AT_ONCE", 150)   # some rows at a time
  file = gguf_file.read(write(tmp_path / "x.gguf", {"a": (numbers(5, 64), kind), "b": (numbers(3, 32), kind)}))
  there = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
  for name, shape in (("a", (5, 64)), ("b", (3, 32))):
    read, expected = file.read(name), gguf.quants.dequantize(there[name].data, there[name].tensor_type)
    assert read.shape == shape and read.dtype == np.float32
    np.testing.assert_array_equal(read, expected.reshape(shape))
    assert np.abs(read - numbers(*shape)).max() < (0.6 if kind.startswith(("Q4", "Q5")) else 0.02)


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_larger_blocks_are_those_of_the_package(tmp_path, kind):
  wanted = gguf.GGMLQuantizationType[kind]
  _, size = gguf.GGML_QUANT_SIZES[wanted]
  raw = np.random.default_rng(0).integers(0, 60, (5, 3 * size), np.uint8)   # which the package reads, but cannot make
  writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "llama")
  writer.add_tensor("a", raw, raw_dtype=wanted)
  for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
    step()
  read = gguf_file.read(tmp_path / "x.gguf").read("a")
  assert read.shape == (5, 768) and np.unique(read).size > 100
  np.testing.assert_array_equal(read, gguf.quants.dequantize(raw, wanted))


def test_sizes_of_blocks_are_those_of_the_package():
  for number, (name, block, size) in gguf_file.TYPES.items():
    assert gguf.GGMLQuantizationType(number).name == name
    assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(number)] == (block, size)


def test_metadata_of_every_kind_is_read(tmp_path):
  metadata = dict(a__b=3, c=0.5, d="ein Wörtchen", e=True, words=["x", "", "ü"], scores=[0.5, -1.0], kinds=[1, 3])
  file = gguf_file.read(write(tmp_path / "x.gguf", {"v": (numbers(4), "F32")}, **metadata))
  for name, value in metadata.items():
    assert file.metadata[name.replace("__", ".")] == value
  assert file.metadata["general.architecture"] == "llama" and list(file.tensors) == ["v"]


def test_a_file_cut_anywhere_is_refused(tmp_path):
  path = write(tmp_path / "x.gguf", {"a": (numbers(5, 64), "Q8_0")}, words=["some", "words"])
  whole = path.read_bytes()
  for length in range(0, len(whole) - 340, 7):
    path.write_bytes(whole[:length])
    with pytest.raises(ValueError, match="GGUF file|is cut off"):
      gguf_file.read(path)
  path.write_bytes(whole[:-1 - 340 % 32])
  with pytest.raises(ValueError, match="is cut off: its header describes"):
    gguf_file.read(path)


def test_a_header_that_lies_is_refused(tmp_path):
  path = write(tmp_path / "x.gguf", {"a": (numbers(5, 64), "Q8_0")}, words=["some", "words"])
  whole = path.read_bytes()
  places = {"no GGUF file: it begins with": (0, b"FUGG"), "of version 9": (4, struct.pack("<I", 9)),
            "cut off or damaged": (8, struct.pack("<Q", 2**60)), "header is cut off": (16, struct.pack("<Q", 2**60))}
  for message, (at, piece) in places.items():
    path.write_bytes(whole[:at] + piece + whole[at + len(piece):])
    with pytest.raises(ValueError, match=message):
      gguf_file.read(path)
  at = whole.index(b"some") - 8   # the length of a word
  path.write_bytes(whole[:at] + struct.pack("<Q", 2**40) + whole[at + 8:])
  with pytest.raises(ValueError, match="1099511627776 bytes are expected"):
    gguf_file.read(path)


def test_other_quantisations_are_told_with_those_that_are_read(tmp_path):
  writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "llama")
  writer.add_tensor("a", np.zeros((5, 36), np.uint8), raw_dtype=gguf.GGMLQuantizationType.IQ4_NL)
  for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
    step()
  with pytest.raises(ValueError, match="1 tensors have an unsupported quantisation .*known are F32, F16, Q4_0"):
    gguf_file.read(tmp_path / "x.gguf")


def first_version(tensors=1, kind=0, offset=0, nested=0):
  """A file of version 1, by hand: its counts, lengths and axes are 32 bits wide. The package refuses such files."""
  text = lambda value: struct.pack("<I", len(value)) + value
  words = struct.pack("<II", 8, 2) + text(b"some") + text(b"words")
  deep = struct.pack("<II", 9, 1) * nested + struct.pack("<II", 4, 0)
  array = lambda name, value: text(name) + struct.pack("<I", 9) + value
  keys = [text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama"), array(b"words", words),
          *([array(b"deep", deep)] * bool(nested))]
  entries = [text(b"t%d" % n) + struct.pack("<IIIIQ", 2, 3, 2, kind, 32 * n + (offset if n else 0))
             for n in range(tensors)]
  header = b"GGUF" + struct.pack("<III", 1, tensors, len(keys)) + b"".join([*keys, *entries])
  data = numbers(2, 3).tobytes() + bytes(8)
  return header + bytes(-len(header) % 32) + data * tensors


def test_the_first_version_is_read(tmp_path):
  (tmp_path / "x.gguf").write_bytes(first_version())
  file = gguf_file.read(tmp_path / "x.gguf")
  assert file.metadata == {"general.architecture": "llama", "words": ["some", "words"]}
  np.testing.assert_array_equal(file.read("t0"), numbers(2, 3))


@pytest.mark.parametrize("content, message", [
    (b"tjgg" + bytes(30), "begins with b'tjgg'. It is of an older llama.cpp: fetch the model as GGUF"),
    (b"GGUF" + struct.pack(">I", 3) + bytes(30), "this one is big-endian"),
    (first_version(kind=4), "unsupported quantisation .type Q4_2, t0.*llama-quantize"),
    (first_version(kind=31), "type Q4_0_4_4"), (first_version(tensors=2, offset=-16), "t1 begins inside another"),
    (first_version(nested=5000), "cut off or damaged")], ids=range(6))
def test_old_and_damaged_files_are_refused_by_name(tmp_path, content, message):
  (tmp_path / "x.gguf").write_bytes(content)
  with pytest.raises(ValueError, match=message):
    gguf_file.read(tmp_path / "x.gguf")
