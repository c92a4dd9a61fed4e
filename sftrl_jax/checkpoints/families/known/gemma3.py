"""Gemma 3, the text models: local layers with a base frequency of their own, post-norms, scaled embeddings."""

from sftrl_jax.checkpoints.families import rope, table
from sftrl_jax.checkpoints.families.keys import KINDS, WRITTEN, Keys, positive, read_shape, shortest, write_shape
from sftrl_jax.models import DecoderConfig

ARCHITECTURE = "Gemma3ForCausalLM"
NAMES = {
    **table.LLAMA, **table.BIASES, **table.HEAD_NORMS, **table.POST_NORMS,
    **table.of_layers({"mlp_norm/scale": ("pre_feedforward_layernorm.weight", "d -> d")}),
}
DEFAULTS = {"rms_norm_eps": 1e-6, "max_position_embeddings": 131_072, "num_key_value_heads": 4, "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True, "query_pre_attn_scalar": 256,
            "sliding_window": 4096, "sliding_window_pattern": 6, "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0}
BIASES = ("attention_bias",)


def describe(keys: Keys) -> DecoderConfig:
  """The model of a config.json."""
  for name in ("attn_logit_softcapping", "final_logit_softcapping"):
    keys.only(name, (None,))
  keys.only("use_bidirectional_attention", (None, False))
  shape = read_shape(keys, BIASES)
  local = read_local(keys, shape["layers"], keys.integer("sliding_window_pattern"))
  return DecoderConfig(**shape, **_rotary(keys, "window" in local), **local, **read_common(keys, shape), qk_norm=True)


def read_common(keys: Keys, shape: dict) -> dict:
  """The fields that Gemma 2 and 3 share. shape: those of `read_shape`."""
  scalar = keys.number("query_pre_attn_scalar")
  return dict(activation=keys.activation("hidden_activation"), post_norms=True, norm_plus_one=True,
              embed_scale=shape["width"] ** 0.5, query_scale=0.0 if scalar == shape["head_dim"] else scalar**-0.5)


def read_local(keys: Keys, layers: int, every: int) -> dict:
  """The layers with a window: all but each `every`th where the file has no layer_types."""
  if keys.get("layer_types") is not None:
    pattern = keys.kinds(layers)
  else:
    pattern = shortest(tuple("local" if (index + 1) % every else "global" for index in range(layers)))
  return {"pattern": pattern, **({"window": keys.integer("sliding_window")} if "local" in pattern else {})}


def _rotary(keys: Keys, local: bool) -> dict:
  """The rope_... fields of DecoderConfig. local: whether the model has local layers."""
  parameters = keys.get("rope_parameters") or {}
  of_global, of_local = parameters.get("full_attention") or {}, parameters.get("sliding_attention") or {}
  if rope.scaling(keys, of_local):
    raise ValueError(f"{keys.where}: rope_parameters of sliding_attention is {of_local}; models here never stretch "
                     "positions of local layers.")
  of_global = {**of_global, **(keys.get("rope_scaling") or {})}
  prefix = f"{keys.where}: rope_"
  fields = {"rope_theta": positive(of_global.get("rope_theta", keys.get("rope_theta")), f"{prefix}theta"),
            **rope.scaling(keys, of_global)}
  if local:
    theta = of_local.get("rope_theta", keys.get("rope_local_base_freq"))
    fields["rope_local_theta"] = positive(theta, f"{prefix}local_base_freq")
  return fields


def written(config: DecoderConfig) -> dict:
  """The config.json of the family that is nearest to this model."""
  scaling = rope.write_scaling(config)
  local = config.rope_local_theta or DEFAULTS["rope_local_base_freq"]
  return {
      **write_common(config), "attn_logit_softcapping": None, "final_logit_softcapping": None,
      "rope_theta": config.rope_theta, "rope_local_base_freq": local, "rope_scaling": scaling,
      "rope_parameters": {
          "full_attention": {"rope_type": "default", **(scaling or {}), "rope_theta": config.rope_theta},
          "sliding_attention": {"rope_type": "default", "rope_theta": local}},
  }


def write_common(config: DecoderConfig) -> dict:
  """The keys that Gemma 2 and 3 share."""
  scalar = config.head_dim if not config.query_scale else round(config.query_scale**-2)
  return {**write_shape(config, BIASES), "hidden_activation": WRITTEN[config.activation],
          "query_pre_attn_scalar": scalar, "sliding_window": config.window or DEFAULTS["sliding_window"],
          "layer_types": [KINDS[kind] for kind in config.kinds]}
