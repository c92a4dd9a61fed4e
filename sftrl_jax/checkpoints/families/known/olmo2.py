"""OLMo 2: norms after attention and the MLP and none before, and a norm over all queries, and over all keys."""

from sftrl_jax.checkpoints.families import rope, table
from sftrl_jax.checkpoints.families.keys import WRITTEN, Keys, read_shape, write_shape
from sftrl_jax.models import DecoderConfig

ARCHITECTURE = "Olmo2ForCausalLM"
NAMES = {**{path: tensor for path, tensor in table.LLAMA.items() if not path.endswith(("attn_norm/scale",
                                                                                       "mlp_norm/scale"))},
         **table.BIASES, **table.HEAD_NORMS, **table.POST_NORMS}
DEFAULTS = {"rope_theta": 10_000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048}
BIASES = ("attention_bias",)


def describe(keys: Keys) -> DecoderConfig:
  """The model of a config.json."""
  return DecoderConfig(**read_shape(keys, BIASES), **rope.read(keys), activation=keys.activation(), qk_norm=True,
                       qk_norm_whole=True, pre_norms=False, post_norms=True)


def written(config: DecoderConfig) -> dict:
  """The config.json of the family that is nearest to this model."""
  return {**write_shape(config, BIASES), **rope.write(config), "hidden_act": WRITTEN[config.activation]}
