"""The families of Hugging Face checkpoints: for each a table of names, and config.json in both directions.

A family's file in known/ holds ARCHITECTURE, NAMES (our parameter path -> their tensor), DEFAULTS (the values of keys
that config.json omits), describe (config.json -> DecoderConfig) and written (DecoderConfig -> config.json). One of
models that read pictures also holds CONFIG (the class of their configs), PICTURE_DEFAULTS, read_pictures and
written_pictures (the same of preprocessor_config.json); names(config) stands for NAMES where these depend on it, and
ALIASES are (pattern, name) of other spellings of tensors.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from types import ModuleType

from sftrl_jax.checkpoints.families.keys import Keys
from sftrl_jax.checkpoints.families.known import (
    gemma2,
    gemma3,
    granite,
    idefics3,
    llama,
    mistral,
    mllama,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    smollm3,
)
from sftrl_jax.checkpoints.families.table import Tensor
from sftrl_jax.models import DecoderConfig

# In the order in which `of` tries them.
FAMILIES = {"llama": llama, "mistral": mistral, "qwen2": qwen2, "qwen3": qwen3, "gemma3_text": gemma3,
            "gemma2": gemma2, "smollm3": smollm3, "phi3": phi3, "olmo2": olmo2, "granite": granite,
            "idefics3": idefics3, "smolvlm": idefics3, "mllama": mllama}
_EXPERTS, _LAYER_NORM = "mixtures of experts", "LayerNorm"
MISSING = {   # what the decoder lacks for other families
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "phimoe", "ernie4_5_moe"), _EXPERTS),
    "gpt_oss": f"{_EXPERTS} and attention sinks", "llama4_text": f"{_EXPERTS} and chunked attention",
    "deepseek_v2": f"{_EXPERTS} and latent attention", "deepseek_v3": f"{_EXPERTS} and latent attention",
    "qwen3_next": f"{_EXPERTS} and linear attention", "granitemoehybrid": f"{_EXPERTS} and state-space layers",
    "gpt2": f"{_LAYER_NORM} and learned positions", "opt": f"{_LAYER_NORM} and learned positions",
    **dict.fromkeys(("gpt_neox", "falcon", "phi", "cohere"), f"{_LAYER_NORM}, beside an MLP parallel to attention"),
    **dict.fromkeys(("starcoder2", "stablelm", "olmo"), _LAYER_NORM), "mamba": "state-space layers",
    "gemma3n": "embeddings of each layer and alternating updates"}
# Fields of DecoderConfig that say how a model is run or initialised, not what it computes.
NOT_COMPUTED = ("dtype", "attention", "remat", "unroll", "flatten", "init_std", "context", "images")
# What preprocessor_config.json gives, and config.json does not.
OF_PICTURES = ("image_height", "image_width", "image_longest", "image_splitting", "image_resample", "image_mean",
               "image_std")


# What a file may say of a size at most, so that a damaged one is refused before anything is made of that size.
LARGEST = {"num_hidden_layers": 10_000, "hidden_size": 2**24, "intermediate_size": 2**24, "head_dim": 2**16,
           "num_attention_heads": 2**16, "num_key_value_heads": 2**16, "vocab_size": 2**28,
           "max_position_embeddings": 2**40}


def refuse_large(sizes: dict, where: str, names: Mapping[str, str] | None = None) -> None:
  """ValueError for a size beyond LARGEST. sizes: by the keys of config.json; names: those keys -> the file's own."""
  for name, most in LARGEST.items():
    value = sizes.get(name)
    if isinstance(value, int) and value > most:
      raise ValueError(f"{where}: {(names or {}).get(name, name)} is {_short(value)}; it must be at most {most}.")


def _short(value: int) -> str:
  return str(value) if value < 10**30 else "a number of more than 30 digits"


def named(values: dict, where: str) -> ModuleType:
  """The family of a config.json; ValueError for an unknown one."""
  name = values.get("model_type")
  if name == "gemma3":
    raise ValueError(f"{where}: model_type is 'gemma3', which takes images; of Gemma 3 only the text models are known "
                     "(gemma3_text: 270m and 1b).")
  if isinstance(name, str) and name in MISSING:
    raise ValueError(f"{where}: model_type is {name!r}, which needs {MISSING[name]}; models here have none. Known: "
                     f"{', '.join(FAMILIES)}.")
  if not isinstance(name, str) or name not in FAMILIES:
    code = " Its code (auto_map) is not run: no file of a model is." if "auto_map" in values else ""
    raise ValueError(f"{where}: model_type is {name!r}, an unknown architecture; known: {', '.join(FAMILIES)}.{code}")
  return FAMILIES[name]


def describe(values: dict, where: str = "config.json") -> DecoderConfig:
  """The model of the values of a config.json."""
  family = named(values, where)
  for section in (values, values.get("text_config"), values.get("vision_config")):
    refuse_large(section if isinstance(section, dict) else {}, where)
  try:
    return family.describe(Keys(values, where, family.DEFAULTS))
  except ValueError as error:
    raise error if str(error).startswith(where) else ValueError(f"{where}: {error}") from None


def of(config: DecoderConfig) -> str:
  """The first family that has this model; ValueError if none has, with what the nearest family lacks."""
  likely = [name for name, family in FAMILIES.items() if getattr(family, "CONFIG", DecoderConfig) is type(config)
            and getattr(config, "layout", name) == name]
  if not likely:
    raise ValueError(f"{type(config).__name__} is a model of your own, which no family of Hugging Face models has: it "
                     "can be kept as a workdir only.")
  lacking = {name: differences(config, _through(name, config), OF_PICTURES) for name in likely}
  name = min(lacking, key=lambda name: len(lacking[name]))
  if lacking[name]:
    fields = ", ".join(f"{field}={getattr(config, field)!r}" for field in lacking[name])
    raise ValueError(f"No family of Hugging Face models ({', '.join(likely)}) has this one: {name} comes nearest, "
                     f"but has no {fields}.")
  return name


def names_of(family: ModuleType, config: DecoderConfig) -> Mapping[str, Tensor]:
  """{our path of a parameter: the tensor of a checkpoint} of a family's model."""
  return family.names(config) if hasattr(family, "names") else family.NAMES


def spelled(family: ModuleType, name: str) -> str:
  """The name of a tensor as `names_of` has it."""
  for pattern, replacement in getattr(family, "ALIASES", ()):
    name = re.sub(pattern, replacement, name)
  return name


def differences(left: DecoderConfig, right: DecoderConfig, apart: tuple[str, ...] = ()) -> list[str]:
  """Fields in which two models of one class compute differently, but for those `apart`."""
  def same(name: str) -> bool:
    a, b = getattr(left, name), getattr(right, name)
    return math.isclose(a, b, rel_tol=1e-6) if isinstance(a, float) else a == b

  if type(left) is not type(right):
    return ["name"]
  names = [field.name for field in dataclasses.fields(left) if field.name not in (*NOT_COMPUTED, "pattern", *apart)]
  return [name for name in names if not same(name)] + (["pattern"] if left.kinds != right.kinds else [])


def _through(name: str, config: DecoderConfig) -> DecoderConfig:
  """A model after it was written as this family's config.json and read again."""
  family = FAMILIES[name]
  return family.describe(Keys(family.written(config), "config.json", family.DEFAULTS))
