"""Granite 3 and 4's dense models: Llama with a factor of embeddings, scores, residual additions and logits."""

import math

from sftrl_jax.checkpoints.families import rope, table
from sftrl_jax.checkpoints.families.keys import WRITTEN, Keys, read_shape, write_shape
from sftrl_jax.checkpoints.families.known import llama
from sftrl_jax.models import DecoderConfig

ARCHITECTURE = "GraniteForCausalLM"
NAMES = {**table.LLAMA, **table.BIASES}
FACTORS = {"embedding_multiplier": "embed_scale", "residual_multiplier": "residual_scale",
           "logits_scaling": "logits_divisor", "attention_multiplier": "query_scale"}
DEFAULTS = {"rope_theta": 10_000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048,
            **dict.fromkeys(FACTORS, 1.0)}


def describe(keys: Keys) -> DecoderConfig:
  """The model of a config.json."""
  shape = read_shape(keys, llama.BIASES)
  factors = {field: keys.number(name) for name, field in FACTORS.items()}
  if math.isclose(factors["query_scale"], shape["head_dim"] ** -0.5, rel_tol=1e-6):
    factors["query_scale"] = 0.0   # what it is without the key
  return DecoderConfig(**shape, **rope.read(keys), **factors, activation=keys.activation())


def written(config: DecoderConfig) -> dict:
  """The config.json of the family that is nearest to this model."""
  return {**write_shape(config, llama.BIASES), **rope.write(config), "hidden_act": WRITTEN[config.activation],
          **{name: getattr(config, field) or config.head_dim**-0.5 for name, field in FACTORS.items()}}
