"""What of a run is trained and what is frozen: the model, or adapters on it; with a value head where one is learned.

A run of adapters checkpoints its adapters alone. WORKDIR/base.json records which start they were trained on, the step
in numbers, with a fingerprint of what is stored there: on another base adapters mean nothing.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from sftrl_jax import paths
from sftrl_jax.models import heads, lora as lora_layers
from sftrl_jax.parallel import rules
from sftrl_jax.programs.start import checkpoint_ref, initial_params, mix, pretrained
from sftrl_jax.programs.start.initial_params import (
    RECORD,
    abstract_params,
    abstract_with,
    adapter_base,
    param_shapes,
    start_and_fingerprint,
)
from sftrl_jax.training.log import write_json
from sftrl_jax.training.score import CRITIC


def full_params_fn(experiment: Any) -> Callable[[dict, dict], dict]:
  """(params, frozen) -> what an objective reads; see models/lora.py. experiment: an Experiment, from a higher floor."""
  full_params = functools.partial(lora_layers.whole, lora=experiment.lora)
  if experiment.teacher is None:
    return full_params
  return lambda params, frozen: {**full_params(params, frozen), "teacher": frozen["teacher"]}


def adapter_count(experiment: Any) -> int:
  """Numbers in a run's adapters, for its FLOPs; 0 where the model itself is trained."""
  lora = experiment.lora
  return lora_layers.count(lora, param_shapes(experiment.model)) if lora.rank else 0


def adapts_pictures(experiment: Any) -> bool:
  """Whether adapters stand in what reads pictures, so that its features have gradients."""
  return lora_layers.reads_pictures(experiment.lora, param_shapes(experiment.model)) if experiment.lora.rank else False


def init_trainable(experiment: Any, workdir: Path) -> tuple[dict, dict, dict]:
  """(the model at the start, the parameters that are trained, what is frozen) of a run, new or continued."""
  begins, trained, frozen = _init_trainable(experiment, workdir)
  teacher = {"teacher": experiment.teacher.load(experiment.mesh)} if experiment.teacher else {}
  return begins, trained, {**frozen, **teacher}


def _init_trainable(experiment: Any, workdir: Path) -> tuple[dict, dict, dict]:
  """The same without a teacher."""
  start, seed = experiment.start, experiment.seed
  if not experiment.lora.rank:
    params = initial_params.load_start(start, experiment.model, seed, experiment.mesh)
    return params, {"model": params, **_first_critic(experiment, params)}, {}
  peft = pretrained.adapters(start)
  if (workdir / RECORD).is_file() or any((workdir / "checkpoints").glob("[0-9]*")):
    params, _ = adapter_base(workdir, start, experiment.model, seed, experiment.mesh)
  else:
    pinned = _pinned_start(peft[0] if peft else start)
    params, fingerprint = start_and_fingerprint(pinned, experiment.model, seed, experiment.mesh)
    if jax.process_index() == 0:
      write_json(workdir / RECORD, {"start": pinned, "fingerprint": fingerprint})
  init, where = _adapters(experiment)
  if peft:
    adapters = jax.device_put({"lora": pretrained.read_adapters(start, peft[1], experiment.model.config)}, where)
  else:
    adapters = jax.jit(init, out_shardings=where)(jax.random.key(seed))
  begins = params
  if peft and reads_start(experiment):   # else it would be a second copy of the model that nobody reads
    begins = initial_params.load_start(start, experiment.model, seed, experiment.mesh)
  return begins, {**adapters, **_first_critic(experiment, params)}, {"model": params}


def reads_start(experiment: Any) -> bool:
  """Whether a run keeps the parameters that it began with: to measure how far it has come from them, or to play."""
  objective = experiment.objective
  compared = objective is not None and objective.reads_start(experiment.objective_config)
  return bool(measures_kl(experiment) or compared or experiment.reads_reference or experiment.samples_from_start)


def measures_kl(experiment: Any) -> bool:
  """Whether evaluations measure the KL to the start."""
  evals = experiment.evals
  return bool(evals.variants and evals.kl and 1.0 in evals.temperatures)


def abstract_trainable(experiment: Any) -> tuple[dict, dict, dict]:
  """`init_trainable` as shapes with shardings, nothing loaded: for who compiles what cannot run here."""
  params = abstract_params(experiment.model, experiment.mesh)
  value = critic_shapes(experiment)
  value = abstract_with(value, rules.shardings(value, experiment.mesh))
  teacher = {"teacher": experiment.teacher.abstract(experiment.mesh)} if experiment.teacher else {}
  if not experiment.lora.rank:
    return params, {"model": params, **value}, teacher
  init, where = _adapters(experiment)
  adapters = abstract_with(jax.eval_shape(init, jax.random.key(0)), where)
  return params, {**adapters, **value}, {"model": params, **teacher}


def _adapters(experiment):
  """(key -> {"lora": ...}, its shardings)."""
  init = lambda key: {"lora": lora_layers.init(experiment.lora, param_shapes(experiment.model), key)}
  return init, rules.shardings(jax.eval_shape(init, jax.random.key(0)), experiment.mesh)


def value_head(experiment: Any) -> dict:
  """{"value": parameters} at the start of a run that trains a value function or a reward model, else {}."""
  layers = experiment.head_layers
  return {} if layers is None else {"value": heads.init(experiment.model.config.width, layers, experiment.seed)}


def critic_shapes(experiment: Any) -> dict:
  """The shapes of what a run trains beside its model or adapters: a head, and a critic's own trunk where it has one."""
  trunk = {CRITIC: {"model": param_shapes(experiment.model)}} if experiment.has_own_critic else {}
  return {**jax.eval_shape(lambda: value_head(experiment)), **trunk}


def _first_critic(experiment: Any, start: dict) -> dict:
  """The parameters of `critic_shapes` at the start of a run. Where the critic begins as a reward model, the head is its
  score head, and a trunk of its own the reward model's; else that is `start`, the policy's."""
  reward, mesh = experiment.reward_model, experiment.mesh
  rewarded = reward is not None and reward.config.critic
  head = {"value": reward.value_head(mesh)} if rewarded else value_head(experiment)
  if not experiment.has_own_critic:
    return head
  return {**head, CRITIC: {"model": reward.load(mesh)[0]["model"] if rewarded else start}}


def _pinned_start(start: str) -> str:
  """config.start as it can be found again: a directory from the root, a workdir with its step in numbers."""
  if mixed := mix.parse(start):
    return str(mixed._replace(first=_pinned_start(mixed.first), second=_pinned_start(mixed.second)))
  home = checkpoint_ref.home_of(start)
  if start in ("", "scratch") or not home.exists():
    return start
  if not checkpoint_ref.is_workdir(home):
    return str(Path(start).absolute())
  description = checkpoint_ref.describe_start(start)
  ref = checkpoint_ref.parse(start, description)
  step = checkpoint_ref.steps_of(home, description)[-1] if ref.step is None else ref.step
  return str(dataclasses.replace(ref, home=paths.absolute(home), step=step))
