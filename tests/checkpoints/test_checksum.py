"""A checksum sees every bit and its place, and does not see how an array is sharded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sftrl_jax.checkpoints.checksum import checksums, described, sha256

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint8", "bool", "int8")


def array(dtype, shape=(4, 6)):
  return jnp.asarray(np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, shape)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_the_same_on_any_mesh(dtype):
  x = array(dtype)
  whole = checksums({"x": x})
  for shape, names in (((4, 2), ("a", "b")), ((2, 2), ("a", "b"))):
    mesh = Mesh(np.asarray(jax.devices()[: shape[0] * shape[1]]).reshape(shape), names)
    assert checksums({"x": jax.device_put(x, NamedSharding(mesh, PartitionSpec("a", "b")))}) == whole


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_flipped_bit_shows(dtype):
  x = np.asarray(array(dtype, (2, 3)))
  before, raw = checksums({"x": jnp.asarray(x)}), x.tobytes()
  bits = [0] if dtype == "bool" else range(8)
  for place in range(len(raw)):
    for bit in bits:
      changed = bytearray(raw)
      changed[place] ^= 1 << bit
      flipped = np.frombuffer(bytes(changed), x.dtype).reshape(x.shape)
      assert checksums({"x": jnp.asarray(flipped)}) != before


def test_two_values_exchanged_show_and_nan_is_a_value_like_any_other():
  x = jnp.asarray([1.0, 2.0, jnp.nan])
  assert checksums([x]) != checksums([x[jnp.asarray([1, 0, 2])]])
  assert checksums([x]) == checksums([x + 0])
  assert checksums([jnp.zeros(3)]) != checksums([-jnp.zeros(3)])


def test_an_array_is_described_by_shape_dtype_and_checksum():
  tree = {"a": {"b": array("bfloat16")}, "c": jnp.zeros((), jnp.int32)}
  descriptions = described(tree)
  assert {path: value[:2] for path, value in descriptions.items()} == {"a/b": [[4, 6], "bfloat16"], "c": [[], "int32"]}
  assert descriptions["a/b"][2] == checksums(tree)["a/b"]


def test_json_is_hashed_whatever_the_order_of_its_keys():
  assert sha256({"a": 1.5, "b": [1, 2]}) == sha256({"b": [1, 2], "a": 1.5}) != sha256({"a": 1.5, "b": [2, 1]})
