"""Several processes as one run: how they find one another, and how they agree.

Every process runs the same program. What they say to one another besides arrays (decisions, episodes, verdicts of the
first process) is JSON through the coordination service of jax.distributed: no device waits for it and nothing compiles.
One process needs none of this, and every function here is then what it would be without it.
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
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from sftrl_jax.parallel import mesh as meshes

NAMES = {"coordinator": "SFTRL_COORDINATOR", "processes": "SFTRL_PROCESSES", "process": "SFTRL_PROCESS"}
HEARTBEAT = 10   # seconds without a sign of life until the coordination service ends every process
PATIENCE = 24 * 3600 * 1000   # milliseconds: whoever is waited for is alive, or peers.py ends this process
_turns = itertools.count()   # of `gathered`: every process counts alike


@dataclasses.dataclass(frozen=True)
class Seat:
  """Which of how many processes this one is, and where the first of them listens."""

  coordinator: str
  processes: int
  process: int


def seat(flags: Mapping[str, str], environment: Mapping[str, str]) -> Seat | None:
  """What --coordinator, --processes and --process say, or the environment in their stead; None where nothing does."""
  said = {name: flags.get(f"--{name}") or environment.get(variable, "") for name, variable in NAMES.items()}
  given = [name for name in said if said[name]]
  called = lambda names: ", ".join(f"--{name} ({NAMES[name]})" for name in names)
  if not given or (given == ["processes"] and said["processes"] == "1"):
    return None
  if len(given) < len(said):
    raise ValueError(f"{called(given)} is given, but not {called(name for name in said if name not in given)}: several "
                     "processes need all three, and one process none.")
  for name in ("processes", "process"):
    if not said[name].isdecimal():
      raise ValueError(f"{called([name])} is {said[name]!r}; it must be a whole number.")
  processes, process = int(said["processes"]), int(said["process"])
  host, _, port = said["coordinator"].rpartition(":")
  if not host or not port.isdecimal():
    raise ValueError(f"{called(['coordinator'])} is {said['coordinator']!r}; it must be HOST:PORT of process 0.")
  if not 0 <= process < processes:
    raise ValueError(f"{called(['process'])} is {process}; with {processes} processes it must be from 0 to "
                     f"{processes - 1}.")
  return Seat(said["coordinator"], processes, process)


def join(flags: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> None:
  """Takes this process's seat, before any device is asked for. On a TPU pod or GKE jax.distributed finds the others."""
  local = environment.get("LOCAL_DEVICES", "")
  if local:
    if not local.isdecimal() or not int(local):
      raise ValueError(f"LOCAL_DEVICES is {local!r}; it must be the number of pretended CPU devices of a process.")
    jax.config.update("jax_num_cpu_devices", int(local))
  taken = seat(flags, environment)
  if taken is not None and taken.processes > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(taken.coordinator, taken.processes, taken.process, heartbeat_timeout_seconds=HEARTBEAT)
  elif taken is None and _on_tpu(environment):
    jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)


def _on_tpu(environment: Mapping[str, str]) -> bool:
  """Whether JAX will look for TPUs on this machine, and find some."""
  asked = environment.get("JAX_PLATFORMS", "tpu").split(",")
  chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
  return "tpu" in asked and bool(chips) and importlib.util.find_spec("libtpu") is not None


def _state():
  from jax._src import distributed  # what orbax reads too: JAX shows the coordination service nowhere else
  return distributed.global_state


def several() -> bool:
  return jax.distributed.is_initialized() and _state().num_processes > 1


def index() -> int:
  return _state().process_id if jax.distributed.is_initialized() else 0


def count() -> int:
  return _state().num_processes if jax.distributed.is_initialized() else 1


def is_first_process() -> bool:
  """Whether this is the process that alone writes files which all share."""
  return index() == 0


def coordinator() -> str:
  """Where the first process is."""
  return _state().coordinator_address.rpartition(":")[0].strip("[]")


