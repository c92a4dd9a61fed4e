"""Llama 1, 2 and 3, SmolLM2, and other models of model_type llama, with and without biases."""

from sftrl_jax.checkpoints.families import rope, table
from sftrl_jax.checkpoints.families.keys import WRITTEN, Keys, read_shape, write_shape
from sftrl_jax.models import DecoderConfig

ARCHITECTURE = "LlamaForCausalLM"
NAMES = {**table.LLAMA, **table.BIASES}
BIASES = ("attention_bias", "mlp_bias")
DEFAULTS = {"rope_theta": 10_000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048}


def describe(keys: Keys) -> DecoderConfig:
  """The model of a config.json."""
  return DecoderConfig(**read_shape(keys, BIASES), **rope.read(keys), activation=keys.activation())


def written(config: DecoderConfig) -> dict:
  """The config.json of the family that is nearest to this model."""
  return {**write_shape(config, BIASES), **rope.write(config), "hidden_act": WRITTEN[config.activation],
          "pretraining_tp": 1}
