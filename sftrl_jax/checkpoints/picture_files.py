"""The files of a model's directory that say how it reads pictures: preprocessor_config.json, processor_config.json.

Both spellings of transformers are read: a file of its own, and since version 5 a table inside processor_config.json.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from sftrl_jax.checkpoints import families
from sftrl_jax.checkpoints.families.keys import Keys
from sftrl_jax.models import DecoderConfig

OWN, WHOLE, INSIDE = "preprocessor_config.json", "processor_config.json", "image_processor"


def described(directory: Path, config: DecoderConfig) -> DecoderConfig:
  """The config with what the directory's files say of pictures; as it is for a model of text, and without such files.

  ValueError for what no model here has, and where the files and the model disagree about placeholders.
  """
  family = _family(config)
  if family is None:
    return config
  values, where = _options(directory)
  if values is None:
    return config
  try:
    config = dataclasses.replace(config, **family.read_pictures(Keys(values, where, family.PICTURE_DEFAULTS)))
  except ValueError as error:
    raise error if str(error).startswith(where) else ValueError(f"{where}: {error}") from None
  whole = _table(directory / WHOLE) or {}
  tokens = whole.get("image_seq_len", config.image_tokens)
  if tokens != config.image_tokens:
    raise ValueError(f"{directory / WHOLE}: image_seq_len is {tokens!r}, but config.json and {where} give "
                     f"{config.image_tokens} features for a tile of {config.image_height} x {config.image_width} "
                     f"pixels: set image_seq_len to {config.image_tokens}, or max_image_size to the model's.")
  return config


def written(config: DecoderConfig, like: Path | None) -> dict[str, dict]:
  """{name: contents} of the files of an export: those of `like` where they still say the same, else transformers' keys
  of the config; {} for a model of text."""
  family = _family(config)
  if family is None:
    return {}
  if like is not None and _options(like)[0] is not None:
    if not families.differences(config, described(like, config)):
      return {name: table for name in (OWN, WHOLE) if (table := _table(like / name)) is not None}
  return family.written_pictures(config)


def _family(config: DecoderConfig) -> Any:
  """The family of a model that reads pictures; None for another."""
  kinds = (family for family in families.FAMILIES.values() if getattr(family, "CONFIG", None) is type(config))
  return next(kinds, None)


def _options(directory: Path) -> tuple[dict | None, str]:
  """(the keys of the image processor, the file that has them); (None, ...) where no file has."""
  own, whole = directory / OWN, directory / WHOLE
  if own.is_file():
    return _table(own), str(own)
  inside = (_table(whole) or {}).get(INSIDE)
  if inside is not None and not isinstance(inside, dict):
    raise ValueError(f"{whole}: {INSIDE} is {inside!r}; it must be a table.")
  return inside, str(whole)


def _table(path: Path) -> dict | None:
  """The table in a JSON file; None where there is no file."""
  if not path.is_file():
    return None
  try:
    table = json.loads(path.read_text(encoding="utf-8"))
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path} is no sound JSON: {error}.") from None
  if not isinstance(table, dict):
    raise ValueError(f"{path} holds {type(table).__name__}; it must be a table.")
  return table
