"""GGUF files of llama.cpp: the model, its dequantised parameters, and its tokenizer."""

import dataclasses
import functools
import importlib.util
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from sftrl_jax.checkpoints import families, fill, gguf_file, gguf_tokenizer, hf, source
from sftrl_jax.checkpoints.families.keys import shortest
from sftrl_jax.checkpoints.families.table import LLAMA, Tensor, of_layers
from sftrl_jax.checkpoints.fill import Loaded
from sftrl_jax.checkpoints.gguf_file import GgufFile
from sftrl_jax.models import DecoderConfig
from sftrl_jax.projections import PROJECTIONS

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "smollm3", "olmo2", "granite")
PAIRED = ("llama", "smollm3", "granite")   # llama.cpp rotates adjacent channels of these, and stores them so
# Weights have the layout of Hugging Face's files, and names that are the same for all architectures.
_TOP = {"embed": "token_embd.weight", "unembed": "output.weight", "final_norm/scale": "output_norm.weight"}
_NORMS = {"attn_norm": "attn_norm", "mlp_norm": "ffn_norm", "attn/q_norm": "attn_q_norm", "attn/k_norm": "attn_k_norm",
          "attn_post_norm": "post_attention_norm", "mlp_post_norm": "post_ffw_norm"}
NAMES = {
    **{path: Tensor(name, LLAMA[path].axes) for path, name in _TOP.items()},
    **of_layers({
        **{f"{path}/scale": (f"{name}.weight", "d -> d") for path, name in _NORMS.items()},
        **{f"{path}/kernel": (f"{each.gguf}.weight", each.weight_axes) for path, each in PROJECTIONS.items()},
        **{f"{path}/bias": (f"{each.gguf}.bias", each.bias_axes) for path, each in PROJECTIONS.items() if each.bias},
    }, "blk.{n}.%s"),
}
# Sizes: keys of config.json -> keys of the metadata.
SIZES = {"num_hidden_layers": "block_count", "hidden_size": "embedding_length",
         "intermediate_size": "feed_forward_length", "num_attention_heads": "attention.head_count",
         "num_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length",
         "max_position_embeddings": "context_length"}
FREQUENCIES = "rope_freqs.weight"   # the factor of each rotary frequency, which config.json gives by four numbers
LLAMA3 = {"rope_low": 1.0, "rope_high": 4.0, "rope_context": 8192}   # the same in every Llama from 3.1 on


def load(path: Path | str, dtype: str = "float32", mesh: Mesh | None = None) -> Loaded:
  """A model, its parameters in `dtype` over the mesh (None: on one device), and its tokenizer."""
  config = dataclasses.replace(describe(path), dtype=dtype)
  loaded_tokenizer = tokenizer(path)
  return Loaded(config, load_params(path, config, dtype, hf.parameter_shardings(config, mesh)), loaded_tokenizer)


def describe(path: Path | str) -> DecoderConfig:
  """The model of the file's metadata; ValueError for an unknown architecture or feature."""
  file = opened(path)
  name = file.metadata.get("general.architecture")
  if name not in ARCHITECTURES:
    raise ValueError(f"{path}: general.architecture is {name!r}, an unknown architecture; known: "
                     f"{', '.join(ARCHITECTURES)}.")
  if "token_embd.weight" not in file.tensors:
    raise ValueError(f"{path} holds no token_embd.weight: it is no language model, or a part of one.")
  try:
    return _described(file, name)
  except KeyError as error:
    raise ValueError(f"{path}: its metadata lacks {error.args[0]}: fetch a newer conversion of the model.") from None
  except (ValueError, TypeError, ArithmeticError) as error:
    where = "" if str(error).startswith(str(file.path)) else f"{file.path}: its metadata makes no model: "
    raise ValueError(f"{where}{error}") from None


def load_params(path: Path | str, config: DecoderConfig, dtype: str = "float32", shardings: Any = None) -> dict:
  """The parameters, each tensor read straight into this host's shards. shardings: a tree, or None for one device."""
  file = checked(path, config)
  quantised = any(gguf_file.TYPES[entry.kind][0] != "F32" for entry in file.tensors.values())
  if quantised and importlib.util.find_spec("gguf") is None:
    raise ValueError("To read quantised GGUF files needs the package gguf: pip install 'sftrl-jax[gguf]'.")
  read = functools.partial(_read, file, config, file.metadata["general.architecture"])
  return jax.block_until_ready(fill.fill(config, NAMES, dtype, shardings, read))


