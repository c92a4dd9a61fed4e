"""Phi 3 and 4: Llama with queries, keys and values in one tensor, gate and up in another; a part may be rotated."""

import dataclasses

from sftrl_jax.checkpoints.families import rope, table
from sftrl_jax.checkpoints.families.keys import WRITTEN, Keys, read_shape, write_shape
from sftrl_jax.models import DecoderConfig
from sftrl_jax.projections import STACK

ARCHITECTURE = "Phi3ForCausalLM"
FUSED = {"self_attn.qkv_proj": ("attn/q", "attn/k", "attn/v"), "mlp.gate_up_proj": ("mlp/gate", "mlp/up")}
NAMES = {**table.LLAMA, **{
    path: dataclasses.replace(table.LLAMA[path], name=f"model.layers.{{n}}.{name}.weight", part=part)
    for name, paths in FUSED.items() for part, path in enumerate(f"{STACK}{path}/kernel" for path in paths)}}
DEFAULTS = {"rope_theta": 10_000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 4096}


def describe(keys: Keys) -> DecoderConfig:
  """The model of a config.json."""
  window = keys.integer("sliding_window") if keys.get("sliding_window") else 0
  return DecoderConfig(**read_shape(keys), **rope.read(keys, partial=True), activation=keys.activation(),
                       window=window, pattern=("local",) if window else ("global",))


def written(config: DecoderConfig) -> dict:
  """The config.json of the family that is nearest to this model."""
  return {**write_shape(config), **rope.write(config, partial=True), "hidden_act": WRITTEN[config.activation],
          "sliding_window": config.window or None,
          "original_max_position_embeddings": config.context or 8192, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
