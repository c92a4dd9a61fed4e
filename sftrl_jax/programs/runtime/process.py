"""The process of a command: what JAX reads from the environment, and the processes of one run."""

import atexit
import contextlib
import glob
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping

from sftrl_jax.programs.config.errors import AbortAllProcesses, ConfigError

ACCELERATORS = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*", "/dev/nvidia[0-9]*", "/dev/kfd")


def cpu_threads(config, overrides) -> int:
  """mesh.cpu_threads before the config is checked; anything strange is 0 here and an error of `resolve` later."""
  mesh = config.get("mesh", {})
  value = dict(overrides).get("mesh.cpu_threads", mesh.get("cpu_threads", 0) if isinstance(mesh, dict) else 0)
  return int(value) if str(value).isdecimal() else 0


def prepare_environment(threads) -> None:
  """Sets the environment that JAX reads when it is imported: CPU threads (0 leaves them alone) and quiet logs.

  Where libtpu is there for `sftrl plan` alone, JAX would look for TPUs, print errors and hold libtpu's lock.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  if importlib.util.find_spec("libtpu") and not any(map(glob.glob, ACCELERATORS)):
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
  if not threads:
    return
  os.environ["NPROC"] = str(threads)
  flags = ("--xla_cpu_multi_thread_eigen=false", "intra_op_parallelism_threads=1") if threads == 1 else ()
  present = os.environ.get("XLA_FLAGS", "").split()
  os.environ["XLA_FLAGS"] = " ".join([*present, *(flag for flag in flags if flag not in present)])


@contextlib.contextmanager
def joined_processes(flags: Mapping[str, str]) -> Iterator[bool]:
  """The block as one of the processes of a run, if there are several; yields whether this is the first.

  flags: of the command line: --coordinator, --processes, --process
  """
  from sftrl_jax.parallel import hosts, peers
  try:
    hosts.join(flags)
  except ValueError as error:
    raise ConfigError(str(error)) from error
  if not hosts.several():
    yield True
    return
  fellows = peers.connect()
  try:
    yield hosts.is_first_process()
    hosts.wait()   # for the report
  except AbortAllProcesses:
    raise   # all do
  except Exception as error:
    if not isinstance(error, ConfigError):
      fellows.settle()
    atexit.register(_leave_now)   # the others are not waited for
    fellows.ended(1, str(error).partition("\n")[0][:300])
    raise
  finally:
    fellows.ended(0)


def _leave_now() -> None:
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(1)