def gathered(value: Any) -> list:
  """What every process gives here, in their order; anything that JSON holds. All must come by."""
  if not several():
    return [value]
  client, turn = _state().client, next(_turns)
  key = lambda number, process: f"sftrl/{number}/{process}"
  client.key_value_set_bytes(key(turn, index()), json.dumps(value).encode())
  client.wait_at_barrier(key(turn, "all"), PATIENCE)
  found = {name.rpartition("/")[2]: text for name, text in client.key_value_dir_get_bytes(f"sftrl/{turn}/")}
  if turn:   # everybody has read the turn before: all have come by here
    client.key_value_delete(key(turn - 1, index()))
  return [json.loads(found[str(process)]) for process in range(count())]


def any_process(mine: bool) -> bool:
  """Whether it holds in any process."""
  return any(gathered(bool(mine)))


def led_by_first(make: Callable[[], Any]) -> Any:
  """make() in the first process alone; its answer, which JSON holds, in all. A ValueError there is one everywhere."""
  if not several():
    return make()
  answer, told = None, ""
  if is_first_process():
    try:
      answer = make()
    except ValueError as error:
      answer, told = error, str(error).partition("\n")[0]
  said = gathered([None, told] if told else [answer, ""])[0]
  if isinstance(answer, ValueError):
    raise answer
  if said[1]:
    raise ValueError(f"Process 0 has refused this run: {said[1]}")
  return said[0]


@functools.cache   # the handler is there to be taken once
def preemption() -> tuple[Callable[[], None], Callable[[int], bool]]:
  """(tell the preemption service of JAX that a signal has come; whether a numbered point is where all are to stop).

  The service hears SIGTERM by a handler in C, which Python's would displace: it is taken over, and called by `tell`.
  """
  libc = ctypes.CDLL(None)
  libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
  theirs = libc.signal(signal.SIGTERM, signal.SIG_DFL)
  if theirs in (None, int(signal.SIG_DFL), int(signal.SIG_IGN)):
    libc.signal(signal.SIGTERM, theirs)
    raise RuntimeError("The preemption service of JAX does not hear SIGTERM: leave jax_enable_preemption_service on.")
  handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(theirs)
  return lambda: handler(signal.SIGTERM), multihost_utils.reached_preemption_sync_point


def wait() -> None:
  """Until all processes are here."""
  gathered(None)


def whole_arrays(tree):
  """Global arrays of which this process may hold only a part, fetched. All processes must ask for them."""
  return jax.device_get(tree) if not several() else multihost_utils.process_allgather(tree, tiled=True)


def own_rows(tree):
  """The rows of global arrays that lie on this process's devices, each in its place; zeros elsewhere."""
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
  """Which rows of a global array the processes make.

  blocks: of every process, the parts of the rows that its devices hold; `parts` there are in all
  """

  parts: int
  blocks: tuple[tuple[int, ...], ...]

  def slots(self, rows: int, process: int | None = None) -> list[int]:
    """The rows of a process, of so many in all; without a number this process's."""
    size = rows // self.parts
    return [block * size + row for block in self.blocks[index() if process is None else process] for row in range(size)]

  def first(self, process: int | None = None) -> bool:
    """Whether no process before it makes the same rows."""
    process = index() if process is None else process
    return self.blocks.index(self.blocks[process]) == process


def share(mesh: Mesh) -> Share:
  """Of arrays that are split by rows. ValueError where two processes would share some of their rows but not all."""
  if not several():
    return Share(1, ((0,),))
  parts = meshes.rows(mesh)
  held: list[set] = [set() for _ in range(count())]
  for device, (place,) in meshes.by_rows(mesh).devices_indices_map((parts,)).items():
    held[device.process_index].update(range(parts)[place])
  blocks = tuple(tuple(sorted(some)) for some in held)
  if any(set(one) & set(other) and one != other for one, other in itertools.combinations(blocks, 2)):
    raise ValueError(f"config.mesh is {dict(mesh.shape)}, which splits rows over {count()} processes unevenly "
                     f"({', '.join(map(str, blocks))}): make config.mesh.tensor a divisor or a multiple of the devices "
                     "of a process.")
  return Share(parts, blocks)
