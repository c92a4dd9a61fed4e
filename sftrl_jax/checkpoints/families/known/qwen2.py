"""Qwen 2 and 2.5: Llama with a bias on queries, keys and values."""

from sftrl_jax.checkpoints.families import rope, table
from sftrl_jax.checkpoints.families.keys import KINDS, WRITTEN, Keys, read_shape, shortest, write_shape
from sftrl_jax.models import DecoderConfig

ARCHITECTURE = "Qwen2ForCausalLM"
NAMES = {**table.LLAMA, **table.BIASES}
DEFAULTS = {"rope_theta": 10_000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 32_768,
            "sliding_window": 4096, "max_window_layers": 28}


def describe(keys: Keys) -> DecoderConfig:
  """The model of a config.json."""
  return DecoderConfig(**read_shape(keys), **rope.read(keys), **local(keys), activation=keys.activation(),
                       qkv_bias=True)


def local(keys: Keys) -> dict:
  """The layers with a window: none, or with use_sliding_window the last ones."""
  if not keys.flag("use_sliding_window") or not keys.get("sliding_window"):
    return {}
  layers = keys.integer("num_hidden_layers")
  if keys.get("layer_types") is not None:
    pattern = keys.kinds(layers)
  else:
    first = keys.integer("max_window_layers", least=0)
    pattern = shortest(tuple("local" if index >= first else "global" for index in range(layers)))
  return {"pattern": pattern, "window": keys.integer("sliding_window") if "local" in pattern else 0}


def written(config: DecoderConfig) -> dict:
  """The config.json of the family that is nearest to this model."""
  return {**write_shape(config), **rope.write(config), **write_local(config),
          "hidden_act": WRITTEN[config.activation]}


def write_local(config: DecoderConfig) -> dict:
  """The keys of `local` for a config.json."""
  kinds = config.kinds
  first = next((index for index, kind in enumerate(kinds) if kind == "local"), config.layers)
  return {"use_sliding_window": bool(config.window), "sliding_window": config.window or None,
          "max_window_layers": first, "layer_types": [KINDS[kind] for kind in kinds]}
