"""A config.json, read key by key: a value that no model here supports is an error that names it, never ignored."""

import dataclasses
import math
from typing import Any

from sftrl_jax.models import DecoderConfig

ACTIVATIONS = {"silu": "silu", "swish": "silu", "relu": "relu", "gelu_pytorch_tanh": "gelu", "gelu_new": "gelu"}
WRITTEN = {"silu": "silu", "relu": "relu", "gelu": "gelu_pytorch_tanh"}
# The same of towers that read pictures, where "gelu" is the exact one.
TOWER_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu", "gelu_new": "gelu", "gelu": "erf_gelu", "quick_gelu": "quick_gelu",
                     "silu": "silu", "relu": "relu"}
TOWER_WRITTEN = {"gelu": "gelu_pytorch_tanh", "erf_gelu": "gelu", "quick_gelu": "quick_gelu", "silu": "silu",
                 "relu": "relu"}
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}   # Pillow's numbers of its filters
LAYERS = {"full_attention": "global", "sliding_attention": "local"}
KINDS = {"global": "full_attention", "local": "sliding_attention", "unrotated": "full_attention"}
# Keys that say whether there are biases, and the fields of DecoderConfig that they set.
BIASES = {"attention_bias": ("qkv_bias", "o_bias"), "mlp_bias": ("mlp_bias",)}


@dataclasses.dataclass(frozen=True)
class Keys:
  """values: of config.json. where: the file, for errors. defaults: values of keys that the file omits."""

  values: dict
  where: str = "config.json"
  defaults: dict = dataclasses.field(default_factory=dict)

  def get(self, name: str, default: Any = None) -> Any:
    """The value of a key; None if it is null."""
    return self.values.get(name, self.defaults.get(name, default))

  def section(self, name: str, defaults: dict | None = None) -> "Keys":
    """The keys of a table inside; ValueError for what is none."""
    value = self.get(name)
    if not isinstance(value, dict):
      raise ValueError(f"{self.where}: {name} is {value!r}; it must be a table.")
    return Keys(value, f"{self.where}: {name}", defaults or {})

  def integer(self, name: str, least: int = 1) -> int:
    """A whole number of at least `least`; ValueError for any other value."""
    value = self.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
      raise ValueError(f"{self.where}: {name} is {value!r}; it must be a whole number of at least {least}.")
    return value

  def number(self, name: str) -> float:
    """A positive number; ValueError for any other value."""
    return positive(self.get(name), f"{self.where}: {name}")

  def flag(self, name: str, default: bool = False) -> bool:
    """true or false; null is false, and ValueError for any other value."""
    value = self.get(name, default)
    if value is not None and not isinstance(value, bool):
      raise ValueError(f"{self.where}: {name} is {value!r}; it must be true or false.")
    return bool(value)

  def only(self, name: str, known: tuple, default: Any = None) -> Any:
    """The value; ValueError unless it is one of `known`."""
    value = self.get(name, default)
    if value not in known:
      choices = ", ".join("null" if choice is None else repr(choice) for choice in known)
      raise ValueError(f"{self.where}: {name} is {value!r}, which no model here has; known: {choices}.")
    return value

  def activation(self, name: str = "hidden_act") -> str:
    """The activation as DecoderConfig names it."""
    return ACTIVATIONS[self.only(name, tuple(ACTIVATIONS), "silu")]

  def kinds(self, layers: int) -> tuple[str, ...]:
    """`layer_types` as the shortest pattern that repeats."""
    types = self.get("layer_types")
    if not isinstance(types, list) or len(types) != layers or any(str(kind) not in LAYERS for kind in types):
      raise ValueError(f"{self.where}: layer_types is {types!r}; it must name one of {', '.join(LAYERS)} for each of "
                       f"{layers} layers.")
    return shortest(tuple(LAYERS[kind] for kind in types))


def positive(value: Any, name: str) -> float:
  """The value as a float; ValueError with this name unless it is a positive finite number."""
  if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
    raise ValueError(f"{name} is {value!r}; it must be a positive number.")
  return float(value)


