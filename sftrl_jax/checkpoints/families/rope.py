"""Rotary frequencies in config.json: `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before)."""

import math

from sftrl_jax.checkpoints.families.keys import Keys, positive
from sftrl_jax.models import DecoderConfig

KNOWN = ("default", "linear", "llama3", "yarn")
UNKNOWN = {   # why other kinds are refused
    "dynamic": "its frequencies change with the length of the row, so keys in a cache would be of other ones",
    "longrope": "it has other frequencies for rows beyond the first context, so keys in a cache would be of other ones"}


def read(keys: Keys, partial: bool = False) -> dict:
  """The rope_... fields of DecoderConfig, for a family whose layers all rotate alike. partial: whether it can rotate a
  part of the channels."""
  parameters = {**_table(keys, "rope_parameters"), **_table(keys, "rope_scaling")}
  nested = [name for name, value in parameters.items() if isinstance(value, dict)]
  if nested:
    raise ValueError(f"{keys.where}: rope_parameters has {', '.join(nested)}; of this family only one kind of rotation "
                     "for all layers is known.")
  theta = parameters.get("rope_theta", keys.get("rope_theta"))
  return {"rope_theta": positive(theta, f"{keys.where}: rope_theta"), **scaling(keys, parameters, partial)}


def scaling(keys: Keys, parameters: dict, partial: bool = False) -> dict:
  """The fields of DecoderConfig that say how positions are stretched, from one table of rotary keys."""
  where = f"{keys.where}: rope"
  kind = parameters.get("rope_type", parameters.get("type", "default"))
  if kind not in KNOWN:
    why = f" ({UNKNOWN[kind]})" if isinstance(kind, str) and kind in UNKNOWN else ""
    raise ValueError(f"{where}_type is {kind!r}, which no model here has{why}; known: {', '.join(KNOWN)}.")
  part = parameters.get("partial_rotary_factor", keys.get("partial_rotary_factor"))
  fields = {}
  if part not in (None, 1, 1.0):
    if not partial:
      raise ValueError(f"{where}: partial_rotary_factor is {part!r}, which no model of this family has; known: 1.")
    fields["rope_part"] = positive(part, f"{where}: partial_rotary_factor")
  if kind == "default":
    return fields
  fields |= {"rope_scaling": kind, "rope_factor": positive(parameters.get("factor"), f"{where} factor")}
  if kind == "linear":
    return fields
  context = parameters.get("original_max_position_embeddings", keys.get("max_position_embeddings"))
  fields["rope_context"] = int(positive(context, f"{where} original_max_position_embeddings"))
  if kind == "yarn":
    return fields | _yarn(parameters, fields["rope_factor"], where)
  return fields | {"rope_low": positive(parameters.get("low_freq_factor"), f"{where} low_freq_factor"),
                   "rope_high": positive(parameters.get("high_freq_factor"), f"{where} high_freq_factor")}


def _yarn(parameters: dict, factor: float, where: str) -> dict:
  """The fields that only yarn has; what the table omits is as in transformers."""
  if parameters.get("truncate") not in (None, True):
    raise ValueError(f"{where}: truncate is {parameters['truncate']!r}, which no model here has; known: true.")
  number = lambda name, default: positive(parameters.get(name) or default, f"{where} {name}")
  gain = lambda strength: 1.0 if factor <= 1 else 0.1 * strength * math.log(factor) + 1.0
  both = parameters.get("mscale") and parameters.get("mscale_all_dim")
  default = gain(number("mscale", 1)) / gain(number("mscale_all_dim", 1)) if both else gain(1)
  return {"rope_low": number("beta_slow", 1), "rope_high": number("beta_fast", 32),
          "rope_gain": number("attention_factor", default)}


def write(config: DecoderConfig, partial: bool = False) -> dict:
  """The keys of both spellings, so that transformers before and after version 5 read the same model. partial: as of
  `read`."""
  stretching, part = write_scaling(config), {"partial_rotary_factor": config.rope_part} if partial else {}
  return {"rope_theta": config.rope_theta, "rope_scaling": stretching, **part,
          "rope_parameters": {"rope_type": "default", **(stretching or {}), "rope_theta": config.rope_theta, **part}}


def write_scaling(config: DecoderConfig) -> dict | None:
  """The value of `rope_scaling`; None if positions are not stretched."""
  if config.rope_scaling == "none":
    return None
  table = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
  if config.rope_scaling == "linear":
    return table
  table["original_max_position_embeddings"] = config.rope_context
  if config.rope_scaling == "yarn":
    return {**table, "attention_factor": config.rope_gain, "beta_slow": config.rope_low, "beta_fast": config.rope_high}
  return {**table, "low_freq_factor": config.rope_low, "high_freq_factor": config.rope_high}


def _table(keys: Keys, name: str) -> dict:
  value = keys.get(name) or {}
  if not isinstance(value, dict):
    raise ValueError(f"{keys.where}: {name} is {value!r}; it must be a table or null.")
  return value
