"""SmolLM3: Llama whose every fourth layer is not rotated."""

from sftrl_jax.checkpoints.families import rope, table
from sftrl_jax.checkpoints.families.keys import KINDS, WRITTEN, Keys, read_shape, shortest, write_shape
from sftrl_jax.checkpoints.families.known import llama
from sftrl_jax.models import DecoderConfig

ARCHITECTURE = "SmolLM3ForCausalLM"
NAMES = {**table.LLAMA, **table.BIASES}
DEFAULTS = {"rope_theta": 2_000_000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 32_768,
            "num_key_value_heads": 4, "tie_word_embeddings": True, "no_rope_layer_interval": 4}


def describe(keys: Keys) -> DecoderConfig:
  """The model of a config.json."""
  return DecoderConfig(**read_shape(keys, llama.BIASES), **rope.read(keys), **_kinds(keys),
                       activation=keys.activation())


def _kinds(keys: Keys) -> dict:
  """Which layers are rotated, and which of these have a window."""
  layers, rotated = keys.integer("num_hidden_layers"), keys.get("no_rope_layers")   # 1: rotated, whatever the name says
  if rotated is None:
    every = keys.integer("no_rope_layer_interval")
    rotated = [int((index + 1) % every != 0) for index in range(layers)]
  if not isinstance(rotated, list) or len(rotated) < layers or set(rotated) - {0, 1}:
    raise ValueError(f"{keys.where}: no_rope_layers is {rotated!r}; it must be 1 (rotated) or 0 for each of {layers} "
                     "layers.")
  windowed = keys.flag("use_sliding_window") and keys.get("sliding_window") is not None
  if not windowed:
    local = [False] * layers
  elif keys.get("layer_types") is None:   # as in transformers
    local = [not turned for turned in rotated[:layers]]
  else:
    types = keys.kinds(layers)
    local = [types[index % len(types)] == "local" for index in range(layers)]
  if any(near and not turned for near, turned in zip(local, rotated, strict=False)):
    raise ValueError(f"{keys.where}: use_sliding_window is True, and a layer that no_rope_layers does not rotate has a "
                     "window; no model here has such layers.")
  kinds = ("local" if near else "global" if turned else "unrotated"
           for near, turned in zip(local, rotated, strict=False))
  return {"pattern": shortest(tuple(kinds)), "window": keys.integer("sliding_window") if any(local) else 0}


def written(config: DecoderConfig) -> dict:
  """The config.json of the family that is nearest to this model."""
  return {**write_shape(config, llama.BIASES), **rope.write(config), "hidden_act": WRITTEN[config.activation],
          "no_rope_layers": [int(kind != "unrotated") for kind in config.kinds],
          "use_sliding_window": bool(config.window), "sliding_window": config.window or None,
          "layer_types": [KINDS[kind] for kind in config.kinds]}