def shortest(kinds: tuple[str, ...]) -> tuple[str, ...]:
  """The shortest pattern that gives these kinds when it is repeated and truncated."""
  sizes = range(1, len(kinds) + 1)
  size = next(size for size in sizes if all(kind == kinds[index % size] for index, kind in enumerate(kinds)))
  return kinds[:size]


def read_shape(keys: Keys, biases: tuple[str, ...] = ()) -> dict:
  """The fields of DecoderConfig whose keys are the same in every family. biases: the family's own of BIASES."""
  for name in ("rope_interleaved", *(name for name in BIASES if name not in biases)):
    keys.only(name, (False, None))
  keys.only("quantization_config", (None,))   # quantised weights are not supported
  heads = keys.integer("num_attention_heads")
  width = keys.integer("hidden_size")
  if not keys.get("head_dim") and width % heads:
    raise ValueError(f"{keys.where}: hidden_size is {width}, which num_attention_heads = {heads} does not divide; so "
                     "head_dim is needed.")
  fields = {field: keys.flag(name) for name in biases for field in BIASES[name]}
  return dict(
      fields, vocab=keys.integer("vocab_size"), width=width, layers=keys.integer("num_hidden_layers"), heads=heads,
      kv_heads=keys.integer("num_key_value_heads") if keys.get("num_key_value_heads") else heads,
      head_dim=keys.integer("head_dim") if keys.get("head_dim") else width // heads,
      mlp_dim=keys.integer("intermediate_size"), norm_eps=keys.number("rms_norm_eps"),
      tie_embeddings=keys.flag("tie_word_embeddings"), context=keys.integer("max_position_embeddings"))


def write_shape(config: DecoderConfig, biases: tuple[str, ...] = ()) -> dict:
  """The keys of `read_shape` for a config.json. A model of unknown context gets 8192, which limits nothing here. Ids of
  tokens are null until a tokenizer gives some: transformers' own may lie beyond the vocabulary."""
  flags = {name: name in biases and all(getattr(config, field) for field in fields)
           for name, fields in BIASES.items() if name in ("attention_bias", *biases)}
  return dict(
      flags, **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
      vocab_size=config.vocab, hidden_size=config.width, num_hidden_layers=config.layers,
      num_attention_heads=config.heads, num_key_value_heads=config.kv_heads, head_dim=config.head_dim,
      intermediate_size=config.mlp_dim, rms_norm_eps=config.norm_eps, tie_word_embeddings=config.tie_embeddings,
      max_position_embeddings=config.context or 8192, initializer_range=config.init_std, use_cache=True,
      attention_dropout=0.0)


def read_normalisation(keys: Keys) -> dict:
  """image_mean and image_std of a preprocessor_config.json; ValueError where pixels are read in another way."""
  for name in ("do_rescale", "do_normalize"):
    keys.only(name, (True,), True)
  factor = keys.get("rescale_factor", 1 / 255)
  if not isinstance(factor, (int, float)) or not math.isclose(factor, 1 / 255, rel_tol=1e-6):
    raise ValueError(f"{keys.where}: rescale_factor is {factor!r}, which no model here has; known: 1/255.")
  fields = {}
  for name in ("image_mean", "image_std"):
    values = keys.get(name, [0.5] * 3)
    if not isinstance(values, list) or len(values) != 3:
      raise ValueError(f"{keys.where}: {name} is {values!r}; it must be three numbers.")
    allowed = positive if name == "image_std" else lambda value, _: float(value)
    fields[name] = tuple(allowed(value, f"{keys.where}: {name}") for value in values)
  return fields


def read_resample(keys: Keys) -> str:
  """The filter of resizing as models name it."""
  return RESAMPLE[keys.only("resample", tuple(RESAMPLE))]


def write_normalisation(config: Any) -> dict:
  """The keys of `read_normalisation` and `read_resample`."""
  number = next(number for number, name in RESAMPLE.items() if name == config.image_resample)
  return {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": list(config.image_mean),
          "image_std": list(config.image_std), "resample": number}
