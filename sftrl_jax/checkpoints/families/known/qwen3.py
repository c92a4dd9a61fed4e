"""Qwen 3: Llama with a norm on every query and key, and a head_dim of its own."""

from sftrl_jax.checkpoints.families import rope, table
from sftrl_jax.checkpoints.families.keys import WRITTEN, Keys, read_shape, write_shape
from sftrl_jax.checkpoints.families.known import qwen2
from sftrl_jax.models import DecoderConfig

ARCHITECTURE = "Qwen3ForCausalLM"
NAMES = {**table.LLAMA, **table.BIASES, **table.HEAD_NORMS}
BIASES = ("attention_bias",)
DEFAULTS = {**qwen2.DEFAULTS, "head_dim": 128}


def describe(keys: Keys) -> DecoderConfig:
  """The model of a config.json."""
  return DecoderConfig(**read_shape(keys, BIASES), **rope.read(keys), **qwen2.local(keys), activation=keys.activation(),
                       qk_norm=True)


def written(config: DecoderConfig) -> dict:
  """The config.json of the family that is nearest to this model."""
  return {**write_shape(config, BIASES), **rope.write(config), **qwen2.write_local(config),
          "hidden_act": WRITTEN[config.activation]}
