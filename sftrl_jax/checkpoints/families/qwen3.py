"""Qwen 3: Llama with a norm on every query and key, and heads as wide as it says."""

from sftrl_jax.checkpoints.families import keys as reading, qwen2, rope, table
from sftrl_jax.models import DecoderConfig

ARCHITECTURE = "Qwen3ForCausalLM"
NAMES = {**table.LLAMA, **table.HEAD_NORMS}
DEFAULTS = {**qwen2.DEFAULTS, "head_dim": 128}


def describe(keys: reading.Keys) -> DecoderConfig:
  """The model of a config.json."""
  return DecoderConfig(**reading.shape(keys), **rope.read(keys), **qwen2.local(keys), activation=keys.activation(),
                       qk_norm=True)


def written(config: DecoderConfig) -> dict:
  """A config.json as near to this model as the family comes."""
  return {**reading.write_shape(config), **rope.write(config), **qwen2.write_local(config),
          "hidden_act": reading.WRITTEN[config.activation]}
