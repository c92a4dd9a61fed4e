"""Compiled programs on disk: a run has the same bits without them, with them, and with damaged ones."""

import json
import os
import pathlib
import re
import stat
import subprocess
import sys
import types

import jax
import pytest
from jax._src import compilation_cache as internal
from jax.experimental.compilation_cache import compilation_cache

from sftrl_jax.programs.runtime import compile_cache
from sftrl_jax.programs.runtime.compile_cache import CompileCache

ROOT = pathlib.Path(__file__).parents[3]
WORDS = ("sft", "--config=configs/general_points/sft.py:smoke", "--config.log.report=False", "--config.log.writers=()",
         "--config.evals.variants=('id_seen',)", "--config.evals.at=()", "--config.evals.temperatures=(0.0,)",
         "--config.rollout.shrink=()", "--config.model.layers=1")
DAMAGE = (lambda entry: b"", lambda entry: b"\0" * len(entry), lambda entry: entry[: len(entry) // 2],
          lambda entry: entry[:-9] + bytes([entry[-9] ^ 1]) + entry[-8:], lambda entry: b"\xff" + entry[1:])
CLOCKS = ("seconds", "timing_s", "throughput", "memory", "compute/chip_hours")


def trained(workdir, cache):
  """(what a run leaves, but for clocks; what it printed) with this SFTRL_COMPILE_CACHE. XLA optimises as for a user."""
  environment = {**os.environ, "XLA_FLAGS": "", "SFTRL_COMPILE_CACHE": str(cache)}
  child = subprocess.run([sys.executable, "-m", "sftrl_jax", *WORDS, f"--workdir={workdir}"], env=environment, cwd=ROOT,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
  assert child.returncode == 0, child.stdout
  lines = [[{key: value for key, value in json.loads(line).items() if not key.startswith(CLOCKS)}
            for line in (workdir / name).read_text().splitlines()]
           for name in ("metrics.jsonl", "evals.jsonl", "episodes.jsonl")]
  meta = json.loads((workdir / "checkpoints" / "3" / "meta" / "metadata").read_text())
  assert all(lines) and meta["arrays"]   # of every array of the state: shape, type and checksum
  return (lines, meta["arrays"]), child.stdout


def entries(home):
  return sorted(home.glob(f"*/*{compile_cache.SUFFIX}"))


def test_a_run_is_the_same_without_a_cache_with_a_cold_one_and_with_a_damaged_one(tmp_path):
  """Damaged entries cost compiling: they are replaced, and the others are read."""
  home = tmp_path / "cache"
  without, output = trained(tmp_path / "without", "off")
  assert "read from" not in output and not home.exists()
  cold, _ = trained(tmp_path / "cold", home)
  before = {path: path.read_bytes() for path in entries(home)}
  assert len(before) > 2 * len(DAMAGE)
  damaged = {path: damage(before[path]) for path, damage in zip(before, DAMAGE, strict=False)}
  last, first = list(before)[-2:]
  damaged |= {last: before[first], first: before[last]}   # intact, but of another program
  for path, content in damaged.items():
    path.write_bytes(content)
  warm, output = trained(tmp_path / "warm", home)
  read = re.search(rf"(\d+) of them read from {home}", output)
  assert read and int(read[1]) >= len(before) / 2 and "Error" not in output, output
  assert without == cold == warm
  assert list(before) == entries(home) and all(path.read_bytes() != damaged[path] for path in damaged)
  assert stat.S_IMODE(entries(home)[0].parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_not_read_and_makes_room_for_another(tmp_path, damage):
  cache = CompileCache(tmp_path)
  assert cache.get("jit_f-1") is None
  cache.put("jit_f-1", b"program" * 10)
  assert cache.get("jit_f-1") == b"program" * 10 and cache.get("jit_f-2") is None and cache.hits == 1
  (path,) = tmp_path.iterdir()
  path.write_bytes(damage(path.read_bytes()))
  assert cache.get("jit_f-1") is None and not list(tmp_path.iterdir())
  cache.put("jit_f-1", b"again")
  assert cache.get("jit_f-1") == b"again"


def test_an_entry_under_the_name_of_another_is_not_read(tmp_path):
  cache = CompileCache(tmp_path)
  for key in ("jit_f-1", "jit_g-1"):
    cache.put(key, key.encode())
  first, second = tmp_path.iterdir()
  first.write_bytes(second.read_bytes())
  assert sorted(filter(None, map(cache.get, ("jit_f-1", "jit_g-1")))) in ([b"jit_f-1"], [b"jit_g-1"])


def test_what_cannot_be_written_or_read_is_no_error(tmp_path):
  """The folder is gone, or a directory has the name of an entry, and nothing half-written stays."""
  gone = CompileCache(tmp_path / "gone")
  gone.put("jit_f-1", b"program")
  assert gone.get("jit_f-1") is None
  cache = CompileCache(tmp_path)
  cache._file("jit_f-1").mkdir()
  cache.put("jit_f-1", b"program")
  assert cache.get("jit_f-1") is None and [path.is_dir() for path in tmp_path.iterdir()] == [True]


def test_the_entries_that_were_used_longest_ago_are_removed(tmp_path):
  cache = CompileCache(tmp_path / compile_cache.fingerprint())
  cache._path.mkdir()
  for age, key in ((300, "a"), (200, "b"), (100, "c")):
    cache.put(key, b"x" * 1000)
    os.utime(cache._file(key), (1e9 - age, 1e9 - age))
  assert cache.get("a")   # now it is the newest
  compile_cache.trim(tmp_path, 3 * 1032)
  assert all(map(cache.get, "abc"))
  os.utime(cache._file("b"), (1e9, 1e9))
  compile_cache.trim(tmp_path, 2 * 1032)
  assert [cache.get(key) is not None for key in "abc"] == [True, False, True]
  compile_cache.trim(tmp_path / "absent", 0)


def test_nothing_else_is_removed_from_the_directory(tmp_path):
  """Half-written entries of a process that was killed are; files of the user are not, wherever they are."""
  cache = CompileCache(tmp_path / compile_cache.fingerprint())
  cache._path.mkdir()
  cache.put("a", b"x")
  cache._file("b").with_suffix(".xk3_9a").write_bytes(b"half")
  kept = [tmp_path / "thesis.tex", cache._path / "notes.program", tmp_path / "photos" / f"{'0' * 64}.program",
          tmp_path / "photos" / "1.jpg"]
  (tmp_path / "photos").mkdir()
  for path in kept:
    path.write_text("of the user")
  compile_cache.trim(tmp_path, 0)
  assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


@pytest.fixture
def unset(monkeypatch, tmp_path):
  """JAX without a cache, and a home for one; JAX is as before when the test ends, with what all tests share."""
  names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
           "jax_persistent_cache_enable_xla_caches", "jax_enable_compilation_cache")
  before, shared = {name: getattr(jax.config, name) for name in names}, (internal._cache, internal._cache_initialized)
  jax.config.update(names[0], None)
  compilation_cache.reset_cache()
  monkeypatch.setattr(compile_cache, "USED", [])
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
  monkeypatch.delenv(compile_cache.VARIABLE, raising=False)
  yield tmp_path / "home" / "sftrl_jax" / "compiled"
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  internal._cache, internal._cache_initialized = shared


def test_it_is_on_by_default(unset):
  compile_cache.use()
  assert pathlib.Path(jax.config.jax_compilation_cache_dir).parent == unset
  jax.clear_caches()
  jax.jit(lambda x: x * 17.25)(1.0)
  assert entries(unset) and not compile_cache.summary()
  jax.clear_caches()
  jax.jit(lambda x: x * 17.25)(1.0)
  assert "1 of them read from" in compile_cache.summary()


@pytest.mark.parametrize("reason", ["off", "several", "JAX's own directory", "JAX's own switch"])
def test_it_is_off_where_the_user_says_so(unset, monkeypatch, tmp_path, reason):
  own = str(tmp_path / "own") if reason == "JAX's own directory" else None
  if reason == "off":
    monkeypatch.setenv(compile_cache.VARIABLE, "off")
  jax.config.update("jax_compilation_cache_dir", own)
  jax.config.update("jax_enable_compilation_cache", reason != "JAX's own switch")
  compile_cache.use(several=reason == "several")
  assert jax.config.jax_compilation_cache_dir == own and not compile_cache.USED and not unset.exists()


def test_several_processes_share_the_directory_that_is_given(unset, monkeypatch, tmp_path):
  monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path / "shared"))
  compile_cache.use(several=True)
  assert pathlib.Path(jax.config.jax_compilation_cache_dir).parent == tmp_path / "shared"


