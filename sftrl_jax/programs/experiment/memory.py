"""Whether a run can fit the memory of its devices, by what it holds all the time: refused before anything is loaded.

And the most that a process has held.
"""

import math
import os
from pathlib import Path

import jax

from sftrl_jax.models import cache, lora as adapters
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.learner import Learner
from sftrl_jax.programs.runtime import process
from sftrl_jax.programs.start.initial_params import param_shapes
from sftrl_jax.programs.start.trainable import critic_shapes
from sftrl_jax.training.score import CRITIC

LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))   # of a container
ARRAYS_OF_A_ROW = 5   # of 4 bytes a token: ids, positions, segments, targets, weights


def refuse_larger(experiment: Experiment, learner: Learner) -> None:
  """ConfigError, with the numbers and the key of the largest part, where a run holds more than its devices have.

  Activations are not counted, so what passes may still be too large: `sftrl plan` compiles and counts them.
  """
  limit, parts = available(experiment), held(experiment, learner)
  total = sum(parts.values())
  if limit and total > limit:
    largest = "parameters" if parts["parameters"] > limit else max(parts, key=parts.get)
    lines = ", ".join(f"{part} {size / 2**30:,.1f}" for part, size in parts.items())
    raise ConfigError(f"config.{KEYS[largest]} makes this run too large: it holds {total / 2**30:,.1f} GiB ({lines}) "
                      f"besides its activations, but its devices ({experiment.mesh.size}) have "
                      f"{limit / 2**30:,.1f} GiB: {WAYS_OUT[largest]}.")


KEYS = {"parameters": "model", "optimizer state": "optimizer.name", "gradients": "model",
        "reward model": "reward_model.start", "reference": "reward_model.start", "teacher": "teacher.start",
        "cache of a rollout": "rollout.rows", "batch": "batch"}
WAYS_OUT = {
    "parameters": "use a smaller model, or more devices (config.mesh)",
    "gradients": "use a smaller model, or adapters (config.lora.rank)",
    "optimizer state": "use one with less state (--config.optimizer.name=help), or adapters (config.lora.rank)",
    "reward model": "use a smaller one, or more devices (config.mesh)",
    "teacher": "use a smaller one, or more devices (config.mesh)",
    "reference": "use adapters (config.lora.rank), whose frozen model is the reference too, or more devices "
                 "(config.mesh)",
    "cache of a rollout": "lower config.rollout.rows, prompt_tokens or max_new_tokens",
    "batch": "lower config.batch or config.data.length"}


def held(experiment: Experiment, learner: Learner) -> dict[str, int]:
  """Bytes of what a run holds over all devices: {part: bytes}."""
  model, rollout, length = experiment.model, experiment.actor.rollout, learner.length
  params = param_shapes(model)
  trained = {"model": params}
  if experiment.lora.rank:
    trained = {"lora": jax.eval_shape(lambda key: adapters.init(experiment.lora, params, key), jax.random.key(0))}
  critic = critic_shapes(experiment)
  trained |= critic
  plays = experiment.algorithm or experiment.evals.variants
  turns = range(experiment.actor.turns) if plays else ()
  longest = max((experiment.actor.cache_len(turn) for turn in turns), default=0)
  kept = jax.eval_shape(lambda: cache.empty(model.config, rollout.rows, longest)) if longest else ()
  beside = _bytes(trained) if experiment.lora.rank else _bytes(critic.get(CRITIC, {}))
  parts = {"parameters": _bytes(params) + beside,
           "optimizer state": _bytes(jax.eval_shape(learner.optimizer.init, trained)), "gradients": _bytes(trained),
           "cache of a rollout": _bytes(kept),
           "batch": learner.rows * 4 * (length * ARRAYS_OF_A_ROW + experiment.prefix_tokens)}
  if experiment.teacher is not None:
    parts["teacher"] = _bytes(experiment.teacher.abstract(experiment.mesh))
  if experiment.reward_model is None:
    return parts
  reference = 0 if experiment.lora.rank else _bytes(params)   # where nothing is frozen, the start is a second model
  return {**parts, "reward model": _bytes(experiment.reward_model.abstract(experiment.mesh)), "reference": reference}


def _bytes(tree) -> int:
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def available(experiment: Experiment) -> int:
  """Bytes of memory of all devices of the mesh; 0 where it is not known."""
  devices = list(experiment.mesh.devices.flat)
  if devices[0].platform == "cpu":
    return _of_host()
  if jax.process_count() > 1:   # other processes' devices are like those here
    return len(devices) * _of_device(jax.local_devices()[0])
  return sum(_of_device(device) for device in devices)


def peak_gib() -> float:
  """The most that the fullest device of this process has held, in GiB; of the process itself, since it began, where
  devices do not say, as on CPUs."""
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  peaks = [stat["peak_bytes_in_use"] for stat in stats if "peak_bytes_in_use" in stat]
  return max(peaks, default=process.peak_memory()) / 2**30


def _of_device(device: jax.Device) -> int:
  return (device.memory_stats() or {}).get("bytes_limit", 0)


def _of_host() -> int:
  """Bytes that processes of this machine, or of this container, may use at most."""
  try:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  except (AttributeError, ValueError, OSError):
    return 0
  limits = [int(text) for path in LIMITS if path.is_file() and (text := path.read_text().strip()).isdecimal()]
  return min([total, *limits])
