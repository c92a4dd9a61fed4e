"""A state comes back as it went, or a person is told why not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sftrl_jax.checkpoints import store as stores
from sftrl_jax.checkpoints.store import Checkpoint
from sftrl_jax.models import DecoderConfig, build, heads
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.training import state as states

# What a failed restore leaves of orbax is collected whenever Python pleases.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
META = {"step": 3, "cursor": 40, "tokens": 10, "seconds": 1.25, "train_flops": 2.5e9}


@functools.cache
def born(width=16, value=True, devices=8, optimizer=optax.adam):
  mesh = meshes.make(meshes.MeshConfig(), jax.devices()[:devices])
  params = {"model": jax.jit(build(DecoderConfig(vocab=16, width=width, layers=1, heads=2)).init)(jax.random.key(1))}
  if value:
    params["value"] = heads.init(width)
  return states.born(params, optimizer(0.1), mesh)


def same(left, right):
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(jax.device_get(a), jax.device_get(b)), left, right)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A run with one checkpoint, 3, of a state with a value head on eight devices."""
  workdir = tmp_path_factory.mktemp("run")
  store = stores.manager(workdir)
  stores.save(store, 3, born(), META)
  store.wait_until_finished()
  store.close()
  return workdir


@pytest.mark.parametrize("devices", [8, 1])
def test_a_state_comes_back_as_it_went_on_any_mesh(workdir, devices):
  like = jax.tree.map(jnp.zeros_like, born(devices=devices))
  like = jax.tree.map(lambda x, y: jax.device_put(x, y.sharding), like, born(devices=devices))
  store = stores.manager(workdir)
  state, meta = stores.restore(store, 3, like)
  store.close()
  assert meta == META
  same(state, born())
  jax.tree.map(lambda a, b: np.testing.assert_equal(a.sharding, b.sharding), state, like)


@pytest.mark.parametrize("other", [dict(width=32), dict(value=False), dict(optimizer=optax.sgd)])
def test_a_state_of_another_shape_is_refused_by_name(workdir, other):
  store = stores.manager(workdir)
  with pytest.raises(ValueError, match="does not fit this config") as error:
    stores.restore(store, 3, born(devices=1, **other))
  store.close()
  assert str(workdir) in str(error.value) and "--workdir" in str(error.value)


def test_a_model_takes_its_parameters_from_a_state_with_other_heads_and_optimizer(workdir):
  like = born(value=False, devices=1, optimizer=optax.sgd).params["model"]
  for step in (3, None):
    params, found = stores.restore_params(workdir, step, jax.tree.map(jnp.zeros_like, like))
    assert found == 3
    same(params, born().params["model"])
  jax.tree.map(lambda a, b: np.testing.assert_equal(a.sharding, b.sharding), params, like)


def test_parameters_that_are_not_there_are_told(workdir, tmp_path):
  like = born(devices=1).params["model"]
  with pytest.raises(ValueError, match="no checkpoint 7; steps there: 3"):
    stores.restore_params(workdir, 7, like)
  with pytest.raises(ValueError, match="no checkpoint; steps there: none"):
    stores.restore_params(tmp_path, None, like)
  with pytest.raises(ValueError, match="has shape .* there, but .* in this model"):
    stores.restore_params(workdir, 3, born(width=32, devices=1).params["model"])


def test_the_newest_are_kept_and_a_step_that_exists_stays(tmp_path):
  store = stores.manager(tmp_path, keep=2)
  for step in (1, 2, 3, 4):
    stores.save(store, step, {"x": jnp.full(2, step)}, {"step": step})
  stores.save(store, 4, {"x": jnp.zeros(2)}, {"step": 0})
  store.wait_until_finished()
  assert sorted(store.all_steps()) == [3, 4]
  state, meta = stores.restore(store, 4, {"x": jnp.zeros(2, jnp.int32)})
  assert state["x"].tolist() == [4, 4] and meta == {"step": 4}
  with pytest.raises(RuntimeError, match="Checkpoint 2 was not written"):
    stores.save(store, 2, {"x": jnp.zeros(2)}, {})
  store.close()


@pytest.mark.parametrize("settings, key", [(dict(every=-1), "every"), (dict(keep=0), "keep")])
def test_wrong_settings_name_their_key(settings, key):
  with pytest.raises(ValueError, match=f"^{key} is"):
    Checkpoint(**settings)
