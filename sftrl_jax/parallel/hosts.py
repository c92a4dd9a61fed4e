"""Several processes as one run: how they connect, and how they agree.

Every process runs the same program. Besides arrays they exchange JSON (decisions, episodes, results of the first
process) through the coordination service of jax.distributed, which blocks no device and compiles nothing. In a run of
one process every function here returns at once.
"""

import ctypes
import dataclasses
import functools
import glob
import importlib.util
import itertools
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # as orbax does: JAX has no public access to the coordination service
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from sftrl_jax.parallel.mesh import by_rows, rows

NAMES = {"coordinator": "SFTRL_COORDINATOR", "processes": "SFTRL_PROCESSES", "process": "SFTRL_PROCESS"}
HEARTBEAT = 10   # seconds without a sign of life until the coordination service ends every process
TIMEOUT = 24 * 3600 * 1000   # milliseconds; so long, because peers.py ends this process if one that it waits for dies
_calls = itertools.count()   # of `gathered`: the same numbers in every process


@dataclasses.dataclass(frozen=True)
class ProcessInfo:
  """The address of process 0, the number of processes, and the index of this one."""

  coordinator: str
  processes: int
  process: int


def process_info(flags: Mapping[str, str], environment: Mapping[str, str]) -> ProcessInfo | None:
  """The values of --coordinator, --processes and --process, else of the environment; None if none is set.

  ValueError for a value that cannot be, and where only some of the three are set.
  """
  values = {name: flags.get(f"--{name}") or environment.get(variable, "") for name, variable in NAMES.items()}
  present = [name for name in values if values[name]]
  flag_of = lambda *names: ", ".join(f"--{name} ({NAMES[name]})" for name in names)
  if not present or (present == ["processes"] and values["processes"] == "1"):
    return None
  if len(present) < len(values):
    missing = [name for name in values if name not in present]
    raise ValueError(f"{flag_of(*present)} is given, but not {flag_of(*missing)}: several processes need all three, "
                     "and one process none.")
  for name in ("processes", "process"):
    if not values[name].isdecimal():
      raise ValueError(f"{flag_of(name)} is {values[name]!r}; it must be a whole number.")
  processes, process = int(values["processes"]), int(values["process"])
  host, _, port = values["coordinator"].rpartition(":")
  if not host or not port.isdecimal():
    raise ValueError(f"{flag_of('coordinator')} is {values['coordinator']!r}; it must be HOST:PORT of process 0.")
  if not 0 <= process < processes:
    raise ValueError(f"{flag_of('process')} is {process}; with {processes} processes it must be from 0 to "
                     f"{processes - 1}.")
  return ProcessInfo(values["coordinator"], processes, process)


def join(flags: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> None:
  """Connects this process to the others; must run before JAX lists devices. On a TPU pod or GKE jax.distributed finds
  the other processes without flags."""
  local = environment.get("LOCAL_DEVICES", "")
  if local:
    if not local.isdecimal() or not int(local):
      raise ValueError(f"LOCAL_DEVICES is {local!r}; it must be the number of simulated CPU devices of a process.")
    jax.config.update("jax_num_cpu_devices", int(local))
  info = process_info(flags, environment)
  if info is not None and info.processes > 1:
    if not info.process:
      _refuse_taken(info.coordinator)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(info.coordinator, info.processes, info.process, heartbeat_timeout_seconds=HEARTBEAT)
  elif info is None and _on_tpu(environment):
    jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)


def _refuse_taken(coordinator: str) -> None:
  """ValueError if this machine cannot listen at the port, of which jax.distributed would die by SIGSEGV."""
  port = int(coordinator.rpartition(":")[2])
  with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)   # what closed connections have left is no matter
    try:
      probe.bind(("", port))
    except (OSError, OverflowError) as error:
      raise ValueError(f"--coordinator ({NAMES['coordinator']}) is {coordinator!r}, but this process cannot listen at "
                       f"port {port}: {getattr(error, 'strerror', None) or error}. End what listens there (ss -tlnp), "
                       "or give all processes another port.") from error


def _on_tpu(environment: Mapping[str, str]) -> bool:
  """Whether JAX may use TPUs, and this machine has some."""
  platforms = environment.get("JAX_PLATFORMS", "tpu").split(",")
  chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
  return "tpu" in platforms and bool(chips) and importlib.util.find_spec("libtpu") is not None


def several() -> bool:
  """Whether the run has more than one process."""
  return jax.distributed.is_initialized() and distributed.global_state.num_processes > 1


def index() -> int:
  """The index of this process, from 0."""
  return distributed.global_state.process_id if jax.distributed.is_initialized() else 0


def count() -> int:
  """The number of processes."""
  return distributed.global_state.num_processes if jax.distributed.is_initialized() else 1


