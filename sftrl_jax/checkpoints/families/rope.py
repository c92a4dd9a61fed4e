"""Rotary frequencies in config.json: `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before)."""

from sftrl_jax.checkpoints.families.keys import Keys, positive
from sftrl_jax.models import DecoderConfig

KNOWN = ("default", "linear", "llama3")


def read(keys: Keys) -> dict:
  """The rope_... fields of DecoderConfig, for a family whose layers all rotate alike."""
  parameters = {**_table(keys, "rope_parameters"), **_table(keys, "rope_scaling")}
  nested = [name for name, value in parameters.items() if isinstance(value, dict)]
  if nested:
    raise ValueError(f"{keys.where}: rope_parameters has {', '.join(nested)}; of this family only one kind of rotation "
                     "for all layers is known.")
  theta = parameters.get("rope_theta", keys.get("rope_theta"))
  return {"rope_theta": positive(theta, f"{keys.where}: rope_theta"), **scaling(keys, parameters)}


def scaling(keys: Keys, parameters: dict) -> dict:
  """The fields of DecoderConfig that say how positions are stretched, from one table of rotary keys."""
  where = f"{keys.where}: rope"
  kind = parameters.get("rope_type", parameters.get("type", "default"))
  if kind not in KNOWN:
    raise ValueError(f"{where}_type is {kind!r}, which no model here has; known: {', '.join(KNOWN)}.")
  part = parameters.get("partial_rotary_factor", keys.get("partial_rotary_factor"))
  if part not in (None, 1, 1.0):
    raise ValueError(f"{where}: partial_rotary_factor is {part!r}, which no model here has; known: 1.")
  if kind == "default":
    return {}
  factor = positive(parameters.get("factor"), f"{where} factor")
  if kind == "linear":
    return {"rope_scaling": "linear", "rope_factor": factor}
  context = parameters.get("original_max_position_embeddings", keys.get("max_position_embeddings"))
  return {"rope_scaling": "llama3", "rope_factor": factor,
          "rope_low": positive(parameters.get("low_freq_factor"), f"{where} low_freq_factor"),
          "rope_high": positive(parameters.get("high_freq_factor"), f"{where} high_freq_factor"),
          "rope_context": int(positive(context, f"{where} original_max_position_embeddings"))}


def write(config: DecoderConfig) -> dict:
  """The keys of both spellings, so that transformers before and after version 5 read the same model."""
  stretching = write_scaling(config)
  return {"rope_theta": config.rope_theta, "rope_scaling": stretching,
          "rope_parameters": {"rope_type": "default", **(stretching or {}), "rope_theta": config.rope_theta}}


def write_scaling(config: DecoderConfig) -> dict | None:
  """The value of `rope_scaling`; None if positions are not stretched."""
  if config.rope_scaling == "none":
    return None
  if config.rope_scaling == "linear":
    return {"rope_type": "linear", "factor": config.rope_factor}
  return {"rope_type": "llama3", "factor": config.rope_factor, "low_freq_factor": config.rope_low,
          "high_freq_factor": config.rope_high, "original_max_position_embeddings": config.rope_context}


def _table(keys: Keys, name: str) -> dict:
  value = keys.get(name) or {}
  if not isinstance(value, dict):
    raise ValueError(f"{keys.where}: {name} is {value!r}; it must be a table or null.")
  return value
