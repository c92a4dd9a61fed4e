"""Llama 1, 2 and 3, SmolLM2, and whatever else calls itself llama."""

from sftrl_jax.checkpoints.families import keys as reading, rope, table
from sftrl_jax.models import DecoderConfig

ARCHITECTURE = "LlamaForCausalLM"
NAMES = table.LLAMA
DEFAULTS = {"rope_theta": 10_000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048}


def describe(keys: reading.Keys) -> DecoderConfig:
  """The model of a config.json."""
  return DecoderConfig(**reading.shape(keys), **rope.read(keys), activation=keys.activation())


def written(config: DecoderConfig) -> dict:
  """A config.json as near to this model as the family comes."""
  return {**reading.write_shape(config), **rope.write(config), "hidden_act": reading.WRITTEN[config.activation],
          "mlp_bias": False, "pretraining_tp": 1}
