"""A state comes back as it went, or a person is told why not."""

import functools
import re
import resource
import shutil
import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sftrl_jax.checkpoints import store as stores
from sftrl_jax.checkpoints.store import CheckpointConfig
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
  return states.create_sharded(params, optimizer(0.1), mesh)


def same(left, right):
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(jax.device_get(a), jax.device_get(b)), left, right)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A run with one checkpoint, 3, of a state with a value head on eight devices."""
  workdir = tmp_path_factory.mktemp("run")
  store = stores.manager(workdir)
  stores.save(store, 3, born(), META)
  stores.finish(store)
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


@pytest.mark.parametrize("change", [dict(width=32), dict(value=False), dict(optimizer=optax.sgd)])
def test_a_state_of_another_shape_is_refused_by_name(workdir, change):
  store = stores.manager(workdir)
  with pytest.raises(ValueError, match="does not fit this config") as error:
    stores.restore(store, 3, born(devices=1, **change))
  store.close()
  assert str(workdir) in str(error.value) and "--workdir" in str(error.value)


def test_a_model_takes_its_parameters_from_a_state_with_other_heads_and_optimizer(workdir):
  like = born(value=False, devices=1, optimizer=optax.sgd).params["model"]
  for step in (3, None):
    params, step_found = stores.restore_params(workdir, step, jax.tree.map(jnp.zeros_like, like))
    assert step_found == 3
    same(params, born().params["model"])
  jax.tree.map(lambda a, b: np.testing.assert_equal(a.sharding, b.sharding), params, like)


def test_parameters_that_are_not_there_are_told(workdir, tmp_path):
  like = born(devices=1).params["model"]
  with pytest.raises(ValueError, match="no checkpoint 7; steps there: 3"):
    stores.restore_params(workdir, 7, like)
  with pytest.raises(ValueError, match="no checkpoint; steps there: none"):
    stores.restore_params(tmp_path, None, like)
  with pytest.raises(ValueError, match="has shape .* there, but .* here"):
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


def files_of(step):
  return sorted((path for path in step.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(step):
  """One bit in the middle of the largest data file."""
  path = files_of(step / "state")[-1]
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def truncate(step):
  path = files_of(step / "state")[-1]
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(step):
  for path in files_of(step):
    path.unlink()


def forge(step):
  """The JSON says another position than was saved."""
  path = next(path for path in files_of(step / "meta") if '"cursor"' in path.read_text(errors="ignore"))
  path.write_text(path.read_text().replace(f'"cursor": {step.name}', '"cursor": 7'))


def lose(step):
  next(path for path in files_of(step) if path.name == "manifest.ocdbt").unlink()


DAMAGE = [flip, truncate, empty, forge, lose]


def three_steps(workdir):
  """Steps 1, 2 and 3 of a small state, and what each holds."""
  source = np.random.default_rng(0)
  states = {step: {"x": jnp.asarray(source.normal(size=(64, 64)), jnp.float32), "n": jnp.int32(step)}
            for step in (1, 2, 3)}
  store = stores.manager(workdir, keep=3)
  for step, state in states.items():
    stores.save(store, step, state, {"cursor": step})
  stores.finish(store)
  store.close()
  return states


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_step_is_named_put_aside_and_the_one_before_taken(tmp_path, damage):
  saved, lines = three_steps(tmp_path), []
  for step in (2, 3):
    damage(tmp_path / "checkpoints" / str(step))
  store = stores.manager(tmp_path, keep=3)
  state, meta, step = stores.restore_newest(store, saved[3], lines.append)
  assert step == 1 and meta == {"cursor": 1}
  same(state, saved[1])
  assert "checkpoints/3 is damaged" in lines[0] and "3.corrupt" in lines[0] and "checkpoints/2 is damaged" in lines[1]
  assert (tmp_path / "checkpoints" / "3.corrupt").is_dir() and list(store.all_steps()) == [1]
  stores.save(store, 3, saved[3], {"cursor": 3})  # the number is free again
  stores.finish(store)
  assert stores.restore_newest(store, saved[3], lines.append)[2] == 3
  store.close()


def test_without_any_sound_step_a_person_decides(tmp_path):
  saved = three_steps(tmp_path)
  for step in (1, 2, 3):
    flip(tmp_path / "checkpoints" / str(step))
  for _ in range(2):  # the second call finds no step at all, and does not begin anew either
    store = stores.manager(tmp_path)
    with pytest.raises(stores.Damaged, match="no intact checkpoint .*another --workdir"):
      stores.restore_newest(store, saved[3], lambda message: None)
    store.close()
  assert stores.restore_newest(stores.manager(tmp_path / "new"), saved[3], print) is None


def test_a_checkpoint_of_another_shape_is_not_damaged(tmp_path):
  three_steps(tmp_path)
  store = stores.manager(tmp_path)
  for like in ({"x": jnp.zeros((64, 32)), "n": jnp.int32(0)}, {"x": jnp.zeros((64, 64))},
               {"x": jnp.zeros((64, 64), jnp.bfloat16), "n": jnp.int32(0)}):
    with pytest.raises(stores.Mismatch, match="does not fit this config"):
      stores.restore_newest(store, like, print)
  assert sorted(store.all_steps()) == [1, 2, 3]
  store.close()


def test_parameters_to_be_judged_are_those_of_the_average_where_there_is_one(tmp_path):
  state, average = born(), jax.tree.map(lambda x: x + 1, born().params)
  store = stores.manager(tmp_path)
  stores.save(store, 1, state, {}, evaluated=average)
  stores.finish(store)
  store.close()
  params, _ = stores.restore_params(tmp_path, 1, state.params["model"])
  same(params, average["model"])


def test_parameters_fall_back_to_a_sound_step_and_reading_changes_nothing(tmp_path, capsys):
  state, store = born(), stores.manager(tmp_path, keep=2)
  for step in (1, 2):
    stores.save(store, step, state, {})
  stores.finish(store)
  store.close()
  empty(tmp_path / "checkpoints" / "2")
  half_written = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"   # of a run that is saving right now
  half_written.mkdir()
  assert stores.restore_params(tmp_path, None, state.params["model"])[1] == 1
  assert "2 is damaged" in capsys.readouterr().out and half_written.is_dir()
  assert (tmp_path / "checkpoints" / "2").is_dir()
  with pytest.raises(stores.Damaged, match="checkpoints/2 is damaged"):
    stores.restore_params(tmp_path, 2, state.params["model"])


def test_a_full_disk_leaves_older_steps_untouched(tmp_path):
  saved, limits = three_steps(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
  store = stores.manager(tmp_path, keep=1)
  resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # the system refuses larger files, as a full disk would
  try:
    with pytest.raises(RuntimeError, match="could not be written .* Step 3 is complete and untouched"):
      stores.save(store, 4, saved[1], {"cursor": 4})
      stores.finish(store)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  again = stores.manager(tmp_path)
  state, _, step = stores.restore_newest(again, saved[3], print)
  assert step == 3
  same(state, saved[3])
  again.close()


def test_a_save_that_fails_in_the_background_is_an_error_at_the_next_look(tmp_path):
  saved, limits = three_steps(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
  store = stores.manager(tmp_path, keep=1)
  resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
  try:
    stores.save(store, 4, saved[1], {"cursor": 4})
    with pytest.raises(stores.SaveFailed, match="Step 3 is complete and untouched; .* the same command goes on"):
      while True:
        stores.check(store)   # does not wait
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("lost", [False, True])
def test_a_place_that_cannot_be_written_is_an_error_at_once_and_leaves_no_thread(tmp_path, lost):
  saved = three_steps(tmp_path)
  before = set(threading.enumerate())
  store = stores.manager(tmp_path, keep=1)
  (tmp_path / "checkpoints").rename(tmp_path / "away")
  if not lost:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(stores.SaveFailed, match="No step is complete there"):
      stores.save(store, 4, saved[1], {"cursor": 4})
  else:   # the directory is made again
    stores.save(store, 4, saved[1], {"cursor": 4})
    stores.finish(store)
    assert (tmp_path / "checkpoints" / "4").is_dir()
  pools = re.compile(r".*_\d+")   # idle threads, which end with the process
  assert [name for name in (thread.name for thread in set(threading.enumerate()) - before) if not pools.fullmatch(name)
          ] == []


@pytest.mark.parametrize("step", [None, 2])
def test_a_reader_beside_a_writer_takes_the_newer_step_when_its_own_is_deleted(tmp_path, monkeypatch, step):
  state, reads, read = born(), [], stores._params
  store = stores.manager(tmp_path, keep=3)
  for number in (1, 2, 3):
    stores.save(store, number, state, {})
  stores.finish(store)
  store.close()

  def deleted_once(store, number, *rest):
    reads.append(number)
    if len(reads) == 1:   # what a run that trains does meanwhile
      shutil.copytree(tmp_path / "checkpoints" / "3", tmp_path / "checkpoints" / "4")
      for old in (2, 3):
        shutil.rmtree(tmp_path / "checkpoints" / str(old))
    return read(store, number, *rest)

  monkeypatch.setattr(stores, "_params", deleted_once)
  like = state.params["model"]
  if step:
    with pytest.raises(ValueError, match=r"has no checkpoint 2; steps there: (1, )?4\."):
      stores.restore_params(tmp_path, step, like)
    return
  params, taken = stores.restore_params(tmp_path, step, like)
  assert (reads, taken) == ([3, 4], 4)
  same(params, like)


@pytest.mark.parametrize("settings, key", [
    (dict(every=-1), "every"), (dict(keep=0), "keep"), (dict(grace_seconds=-1.0), "grace_seconds")])
def test_wrong_settings_name_their_key(settings, key):
  with pytest.raises(ValueError, match=f"^{key} is"):
    CheckpointConfig(**settings)


def test_errors_of_writes_that_were_given_up_are_no_news(tmp_path, monkeypatch):
  printed = []
  monkeypatch.setattr(sys, "unraisablehook", printed.append)
  for _ in range(2):
    stores.manager(tmp_path).close()
  late, real = (types.SimpleNamespace(exc_value=RuntimeError(text)) for text in ("Event loop is closed", "another"))
  sys.unraisablehook(late)
  sys.unraisablehook(real)
  assert printed == [real]
