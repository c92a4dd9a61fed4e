"""Every number of every section: outside its range it is refused by its key; what is left is right by design."""

import dataclasses
import typing

import pytest

from sftrl_jax.data.mix import MixConfig
from sftrl_jax.objectives.sft import SFTConfig
from sftrl_jax.programs.config import values
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.config.resolve import build
from sftrl_jax.programs.experiment import sections
from sftrl_jax.programs.experiment.network.teacher import TeacherConfig
from sftrl_jax.training.algorithms import ALGORITHMS
from sftrl_jax.training.preference_objectives import OBJECTIVES

SECTIONS = {
    "model": sections.DecoderConfig, "lora": sections.LoraConfig, "rollout": sections.RolloutConfig,
    "evals": sections.EvalsConfig, "optimizer": sections.OptimizerConfig, "schedule": sections.ScheduleConfig,
    "compute": sections.ComputeConfig, "mesh": sections.MeshConfig, "checkpoint": sections.CheckpointConfig,
    "log": sections.LogConfig, "data": sections.DemonstrationsConfig, "rows": sections.RowsConfig,
    "mix": MixConfig, "ema": sections.EmaConfig,
    "pairs": sections.PairsConfig, "sampled pairs": sections.SampledPairsConfig, "sft": SFTConfig,
    "teacher": TeacherConfig,
    **{name: algorithm.section for name, algorithm in ALGORITHMS.items()},
    **{objective.key: objective.section for objective in OBJECTIVES.values()}}
# -1 is a choice: the remaining devices, the default of the watchdog, and a task's own number.
MINUS_ONE = {"mesh.data", "mesh.fsdp", "mesh.tensor", "log.watchdog_seconds", "evals.task_shots"}
MORE_THAN_0 = {  # 0 has no meaning there; everywhere else it switches something off, or is a number like others
    "model.width", "model.layers", "model.heads", "model.unroll", "model.norm_eps", "model.init_std",
    "model.rope_theta", "lora.alpha", "rollout.rows", "rollout.max_new_tokens", "rollout.temperature", "evals.episodes",
    "optimizer.learning_rate", "schedule.decay", "compute.microbatches", "compute.lengths", "checkpoint.keep",
    "log.every", "ppo.epochs", "ppo.minibatches", "ppo.clip", "ppo.kl_horizon", "grpo.group", "rloo.group",
    "reinforce_plus_plus.epochs", "reinforce_plus_plus.minibatches", "reinforce_plus_plus.clip",
    *(f"{name}.{key}" for name in ("self_sft", "dagger", "distill") for key in ("epochs", "minibatches")),
    "sft.minibatches", "sft.clip_high", "dpo.beta", "sampled pairs.pairs", "sampled pairs.heldout_pairs"}


def numbers():
  for name, section in SECTIONS.items():
    kinds = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
      kind = kinds[field.name]
      kind = int if kind == int | typing.Literal["auto"] else kind
      if kind in (int, float) or (typing.get_origin(kind) is tuple and typing.get_args(kind)[0] is float):
        yield name, section, field.name, kind


def refusal(name, section, field, value):
  needed = {other.name: 8 if other.name == "length" else "x" for other in dataclasses.fields(section)
            if other.name == "path" or
            other.default is dataclasses.MISSING and other.default_factory is dataclasses.MISSING}
  try:
    build(section, {**needed, field: value}, f"config.{name}")
  except ConfigError as error:
    return str(error)
  return ""


def test_a_negative_number_is_refused_by_its_key():
  for name, section, field, kind in numbers():
    value = -1 if kind is int else -1.0 if kind is float else (-1.0,)
    message = refusal(name, section, field, value)
    if f"{name}.{field}" in MINUS_ONE:
      assert not message or "only one of them may be -1" in message
    else:
      assert message.startswith(f"config.{name}.{field} is "), (name, field, message)


def test_a_0_without_a_meaning_is_refused_by_its_key():
  known = set()
  for name, section, field, kind in numbers():
    if f"{name}.{field}" in MORE_THAN_0:
      known.add(f"{name}.{field}")
      assert refusal(name, section, field, kind(0)).startswith(f"config.{name}.{field} is 0"), (name, field)
  assert known == MORE_THAN_0


@pytest.mark.parametrize("kind, bad", [(float, "nan"), (float, "inf"), (float, "-inf"), (float, "1e300"),
                                       (float, "1e-50"), (float, "x"), (int, "1.5"), (int, "nan"), (int, "1e12"),
                                       (int, "9" * 400)])
def test_what_no_number_of_a_device_is_is_refused_under_every_key(kind, bad):
  with pytest.raises(ValueError, match="^is .*but should be"):
    values.parse(bad, kind)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300, 1e-50, 10**400, True, "x", None])
def test_and_so_it_is_in_a_file(bad):
  with pytest.raises(ValueError, match="^is "):
    values.fit(bad, float)
  assert values.fit(0, float) == 0.0 and values.fit(1e-30, float) == 1e-30 == values.parse("1e-30", float)
