"""Files as the package safetensors writes and reads them, and files that lie."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest

from sftrl_jax.checkpoints import safetensors as ours

package = pytest.importorskip("safetensors.numpy")
DTYPES = (np.float32, np.float16, np.float64, ml_dtypes.bfloat16)


def arrays(dtype):
  random = np.random.default_rng(0)
  return {"matrix": random.normal(size=(3, 5)).astype(dtype), "vector": random.normal(size=7).astype(dtype),
          "none": np.zeros((0, 4), dtype)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_the_package_writes_is_read_whole_and_in_parts(tmp_path, dtype):
  package.save_file(arrays(dtype), tmp_path / "model.safetensors")
  entries = ours.entries(tmp_path)
  for name, array in arrays(dtype).items():
    read = entries[name].read()
    assert read.dtype == array.dtype and entries[name].shape == array.shape
    assert np.asarray(read).tobytes() == array.tobytes()
  np.testing.assert_array_equal(entries["matrix"].read()[1:, ::2], arrays(dtype)["matrix"][1:, ::2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_we_write_is_read_by_the_package(tmp_path, dtype):
  tensors = arrays(dtype)
  shapes = {name: array.shape for name, array in tensors.items()}
  ours.write(tmp_path / "x.safetensors", shapes, np.dtype(dtype), iter(tensors.items()))
  if dtype is ml_dtypes.bfloat16:   # for which the package has no NumPy dtype of its own
    there = {name: entry.read() for name, entry in ours.header(tmp_path / "x.safetensors").items()}
  else:
    there = package.load_file(tmp_path / "x.safetensors")
  assert {name: np.asarray(array).tobytes() for name, array in there.items()} == {
      name: array.tobytes() for name, array in tensors.items()}


@pytest.mark.parametrize("given", [[], [("b", np.zeros(2, np.float32))], [("a", np.zeros(3, np.float32))],
                                   [("a", np.zeros(2, np.float64))]])
def test_a_tensor_that_is_not_what_the_header_says_is_never_written_under_its_name(tmp_path, given):
  with pytest.raises(ValueError, match="the header says"):
    ours.write(tmp_path / "x", {"a": (2,)}, np.dtype(np.float32), iter(given))


def file_of(path, header, data=b"\0" * 64):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  path.write_bytes(struct.pack("<Q", len(text)) + text + data)
  return path


def tensor(shape=(4,), offsets=(0, 16), dtype="F32"):
  return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize("header, message", [
    (b"{   ", "header is damaged"), (b"[]", "header is damaged"), (b"\xff\xff", "header is damaged"),
    ({"a": 3}, "header is damaged"), ({"a": {"dtype": "F32"}}, "header is damaged"),
    ({"a": tensor(shape=(5,))}, r"shape \[5\] takes 16 bytes"), ({"a": tensor(shape=(-4,))}, "header is damaged"),
    ({"a": tensor(shape=(2.0, 2))}, "header is damaged"), ({"a": tensor(offsets=(16, 0))}, "takes -16 bytes"),
    ({"a": tensor(), "b": tensor(offsets=(8, 24))}, "b begins inside another"),
    ({"a": tensor(shape=(40,), offsets=(0, 160))}, "is cut off"),
    ({"a": tensor(shape=(2**62,), offsets=(0, 2**64))}, "is cut off"),
    ({"a": tensor(shape=(1,) * 10**5)}, "letters and 100000 axes"), ({"a" * 5000: tensor()}, "name of 5000 letters"),
    (b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}', "header is damaged"),
    (b"[" * 10**5, "damaged"),
], ids=range(16))
def test_a_header_that_lies_is_refused(tmp_path, header, message):
  with pytest.raises(ValueError, match=message):
    ours.header(file_of(tmp_path / "model.safetensors", header))


@pytest.mark.parametrize("content", [b"", b"abc", struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 400) + b"{}"])
def test_no_file_of_the_kind_is_told(tmp_path, content):
  (tmp_path / "model.safetensors").write_bytes(content)
  with pytest.raises(ValueError, match="no whole safetensors file"):
    ours.entries(tmp_path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
  package.save_file(arrays(np.float32), tmp_path / "model.safetensors")
  whole = (tmp_path / "model.safetensors").read_bytes()
  for length in (4, 9, 60, len(whole) - 1):
    (tmp_path / "model.safetensors").write_bytes(whole[:length])
    with pytest.raises(ValueError, match="safetensors"):
      ours.entries(tmp_path)


def test_weights_of_no_plain_dtype_are_told_when_they_are_read(tmp_path):
  entries = ours.header(file_of(tmp_path / "x", {"a": tensor(shape=(16,), dtype="F8_E4M3")}))
  with pytest.raises(ValueError, match="dtype F8_E4M3; known are F64, F32, F16, BF16"):
    entries["a"].read()


@pytest.mark.parametrize("where, message", [
    ({"a": "gone.safetensors"}, "lacks gone.safetensors, which its index names"),
    ({"a": "../x.safetensors"}, "names ../x.safetensors: an index may only name files beside it"),
    ({"a": "/etc/passwd"}, "names /etc/passwd"), ([], "holds no weight_map"), ({"a": 3}, "holds no weight_map"),
], ids=str)
def test_an_index_names_files_that_are_there_and_beside_it(tmp_path, where, message):
  (tmp_path / ours.INDEX).write_text(json.dumps({"weight_map": where}))
  with pytest.raises(ValueError, match=message):
    ours.entries(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_torn_index_is_told(tmp_path, text):
  (tmp_path / ours.INDEX).write_text(text)
  with pytest.raises(ValueError, match="is damaged"):
    ours.entries(tmp_path)


def test_a_tensor_that_its_file_lacks_is_not_there(tmp_path):
  package.save_file(arrays(np.float32), tmp_path / "one.safetensors")
  (tmp_path / ours.INDEX).write_text(json.dumps({"weight_map": {"matrix": "one.safetensors", "b": "one.safetensors"}}))
  assert list(ours.entries(tmp_path)) == ["matrix"]


def test_pickles_are_refused_with_the_way_out(tmp_path):
  (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
  with pytest.raises(ValueError, match="holds pytorch_model.bin and .* can run code .*save_pretrained"):
    ours.entries(tmp_path)
  for name in ("model.pt", "model.ckpt", "model.pkl"):
    (tmp_path / "pytorch_model.bin").rename(tmp_path / name)
    with pytest.raises(ValueError, match=f"holds {name} and .* can run code"):
      ours.entries(tmp_path)
    (tmp_path / name).rename(tmp_path / "pytorch_model.bin")
  (tmp_path / "pytorch_model.bin").unlink()
  with pytest.raises(ValueError, match="has no weights"):
    ours.entries(tmp_path)
