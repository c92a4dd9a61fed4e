"""Mistral: Llama with a window in every layer (0.1) or in none (from 0.2 on)."""

from sftrl_jax.checkpoints.families import rope, table
from sftrl_jax.checkpoints.families.keys import WRITTEN, Keys, read_shape, write_shape
from sftrl_jax.models import DecoderConfig

ARCHITECTURE = "MistralForCausalLM"
NAMES = table.LLAMA
DEFAULTS = {"rope_theta": 10_000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 131_072,
            "num_key_value_heads": 8, "sliding_window": 4096}


def describe(keys: Keys) -> DecoderConfig:
  """The model of a config.json."""
  window = keys.integer("sliding_window") if keys.get("sliding_window") else 0
  return DecoderConfig(**read_shape(keys), **rope.read(keys), activation=keys.activation(), window=window,
                       pattern=("local",) if window else ("global",))


def written(config: DecoderConfig) -> dict:
  """The config.json of the family that is nearest to this model."""
  return {**write_shape(config), **rope.write(config), "hidden_act": WRITTEN[config.activation],
          "sliding_window": config.window or None}