@pytest.mark.parametrize("reason", ["a file", "others may write", "another user's", "no home"])
def test_a_directory_that_cannot_be_used_is_said_and_costs_nothing_else(unset, monkeypatch, tmp_path, capsys, reason):
  if reason == "a file":   # what a read-only directory is to a user who is not root
    (tmp_path / "home").write_text("")
  elif reason == "no home":
    monkeypatch.setattr(compile_cache.source, "cache", lambda: pathlib.Path("~nobody-of-this-name").expanduser())
  else:
    folder = unset / compile_cache.fingerprint()
    folder.mkdir(parents=True)
    folder.chmod(0o777 if reason == "others may write" else 0o700)
  if reason == "another user's":
    monkeypatch.setattr(compile_cache.os, "getuid", lambda: unset.stat().st_uid + 1)
  compile_cache.use()
  assert jax.config.jax_compilation_cache_dir is None and not compile_cache.USED
  assert f"Compiled programs are not kept: {'Could not' if reason == 'no home' else ''}" in capsys.readouterr().err


def test_another_processor_or_number_of_threads_has_its_own_folder(monkeypatch):
  names = [compile_cache.fingerprint()]
  assert names[0] == compile_cache.fingerprint()
  for name, value in {"NPROC": "7", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}.items():
    monkeypatch.setenv(name, value)
    names.append(compile_cache.fingerprint())
  monkeypatch.setattr(compile_cache, "platform", types.SimpleNamespace(machine=lambda: "m68k", processor=lambda: ""))
  names.append(compile_cache.fingerprint())
  assert len(set(names)) == 4
