"""Tests run on eight pretended CPU devices, and arrays of different ranks are not broadcast unasked.

The environment is set before anyone imports jax. That rooms without jax stay without it is asked in fresh processes.
"""

import atexit
import gc
import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
import sys
import tempfile

# Tests compile much and compute little: LLVM's costly passes are left out, which halves the suite and moves only the
# last bits. Whoever sets a flag of these outside keeps it.
FLAGS = {"--xla_force_host_platform_device_count": "8", "--xla_backend_optimization_level": "0",
         "--xla_llvm_disable_expensive_passes": "true"}
if importlib.metadata.version("jax").startswith("0.10."):  # a third of the time; XLA ends a process for unknown flags
  FLAGS["--xla_cpu_use_fusion_emitters"] = "false"

# Tests and their commands share what they compile, and runs that many tests read, over all workers, which inherit the
# directories; they neither read nor fill the cache of whoever runs the tests. SFTRL_TEST_CACHE=DIR keeps what they
# compile for the next time.
if "PYTEST_XDIST_WORKER" not in os.environ:
  for variable in ("SFTRL_COMPILE_CACHE", "SFTRL_TEST_RUNS"):
    os.environ[variable] = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, os.environ[variable], ignore_errors=True)
  if os.environ.get("SFTRL_TEST_CACHE"):
    os.environ["SFTRL_COMPILE_CACHE"] = os.path.abspath(os.environ["SFTRL_TEST_CACHE"])

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([given, *(f"{name}={value}" for name, value in FLAGS.items() if name not in given)])
if "jax" in sys.modules:  # a plugin was quicker: XLA_FLAGS still counts until the first device is asked for
  sys.modules["jax"].config.update("jax_platforms", "cpu")
  sys.modules["jax"].config.update("jax_numpy_rank_promotion", "raise")

# The devices are made now: a test that changes XLA_FLAGS must not decide how many the later ones see.
import jax  # noqa: E402

jax.devices()
jax.config.update("jax_disable_most_optimizations", True)

import pytest  # noqa: E402

from sftrl_jax.parallel import mesh as meshes  # noqa: E402

MAKE, ONE_DEVICE = meshes.make, []
# Linux gives a process 65,530 memory maps, every compiled program on a CPU takes some, and XLA ends a process that gets
# no more by a segmentation fault.
MOST_MAPS = 30_000


LONG = tuple(f"tests/{line}" for line in pathlib.Path(__file__).with_name("long_cases.txt").read_text().splitlines()
             if line and not line.startswith("#"))


# A file is one worker's, and the last one to end is waited for: those that take long begin first. The room of programs,
# whose fixtures last as long as it does, comes as a whole.
FIRST = tuple(f"tests/{name}" for name in (
    "programs/config/test_smoke.py", "programs/experiment/test_hosts_agree.py", "programs/loop/test_session.py",
    "programs/test_rl.py", "programs/runtime/test_compile_cache.py", "programs/loop/test_evaluator.py",
    "programs/loop/test_jitted.py", "programs/", "rollout/test_segments.py", "test_bad_input.py",
    "training/test_step.py", "models/test_decoder.py", "training/updates/test_lengths.py", "test_readme.py",
    "training/writers/test_event_file.py", "envs/test_arithmetic.py", "parallel/test_rules.py"))


def pytest_configure(config):
  config.option.loadscopereorder = False   # xdist would sort files by the number of their tests


def pytest_addoption(parser):
  parser.addoption("--long", action="store_true", help="also the cases of tests/long_cases.txt")


def pytest_collection_modifyitems(config, items):
  """Leaves out the long cases, unless they are asked for, all of them or by their names, and puts FIRST first."""
  place = lambda item: next((place for place, name in enumerate(FIRST) if item.nodeid.startswith(name)), len(FIRST))
  items.sort(key=place)
  if not config.getoption("--long") and not any("::" in word for word in config.args):
    left_out = [item for item in items if item.nodeid.startswith(LONG)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.nodeid.startswith(LONG)]


def pytest_collection_finish(session):
  """What is imported and collected by now stays: no collection of garbage looks through it again."""
  gc.collect()
  gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_are_bounded():
  """Programs of earlier files are forgotten where they are many."""
  yield
  maps = pathlib.Path("/proc/self/maps")
  if maps.is_file() and maps.read_bytes().count(b"\n") > MOST_MAPS:
    jax.clear_caches()
    gc.collect()


def pytest_runtest_setup(item):
  """The one device of tests/programs is theirs alone, also where a worker goes to and fro between rooms."""
  if "programs" in item.path.parts:
    meshes.make = ONE_DEVICE.pop() if ONE_DEVICE and meshes.make is MAKE else meshes.make
  elif meshes.make is not MAKE:
    ONE_DEVICE[:] = [meshes.make]
    meshes.make = MAKE


def _bucket():
  """tests/bucket.py, which no package holds."""
  found = importlib.util.spec_from_file_location("bucket", pathlib.Path(__file__).with_name("bucket.py"))
  module = importlib.util.module_from_spec(found)
  found.loader.exec_module(module)
  return module


@pytest.fixture(scope="session")
def bucket():
  """gs://bucket as the clients of a real one see it; its objects are in bucket.objects."""
  with _bucket().serving() as (bucket, address), pytest.MonkeyPatch.context() as patch:
    for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
      patch.setenv(name, address)
    for name, value in {"GOOGLE_AUTH_TOKEN_FOR_TESTING": "none", "GOOGLE_CLOUD_PROJECT": "tests"}.items():
      patch.setenv(name, value)
    yield bucket


@pytest.fixture
def objects(monkeypatch):
  """A directory in a bucket of this process, for laws that need thousands of requests."""
  home = _bucket().Objects("/gs/bucket/run")
  monkeypatch.setattr(type(home), "stored", {})
  monkeypatch.setattr(type(home), "left", None)
  return home
