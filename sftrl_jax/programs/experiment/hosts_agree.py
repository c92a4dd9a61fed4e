"""Whether the processes of a run are one run: the same config, code and data everywhere, and as many as the pod has."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import jax

from sftrl_jax.checkpoints.checksum import sha256
from sftrl_jax.parallel import hosts
from sftrl_jax.programs.config import user_files
from sftrl_jax.programs.config.errors import AbortAllProcesses
from sftrl_jax.programs.config.resolve import differences

PACKAGE = Path(__file__).parents[2]
WAY_OUT = {
    "code": "install the same revision on all of them (launch/tpu_setup.sh)",
    "files named by the config": "copy the same files to all of them",
    "data": "give all of them the same files of config.data.path",
    "versions": "install the same packages on all of them",
    "devices of a process": "start one process a host, and LOCAL_DEVICES alike"}


def check(config: dict, verb: str, data: dict, environment: Mapping[str, str]) -> None:
  """AbortAllProcesses unless all processes agree; nothing is written before.

  data: what data.json will hold, or {}
  environment: of this process, which names the hosts of a pod
  """
  if not hosts.several():
    return
  import jaxlib
  mine = {"config": {**config, "verb": verb}, "code": code(), "files named by the config": user_files.digests(config),
          "data": data.get("sha256", ""), "versions": [jax.__version__, jaxlib.__version__],
          "devices of a process": jax.local_device_count()}
  processes_with_devices = len({device.process_index for device in jax.devices()})
  problems = [*apart(hosts.gathered(mine)), *missing(hosts.count(), processes_with_devices, environment)]
  if problems and hosts.is_first_process():
    raise AbortAllProcesses("The processes of this run are not alike, so nothing began:\n  " + "\n  ".join(problems))
  if problems:
    raise AbortAllProcesses("The processes of this run are not alike; process 0 says in what.")


def apart(records: list[dict]) -> list[str]:
  """In what the processes differ, and which of them. records: one of each process, in order."""
  problems = []
  for process, record in enumerate(records):
    keys = [f"config.{key} is {first!r} in process 0, {here!r} in process {process}"
            for key, first, here in differences(records[0]["config"], record["config"])]
    problems += [f"{key}: give all of them the same command." for key in keys]
  for name, way_out in WAY_OUT.items():
    groups: dict[str, list[int]] = {}
    for process, record in enumerate(records):
      groups.setdefault(_short(record[name]), []).append(process)
    if len(groups) > 1:
      values = "; ".join(f"{value or 'none'} in {_named(members)}" for value, members in groups.items())
      problems.append(f"{name}: {values}: {way_out}.")
  return problems


def missing(processes: int, with_devices: int, environment: Mapping[str, str]) -> list[str]:
  """Whether hosts of the pod take no part."""
  names = [name for name in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if name]
  pod = len(names) * int(environment.get("MEGASCALE_NUM_SLICES") or 1)
  if len(names) > 1 and pod != processes:
    return [f"the pod has {pod} hosts, but {processes} processes run: start one on every host."]
  if with_devices != processes:
    return [f"{processes} processes run, but only {with_devices} of them have devices of the pod: start one on every "
            "host."]
  return []


def code(package: Path = PACKAGE) -> str:
  """A digest of the package's own text."""
  digest = hashlib.sha256()
  for path in sorted(package.rglob("*.py")):
    digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
  return digest.hexdigest()


def _short(value) -> str:
  if isinstance(value, dict):
    return sha256(value)[:12] if value else ""
  return value[:12] if isinstance(value, str) else str(value)


def _named(members: list[int]) -> str:
  return f"process{'es' if len(members) > 1 else ''} {', '.join(map(str, members))}"