def is_first_process() -> bool:
  """Whether this is process 0, which alone writes files that all processes share."""
  return index() == 0


def coordinator() -> str:
  """The host name or address of process 0."""
  return distributed.global_state.coordinator_address.rpartition(":")[0].strip("[]")


def gathered(value: Any) -> list:
  """The values of all processes, in their order; anything that JSON holds. A collective call: all must make it."""
  if not several():
    return [value]
  client, call = distributed.global_state.client, next(_calls)
  key = lambda number, process: f"sftrl/{number}/{process}"
  client.key_value_set_bytes(key(call, index()), json.dumps(value).encode())
  client.wait_at_barrier(key(call, "all"), TIMEOUT)
  texts = {name.rpartition("/")[2]: text for name, text in client.key_value_dir_get_bytes(f"sftrl/{call}/")}
  if call:   # behind this barrier every process has read the values of the call before
    client.key_value_delete(key(call - 1, index()))
  return [json.loads(texts[str(process)]) for process in range(count())]


def any_process(value: bool) -> bool:
  """Whether the value is true in any process. A collective call."""
  return any(gathered(bool(value)))


def led_by_first(make: Callable[[], Any]) -> Any:
  """make() in process 0 alone; all processes return its result, which JSON must hold. A collective call.

  If make() raises ValueError, all processes do: the others with the first line of the message.
  """
  if not several():
    return make()
  result, error, message = None, None, ""
  if is_first_process():
    try:
      result = make()
    except ValueError as raised:
      error, message = raised, str(raised).partition("\n")[0] or "ValueError"
  result, message = gathered([result, message])[0]
  if error is not None:
    raise error
  if message:
    raise ValueError(f"Process 0 has refused this run: {message}")
  return result


@functools.cache   # the handler can be replaced only once
def preemption() -> tuple[Callable[[], None], Callable[[int], bool]]:
  """(notify, reached): notify() reports a SIGTERM to JAX's preemption service; reached(step) is whether all processes
  are to stop at this step.

  The service listens for SIGTERM with a handler in C, which Python's own handler would replace. So the C handler is
  taken out here, and `notify` calls it.
  """
  libc = ctypes.CDLL(None)
  libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
  address = libc.signal(signal.SIGTERM, signal.SIG_DFL)
  if address in (None, int(signal.SIG_DFL), int(signal.SIG_IGN)):
    libc.signal(signal.SIGTERM, address)
    raise RuntimeError("The preemption service of JAX does not hear SIGTERM: leave jax_enable_preemption_service on.")
  handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(address)
  return lambda: handler(signal.SIGTERM), multihost_utils.reached_preemption_sync_point


def wait() -> None:
  """Blocks until all processes call it."""
  gathered(None)


def whole_arrays(tree: Any) -> Any:
  """Global arrays as NumPy arrays, whole in every process. A collective call."""
  return jax.device_get(tree) if not several() else multihost_utils.process_allgather(tree, tiled=True)


def own_rows(tree: Any) -> Any:
  """Global arrays as NumPy arrays of full shape, with the rows of this process's devices and zeros elsewhere."""
  if not several():
    return jax.device_get(tree)
  return jax.tree.map(_own, tree)


def _own(array) -> np.ndarray:
  if array.is_fully_addressable or array.is_fully_replicated:
    return np.asarray(array)
  full = np.zeros(array.shape, array.dtype)
  for shard in array.addressable_shards:
    full[shard.index] = shard.data
  return full


@dataclasses.dataclass(frozen=True)
class Share:
  """Which rows of a global array each process computes on the host.

  parts: the number of parts that rows are split into
  blocks: for each process, the parts that its devices hold
  """

  parts: int
  blocks: tuple[tuple[int, ...], ...]

  def slots(self, rows: int, process: int | None = None) -> list[int]:
    """The indices of a process's rows, of `rows` in all; process: None for this one."""
    size = rows // self.parts
    return [block * size + row for block in self.blocks[index() if process is None else process] for row in range(size)]


def share(mesh: Mesh) -> Share:
  """The Share of arrays that are split by rows. ValueError where two processes would share some rows but not all."""
  if not several():
    return Share(1, ((0,),))
  parts = rows(mesh)
  held: list[set] = [set() for _ in range(count())]
  for device, (part,) in by_rows(mesh).devices_indices_map((parts,)).items():
    held[device.process_index].update(range(parts)[part])
  blocks = tuple(tuple(sorted(block)) for block in held)
  if any(set(left) & set(right) and left != right for left, right in itertools.combinations(blocks, 2)):
    raise ValueError(f"config.mesh is {dict(mesh.shape)}, which splits rows over {count()} processes unevenly "
                     f"({', '.join(map(str, blocks))}): make config.mesh.tensor a divisor or a multiple of the devices "
                     "of a process.")
  return Share(parts, blocks)
