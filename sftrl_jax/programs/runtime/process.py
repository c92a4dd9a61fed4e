"""The process of a command: what JAX reads from the environment, and the processes of one run."""

import atexit
import contextlib
import glob
import importlib.util
import os
import resource
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sftrl_jax.programs.config.errors import AbortAllProcesses, ConfigError

ACCELERATORS = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*", "/dev/nvidia[0-9]*", "/dev/kfd")


def cpu_threads(config: Mapping[str, Any], overrides: Iterable[tuple[str, str]]) -> int:
  """mesh.cpu_threads of a config that is not checked yet. A value that is no number is 0 here; `resolve` refuses it.

  config: of a file or a workdir, unresolved
  overrides: ((dotted key, text), ...) of the command line
  """
  mesh = config.get("mesh", {})
  value = dict(overrides).get("mesh.cpu_threads", mesh.get("cpu_threads", 0) if isinstance(mesh, dict) else 0)
  return int(value) if str(value).isdecimal() else 0


def cores() -> int:
  """CPU cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> int:
  """The largest number of bytes of memory that this process has held at once."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == "darwin" else peak * 1024   # macOS counts bytes, Linux kibibytes


def is_alive(number: int) -> bool:
  """Whether this machine has a process with this number."""
  try:
    os.kill(number, 0)
  except ProcessLookupError:
    return False
  except PermissionError:   # it is alive and belongs to another user
    pass
  return True


def prepare_environment(threads: int) -> None:
  """Sets the environment that JAX reads when it is imported: CPU threads, quiet logs, no look-up of absent TPUs.

  threads: of XLA on the CPU; 0 changes nothing. 1 also turns off the thread pools that XLA uses inside one operation.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  # Where libtpu is installed for `sftrl plan` alone, JAX would look for TPUs, print errors and hold libtpu's lock.
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
  """Runs the block as one of the processes of a run, if there are several; yields whether this is the first one.

  flags: {flag: value} of the command line, of which it reads --coordinator, --processes and --process

  ConfigError for flags that do not fit together. An error that ends the block in one process ends all of them: this one
  sends its exit code to the others and does not wait for them. All of them raise AbortAllProcesses by themselves.
  """
  from sftrl_jax.parallel import hosts, peers
  try:
    hosts.join(flags)
  except ValueError as error:
    raise ConfigError(str(error)) from error
  if not hosts.several():
    yield True
    return
  peer_link = peers.connect()
  try:
    yield hosts.is_first_process()
    hosts.wait()   # until the first process has written the report
  except AbortAllProcesses:
    raise
  except Exception as error:
    if not isinstance(error, ConfigError):   # a collective may have failed because a peer died: then that is the news
      peer_link.settle()
    # At exit, jax.distributed would wait for peers that may never come: the process ends without its clean-up.
    atexit.register(_exit_at_once)
    peer_link.ended(1, str(error).partition("\n")[0][:300])
    raise
  finally:
    peer_link.ended(0)


def _exit_at_once() -> None:
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(1)
