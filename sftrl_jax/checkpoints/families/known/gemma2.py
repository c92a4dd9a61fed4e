"""Gemma 2: every other layer local, post-norms, scaled embeddings, soft caps on scores and logits."""

from sftrl_jax.checkpoints.families import rope, table
from sftrl_jax.checkpoints.families.keys import Keys, read_shape
from sftrl_jax.checkpoints.families.known import gemma3
from sftrl_jax.models import DecoderConfig

ARCHITECTURE = "Gemma2ForCausalLM"
NAMES = {path: tensor for path, tensor in gemma3.NAMES.items() if path not in table.HEAD_NORMS}
DEFAULTS = {"rms_norm_eps": 1e-6, "max_position_embeddings": 8192, "num_key_value_heads": 4, "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True, "query_pre_attn_scalar": 256,
            "sliding_window": 4096, "rope_theta": 10_000.0, "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0}
CAPS = {"attn_logit_softcapping": "attention_softcap", "final_logit_softcapping": "logits_softcap"}


def describe(keys: Keys) -> DecoderConfig:
  """The model of a config.json."""
  keys.only("use_bidirectional_attention", (None, False))
  shape = read_shape(keys, gemma3.BIASES)
  caps = {field: 0.0 if keys.get(name) is None else keys.number(name) for name, field in CAPS.items()}
  return DecoderConfig(**shape, **rope.read(keys), **gemma3.read_local(keys, shape["layers"], every=2),
                       **gemma3.read_common(keys, shape), **caps)


def written(config: DecoderConfig) -> dict:
  """The config.json of the family that is nearest to this model."""
  return {**gemma3.write_common(config), **rope.write(config),
          **{name: getattr(config, field) or None for name, field in CAPS.items()}}
