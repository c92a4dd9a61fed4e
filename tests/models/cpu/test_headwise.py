"""Attention a head at a time is attention, with and without padding, in its gradients, and on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.models import attention
from sftrl_jax.models.cpu.headwise import attend_headwise
from sftrl_jax.parallel import mesh as meshes

PADDING = np.arange(11)[None] >= np.array([[11], [7], [0]])   # none, some, and nothing else


def at_once(q, k, v, padding_BT):
  return attention.attend(q, k, v, ~(padding_BT[:, :, None] & padding_BT[:, None, :]))


def outputs_and_gradients(attend, dtype):
  random = np.random.default_rng(0)
  arrays = [jnp.asarray(random.normal(size=(3, 2, 11, 8)), dtype) for _ in range(3)]
  weights = jnp.asarray(random.normal(size=arrays[0].shape), jnp.float32)

  def worth(arrays):
    mixed = attend(*arrays, jnp.asarray(PADDING)).astype(jnp.float32)
    return jnp.sum(mixed * weights), mixed

  (_, mixed), gradients = jax.jit(jax.value_and_grad(worth, has_aux=True))(arrays)
  return [np.asarray(x, np.float32) for x in (mixed, *gradients)]


@pytest.mark.parametrize("dtype, rounding", [("float32", 1e-6), ("bfloat16", 2e-2)])   # bfloat16 rounds at 2^-9
def test_a_head_at_a_time_says_what_all_heads_at_once_say(dtype, rounding):
  for left, right in zip(*(outputs_and_gradients(attend, dtype) for attend in (attend_headwise, at_once)),
                         strict=True):
    assert np.linalg.norm(left - right) <= rounding * np.linalg.norm(right)


def test_padding_attends_to_what_is_there_alone_and_is_attended_to():
  """So Llama-3.2-Vision was trained, see vision/mllama/tower.py."""
  random = np.random.default_rng(1)
  q, k, v = (jnp.asarray(random.normal(size=(1, 1, 6, 4)), jnp.float32) for _ in range(3))
  padding_BT = jnp.asarray([[False] * 4 + [True] * 2])
  whole, without = (np.asarray(attend_headwise(q, k, v, mask)) for mask in (padding_BT, jnp.zeros((1, 6), bool)))
  assert np.array_equal(whole[:, :, :4], without[:, :, :4])
  np.testing.assert_allclose(attend_headwise(q, k, v), without, rtol=1e-6)
  there = attention.attend(q[:, :, 4:], k[:, :, :4], v[:, :, :4], jnp.ones((1, 2, 4), bool))
  np.testing.assert_allclose(whole[:, :, 4:], there, atol=1e-6)


def test_each_device_of_a_mesh_computes_its_own_rows_and_heads():
  random = np.random.default_rng(2)
  arrays = [jnp.asarray(random.normal(size=(4, 2, 11, 8)), jnp.float32) for _ in range(3)]
  padding_BT = jnp.asarray(np.arange(11)[None] >= np.array([[11], [7], [0], [3]]))
  alone = jax.jit(attend_headwise)(*arrays, padding_BT)
  mesh = meshes.make(meshes.MeshConfig(fsdp=4, tensor=2))
  with jax.set_mesh(mesh):
    meshed = jax.jit(attend_headwise)(*arrays, padding_BT)
  assert len(meshed.sharding.device_set) == 8
  np.testing.assert_allclose(alone, meshed, atol=1e-6)
