"""The families of Hugging Face checkpoints: for each a table of names, and config.json in both directions.

A family's file in known/ holds ARCHITECTURE, NAMES (our parameter path -> their tensor), DEFAULTS (the values of keys that
config.json omits), describe (config.json -> DecoderConfig) and written (DecoderConfig -> config.json).
"""

import dataclasses
import math
from types import ModuleType

from sftrl_jax.checkpoints.families.keys import Keys
from sftrl_jax.checkpoints.families.known import (
    gemma2,
    gemma3,
    granite,
    llama,
    mistral,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    smollm3,
)
from sftrl_jax.models import DecoderConfig

# In the order in which `of` tries them.
FAMILIES = {"llama": llama, "mistral": mistral, "qwen2": qwen2, "qwen3": qwen3, "gemma3_text": gemma3,
            "gemma2": gemma2, "smollm3": smollm3, "phi3": phi3, "olmo2": olmo2, "granite": granite}
# Fields of DecoderConfig that say how a model is run or initialised, not what it computes.
NOT_COMPUTED = ("dtype", "attention", "remat", "unroll", "init_std", "context")


def named(values: dict, where: str) -> ModuleType:
  """The family of a config.json; ValueError for an unknown one."""
  name = values.get("model_type")
  if name == "gemma3":
    raise ValueError(f"{where}: model_type is 'gemma3', which takes images; of Gemma 3 only the text models are known "
                     "(gemma3_text: 270m and 1b).")
  if not isinstance(name, str) or name not in FAMILIES:
    raise ValueError(f"{where}: model_type is {name!r}, an unknown architecture; known: {', '.join(FAMILIES)}.")
  return FAMILIES[name]


def describe(values: dict, where: str = "config.json") -> DecoderConfig:
  """The model of the values of a config.json."""
  family = named(values, where)
  try:
    return family.describe(Keys(values, where, family.DEFAULTS))
  except ValueError as error:
    raise error if str(error).startswith(where) else ValueError(f"{where}: {error}") from None


def of(config: DecoderConfig) -> str:
  """The first family that has this model; ValueError if none has, with what the nearest family lacks."""
  if type(config) is not DecoderConfig:
    raise ValueError(f"{type(config).__name__} is a model of your own, which no family of Hugging Face models has: it "
                     "can be kept as a workdir only.")
  lacking = {name: differences(config, _through(name, config)) for name in FAMILIES}
  name = min(lacking, key=lambda name: len(lacking[name]))
  if lacking[name]:
    fields = ", ".join(f"{field}={getattr(config, field)!r}" for field in lacking[name])
    raise ValueError(f"No family of Hugging Face models ({', '.join(FAMILIES)}) has this one: {name} comes nearest, "
                     f"but has no {fields}.")
  return name


def differences(left: DecoderConfig, right: DecoderConfig) -> list[str]:
  """Fields in which two models compute differently."""
  def same(name: str) -> bool:
    a, b = getattr(left, name), getattr(right, name)
    return math.isclose(a, b, rel_tol=1e-6) if isinstance(a, float) else a == b

  names = [field.name for field in dataclasses.fields(DecoderConfig) if field.name not in (*NOT_COMPUTED, "pattern")]
  return [name for name in names if not same(name)] + (["pattern"] if left.kinds != right.kinds else [])


def _through(name: str, config: DecoderConfig) -> DecoderConfig:
  """A model after it was written as this family's config.json and read again."""
  family = FAMILIES[name]
  return family.describe(Keys(family.written(config), "config.json", family.DEFAULTS))