def checked(path: Path | str, config: DecoderConfig) -> GgufFile:
  """The file; one ValueError for all tensors of the model that are missing, surplus or of another shape."""
  file = opened(path)
  shapes = {name: entry.shape for name, entry in file.tensors.items()}
  fill.refuse_others(str(path), shapes, fill.named(fill.shapes_of(config), NAMES), lambda name: name == FREQUENCIES)
  return file


def tokenizer(path: Path | str) -> Any:
  """The tokenizer and chat template of the metadata; None if it has none. Converts them to Hugging Face files once, in
  the cache."""
  file = opened(path)
  vocab = file.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in file.tensors else 0
  tokens = file.metadata.get("tokenizer.ggml.tokens") or []
  if not tokens:
    return None
  if not isinstance(tokens, list):
    raise ValueError(f"{path}: tokenizer.ggml.tokens is {tokens!r}; it must be a list of texts.")
  ids = len(tokens)
  if ids > vocab:
    raise ValueError(f"{path}: the tokenizer has {ids} ids, but the model's vocabulary is {vocab}: it is of "
                     "another model.")
  name = f"gguf-{gguf_tokenizer.VERSION}-{source.stamp(file.path)}"
  try:
    directory = gguf_tokenizer.cached(file, source.cache() / name)
  except (TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
    raise ValueError(f"{path}: the metadata of its tokenizer is damaged ({error}): fetch it again.") from error
  from sftrl_jax.text import pretrained
  return pretrained.load(directory, stops=hf.stops(directory))


def opened(path: Path | str) -> GgufFile:
  """The header of the file and of all parts of its model, read again only if a file has changed."""
  path = Path(path)
  if not path.is_file():
    raise ValueError(f"There is no file {path}.")
  return _opened(path, tuple(source.stamp(part) for part in gguf_file.parts(path) if part.is_file()))


@functools.lru_cache(maxsize=2)
def _opened(path: Path, stamps: tuple[str, ...]) -> GgufFile:
  return gguf_file.read(path)


def _described(file: GgufFile, name: str) -> DecoderConfig:
  """The DecoderConfig of the metadata. name: the architecture, which is the prefix of its keys."""
  get = lambda key: file.metadata[f"{name}.{key}"]
  maybe = lambda key, default: file.metadata.get(f"{name}.{key}", default)
  for key in ("attention.head_count", "attention.head_count_kv", "embedding_length", "block_count",
              "feed_forward_length"):
    if type(maybe(key, 1)) is not int or maybe(key, 1) < 1:
      raise ValueError(f"{file.path}: {name}.{key} is {get(key)!r}; it must be one whole number of at least 1.")
  heads, width, layers = get("attention.head_count"), get("embedding_length"), get("block_count")
  vocab = file.tensors["token_embd.weight"].shape[0]
  families.refuse_large({**{their: maybe(key, 0) for their, key in SIZES.items()}, "vocab_size": vocab},
                        str(file.path), {their: f"{name}.{key}" for their, key in SIZES.items()})
  if layers > len(file.tensors):
    raise ValueError(f"{file.path}: {name}.block_count is {layers}, but the file holds {len(file.tensors)} tensors: "
                     "fetch it again.")
  head_dim = maybe("attention.key_length", maybe("rope.dimension_count", width // heads))
  if maybe("rope.dimension_count", head_dim) != head_dim:
    raise ValueError(f"{file.path}: {name}.rope.dimension_count is {get('rope.dimension_count')}; only rotating all "
                     f"{head_dim} channels is known.")
  if name == "llama" and maybe("expert_count", 0):
    raise ValueError(f"{file.path}: {name}.expert_count is {get('expert_count')}; mixtures of experts are not known.")
  fields = dict(
      vocab=vocab, width=width, layers=layers, heads=heads,
      kv_heads=maybe("attention.head_count_kv", heads), head_dim=head_dim, mlp_dim=get("feed_forward_length"),
      norm_eps=_short(get("attention.layer_norm_rms_epsilon")), context=maybe("context_length", 0),
      rope_theta=_short(maybe("rope.freq_base", 10_000.0)), tie_embeddings="output.weight" not in file.tensors,
      qkv_bias="blk.0.attn_q.bias" in file.tensors, o_bias="blk.0.attn_output.bias" in file.tensors,
      mlp_bias="blk.0.ffn_down.bias" in file.tensors, qk_norm="blk.0.attn_q_norm.weight" in file.tensors)
  if name in ("gemma2", "gemma3"):
    fields.update(_gemma(name, maybe, fields))
  if name == "smollm3":
    fields.update(pattern=("global", "global", "global", "unrotated"))
  if name == "olmo2":
    fields.update(qk_norm_whole=True, pre_norms=False, post_norms=True)
  if name == "granite":
    fields.update(_granite(maybe, head_dim))
  config = DecoderConfig(**{**fields, **_stretched(file.path, name, maybe)})
  return _with_frequencies(file, config) if FREQUENCIES in file.tensors else config


def _gemma(name: str, maybe, fields: dict) -> dict:
  """The fields that llama.cpp does not write for Gemma 2 and 3, because its code has them."""
  layers, width, largest, every = fields["layers"], fields["width"], *{"gemma2": (46, 2), "gemma3": (62, 6)}[name]
  scale = (width / fields["heads"]) ** -0.5 if layers == largest else 0.0   # only the 27B: others channels ** -0.5
  pattern = shortest(tuple("local" if (n + 1) % every else "global" for n in range(layers)))
  shared = dict(activation="gelu", post_norms=True, norm_plus_one=True, embed_scale=width**0.5, query_scale=scale,
                window=maybe("attention.sliding_window", 4096), pattern=pattern)
  if name == "gemma2":
    return dict(shared, attention_softcap=_short(maybe("attn_logit_softcapping", 50.0)),
                logits_softcap=_short(maybe("final_logit_softcapping", 30.0)))
  return dict(shared, rope_theta=_short(maybe("rope.freq_base", 1e6)),
              rope_local_theta=_short(maybe("rope.freq_base_swa", 1e4)))


def _granite(maybe, head_dim: int) -> dict:
  """The factors of Granite. llama.cpp writes the same numbers as config.json, under other names."""
  scale = _short(maybe("attention.scale", 0.0))
  return dict(embed_scale=_short(maybe("embedding_scale", 1.0)), residual_scale=_short(maybe("residual_scale", 1.0)),
              logits_divisor=_short(maybe("logit_scale", 1.0)),
              query_scale=0.0 if np.isclose(scale, head_dim**-0.5, rtol=1e-6) else scale)


def _stretched(path: Path, name: str, maybe) -> dict:
  """The fields of linearly stretched positions. Files of 2023 have rope.scale_linear, and no type."""
  factor = maybe("rope.scaling.factor", maybe("rope.scale_linear", 1.0)) or 1.0
  kind = maybe("rope.scaling.type", "linear")
  if kind not in ("none", "linear"):
    raise ValueError(f"{path}: {name}.rope.scaling.type is {kind!r}, which no model here has; known: none, linear.")
  return {} if kind == "none" or factor == 1 else {"rope_scaling": "linear", "rope_factor": _short(factor)}


def _with_frequencies(file: GgufFile, config: DecoderConfig) -> DecoderConfig:
  """The config with the llama3 stretching whose factors the file holds; ValueError for any other stretching."""
  factors = file.read(FREQUENCIES)
  factor = float(factors.max())
  context, low, high = LLAMA3["rope_context"], LLAMA3["rope_low"], LLAMA3["rope_high"]
  turns = context / (2 * np.pi) * config.rope_theta ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
  smooth = np.clip((turns - low) / (high - low), 0, 1)
  if factors.shape != turns.shape or not np.allclose(factors, 1 / ((1 - smooth) / factor + smooth), rtol=1e-3):
    raise ValueError(f"{file.path}: {FREQUENCIES} does not stretch frequencies as Llama 3 does; no other way is known.")
  return config if factor == 1 else dataclasses.replace(config, rope_scaling="llama3", rope_factor=factor, **LLAMA3)


def _read(file: GgufFile, config: DecoderConfig, architecture: str, name: str) -> np.ndarray:
  """A tensor with the values and layout of Hugging Face."""
  array = file.read(name)
  if architecture in PAIRED and (".attn_q." in name or ".attn_k." in name):
    # Channels i and i + C/2 are stored next to each other.
    pairs = array.reshape(-1, config.head_dim // 2, 2, *array.shape[1:])
    return pairs.swapaxes(1, 2).reshape(array.shape)
  if architecture in ("gemma2", "gemma3") and name.endswith("norm.weight"):
    return array - 1   # llama.cpp stores 1 + scale
  return array


def _short(value: float) -> float:
  """The shortest decimal number with the same f32 value: 1e-5 for 9.99999975e-06."""
  return float(str(np.float32(value)))
