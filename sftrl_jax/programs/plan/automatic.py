"""compute.microbatches="auto" and model.remat="auto": the fastest values whose train step fits the devices' memory.

Candidates go from fast to lean. remat: none, light, full. For each, microbatches: on accelerators 1, 2, 4, ..., as long
as a device has at least TOKENS tokens of a microbatch: with fewer, all-gathers of the parameters take longer than the
products (197e12 FLOP/s / 200e9 bytes/s of a v5e are 985 FLOPs a byte, and each token has a FLOP for each byte). Only
the last remat goes further. On CPUs they begin where a microbatch has at most CACHE_TOKENS tokens, whose activations
stay in the caches: the update of a small GRPO takes 2.7 to 3.3, 2.05 and 1.89 s in microbatches of 8,192, 2,048 and 512
tokens on two cores. A timing of candidates would make two runs of one config differ in rounding; this rule does not.
The first candidate whose train step fits by the compiler's count is taken, so the usual cost is one compilation, of the
program that the run needs anyway. Memory falls with the number of microbatches, so the search of a remat tries its
first and last number and then halves: at most 2 x 3 compilations and the halvings of one.
A run that resumes takes the values that its workdir has recorded. All processes take the same candidate, which has to
fit on each.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sftrl_jax import models
from sftrl_jax.parallel import hosts, mesh as meshes
from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.config import automatic, nested
from sftrl_jax.programs.config.automatic import MICROBATCHES, REMAT
from sftrl_jax.programs.config.errors import ConfigError, recorded
from sftrl_jax.programs.experiment import hosts_agree, memory
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.plan import topology, tpu_slice
from sftrl_jax.programs.plan.topology import Slice

TOKENS = 1024         # of a microbatch on an accelerator
CACHE_TOKENS = 512   # of a microbatch on a CPU device
SHARE, CPU_SHARE = 0.9, 0.5   # of memory that a train step may take; a CPU's memory is for other programs too
Candidate = tuple[str, int]   # (remat, microbatches)


def settle(config: ConfigDict, verb: str, workdir: Path | None = None, where: Slice | None = None) -> ConfigDict:
  """The config with a value for each "auto"; the config itself if there is none. Prints what is chosen, and why.

  workdir: of a run, whose recorded values are taken if it has begun
  where: the slice to choose for; None for the devices that are here

  ConfigError where even the leanest candidate does not fit an accelerator.
  """
  keys = automatic.asked(config)
  if not any(hosts.gathered(keys)):
    return config
  hosts_agree.check(nested.plain(config), verb, {}, os.environ)   # else they would not search alike
  say = lambda line: print(line, flush=True) if hosts.is_first_process() else None
  values, reason = _recorded(workdir, keys), f"as recorded in {workdir}"
  if not values:
    experiment = build_experiment(config, verb, workdir, topology.devices(where) if where else None)
    values, reason = _fitting(experiment, config, keys, where, say), "the first that fits"
  for key in keys:
    say(f"config.{key}=auto: {values[key]}, {reason}")
  return ConfigDict(automatic.with_values(config, values)).lock()


def search(groups: Sequence[Sequence[Candidate]], fits: Callable[[Candidate], bool]) -> Candidate | None:
  """The first candidate of the first group that has one that fits; None where none does.

  groups: candidates whose memory falls within a group
  """
  for group in groups:
    if fits(group[0]):
      return group[0]
    if len(group) == 1 or not fits(group[-1]):
      continue
    refused, accepted = 0, len(group) - 1
    while accepted - refused > 1:
      middle = (refused + accepted) // 2
      refused, accepted = (refused, middle) if fits(group[middle]) else (middle, accepted)
    return group[accepted]
  return None


def candidates(remats: Sequence[str], counts: Sequence[int], tokens: int, on_cpu: bool) -> list[list[Candidate]]:
  """A group for each remat, of ascending numbers of microbatches. tokens: of an update on one device."""
  if on_cpu:
    first = next((index for index, count in enumerate(counts) if tokens // count <= CACHE_TOKENS), len(counts) - 1)
    return [[(remat, count) for count in counts[first:]] for remat in remats]
  enough = [count for count in counts if tokens // count >= TOKENS] or counts[:1]
  return [[(remat, count) for count in (counts if remat == remats[-1] else enough)] for remat in remats]


def _fitting(experiment: Experiment, config: ConfigDict, keys: tuple[str, ...], where: Slice | None,
             say: Callable[[str], None]) -> dict[str, str | int]:
  """The values of the first candidate that fits."""
  on_cpu = where is None and experiment.mesh.devices.flat[0].platform == "cpu"
  limit, learner = _limit(experiment, where, on_cpu), KINDS[experiment.verb].make_learner(experiment)
  shards = meshes.rows(experiment.mesh)
  remats = automatic.REMATS if REMAT in keys else (experiment.model.config.remat,)
  counts = (automatic.counts(automatic.rows_of_update(experiment.config), shards) if MICROBATCHES in keys else
            [experiment.compute.microbatches])
  whole_groups = [count for count in counts if _with(experiment, count).shared_prompts]
  tokens = learner.minibatch * learner.length // shards
  groups = candidates(remats, whole_groups or counts, tokens, on_cpu)
  if whole_groups and whole_groups[-1] < counts[-1]:   # the leanest compute each row with its own prompt
    groups += candidates(remats[-1:], counts[counts.index(whole_groups[-1]) + 1 :], tokens, on_cpu)
  def fits(candidate: Candidate) -> bool:
    peak, fits_here = _peak(experiment, *candidate, limit)
    fits_all = all(hosts.gathered(fits_here))
    say(f"  model.remat={candidate[0]}, compute.microbatches={candidate[1]}: the train step takes {peak / GIB:.3f} of "
        f"{limit / GIB:.3f} GiB{', fits' if fits_all else ''}")
    return fits_all

  chosen = search(groups, fits)
  if chosen is None and not on_cpu:
    raise ConfigError(f"config.{' and config.'.join(keys)} can be 'auto' only if some choice fits, but the leanest, "
                      f"{dict(zip((REMAT, MICROBATCHES), groups[-1][-1], strict=True))}, takes more than "
                      f"{limit / GIB:.2f} GiB a device: lower config.batch, use adapters (config.lora.rank), or more "
                      "devices (config.mesh).")
  remat, count = chosen or groups[-1][-1]
  values = {MICROBATCHES: count, REMAT: remat}
  return {key: values[key] for key in keys}


def _peak(experiment: Experiment, remat: str, microbatches: int, limit: float) -> tuple[float, bool]:
  """(bytes that a train step of this candidate takes on a device, whether they fit)."""
  model = models.build(dataclasses.replace(experiment.model.config, remat=remat), experiment.model.ids)
  model = dataclasses.replace(model, exact=experiment.model.exact)
  experiment = dataclasses.replace(_with(experiment, microbatches), model=model)
  function = next(tpu_slice.compile_functions(experiment, ("train step",)))
  return function.peak, not function.oom and function.peak <= limit


def _with(experiment: Experiment, microbatches: int) -> Experiment:
  return dataclasses.replace(experiment, compute=dataclasses.replace(experiment.compute, microbatches=microbatches))


def _limit(experiment: Experiment, where: Slice | None, on_cpu: bool) -> float:
  """Bytes that a train step may take on a device; infinite where its memory is not known."""
  if where is not None:
    return SHARE * where.chip.hbm_gib * GIB
  available = memory.available(experiment) / experiment.mesh.size
  return (CPU_SHARE if on_cpu else SHARE) * available if available else float("inf")


def _recorded(workdir: Path | None, keys: tuple[str, ...]) -> dict[str, str | int]:
  """The values of keys in the config that the workdir records, as process 0 reads it; {} where no run has begun."""
  values = {}
  if workdir is not None and hosts.is_first_process() and (workdir / "config.json").is_file():
    config = {}
    with contextlib.suppress(ConfigError):   # of a damaged file, which the run itself reports in all processes
      config = recorded(workdir)
    values = {key: config.get(key.split(".")[0], {}).get(key.split(".")[1]) for key in keys}
  values = hosts.gathered(values)[0]
  return values if all(values.get(key) is not None for key in keys) else {}
