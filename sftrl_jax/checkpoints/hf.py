"""Reading and writing Hugging Face directories: config.json, safetensors and tokenizer files, without torch.

No code in a directory is ever run, and no pickle is read.
"""

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from sftrl_jax.checkpoints import export, families, fill, picture_files, safetensors, source
from sftrl_jax.checkpoints.families.table import Tensor
from sftrl_jax.checkpoints.fill import Loaded
from sftrl_jax.models import DecoderConfig
from sftrl_jax.parallel import rules

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
PICTURE = {"<image_soft_token>"}   # Gemma's text models have no row for it, and no text is tokenized to it
AT_ONCE = 1 << 22   # numbers of two tables that are compared at a time
BUFFER = re.compile(r".*\.rotary_emb\.inv_freq")   # in older files, and not a parameter


def load(directory: Path | str, dtype: str = "float32", mesh: Mesh | None = None) -> Loaded:
  """A model, its parameters in `dtype` over the mesh (None: on one device), and its tokenizer if it has one."""
  config = dataclasses.replace(describe(directory), dtype=dtype)
  loaded_tokenizer = tokenizer(directory, config)   # its errors come before the weights are read, which takes long
  return Loaded(config, load_params(directory, config, dtype, parameter_shardings(config, mesh)), loaded_tokenizer)


def describe(directory: Path | str) -> DecoderConfig:
  """The model of config.json; ValueError for an unknown architecture or feature.

  A flag that ties the head to the embedding is wrong where both are there and differ, as transformers 5 has it.
  """
  path = Path(directory) / "config.json"
  config = picture_files.described(Path(directory), families.describe(table_of(path), str(path)))
  own_head = config.tie_embeddings and _has_own_head(Path(directory), config)
  return dataclasses.replace(config, tie_embeddings=False) if own_head else config


def load_params(directory: Path | str, config: DecoderConfig, dtype: str = "float32", shardings: Any = None) -> dict:
  """The parameters, each tensor read straight into this host's shards. shardings: a tree, or None for one device."""
  entries = checked(directory, config)   # before any tensor is read, which takes long
  read = lambda name: entries[name].read()
  return jax.block_until_ready(fill.fill(config, _names(directory, config), dtype, shardings, read))


def checked(directory: Path | str, config: DecoderConfig) -> dict[str, safetensors.TensorEntry]:
  """{name: entry} of every tensor; one ValueError for all that are missing, surplus or of another shape."""
  entries = _entries(Path(directory))
  wanted = fill.named(fill.shapes_of(config), _names(directory, config))
  embedding, head = _tables(directory, config)
  if config.tie_embeddings and head in entries:
    entries.setdefault(embedding, entries[head])   # one table under the other name
  elif not config.tie_embeddings and head not in entries and embedding in entries:
    raise ValueError(f"{directory} holds no {head}, and its config.json does not tie it to {embedding}: fetch the "
                     "missing weights, or set tie_word_embeddings to true there if the model has one table for both.")
  ignored = lambda name: bool(BUFFER.fullmatch(name)) or (config.tie_embeddings and name == head)
  fill.refuse_others(str(directory), {name: entry.shape for name, entry in entries.items()}, wanted, ignored)
  return {name: entries[name] for name in wanted}


def _has_own_head(directory: Path, config: DecoderConfig) -> bool:
  """Whether the head is there beside an embedding of other numbers; False for a directory without sound weights, which
  is an error where they are read."""
  try:
    entries = _entries(directory)
    pair = [entries[name] for name in _tables(directory, config)]
  except (ValueError, KeyError):
    return False
  return not _equal(*((entry, source.stamp(entry.path)) for entry in pair))


@functools.lru_cache(maxsize=8)
def _equal(left: tuple[safetensors.TensorEntry, str], right: tuple[safetensors.TensorEntry, str]) -> bool:
  """Whether two tensors hold the same numbers. Each comes with its file's stamp."""
  if left[0].shape != right[0].shape or len(left[0].shape) != 2:
    return False
  tables, rows = [entry.read() for entry, _ in (left, right)], max(1, AT_ONCE // max(1, left[0].shape[-1]))
  return all(np.array_equal(*(table[start : start + rows] for table in tables))
             for start in range(0, len(tables[0]), rows))


def tokenizer(directory: Path | str, config: DecoderConfig) -> Any:
  """The directory's tokenizer, None if it has none; ValueError for one with more ids than the model has rows."""
  directory = Path(directory)
  if not any((directory / name).is_file() for name in TOKENIZER_FILES):
    return None
  refuse_larger(directory, config.vocab)
  from sftrl_jax.text import pretrained
  return pretrained.load(directory, stops=stops(directory))


def stops(directory: Path | str) -> tuple[int, ...]:
  """The ids at which generation ends, from generation_config.json or config.json."""
  for name in ("generation_config.json", "config.json"):
    path = Path(directory) / name
    ids = table_of(path).get("eos_token_id") if path.is_file() else None
    if ids is not None:
      return tuple(ids) if isinstance(ids, list) else (ids,)
  return ()


def refuse_larger(directory: Path, vocab: int) -> None:
  """ValueError if tokenizer.json has ids beyond the model's vocabulary."""
  path = directory / "tokenizer.json"
  if not path.is_file():
    return
  table = table_of(path)
  try:
    entries = table["model"].get("vocab") or {}
    ids = dict(entries) if isinstance(entries, dict) else {piece[0]: index for index, piece in enumerate(entries)}
    ids.update((token["content"], token["id"]) for token in table.get("added_tokens") or ())
    beyond = sorted(token for token, index in ids.items() if index >= vocab and token not in PICTURE)
  except (AttributeError, KeyError, TypeError, IndexError) as error:
    raise ValueError(f"{path} is no sound tokenizer ({type(error).__name__}: {error}).") from None
  if beyond:
    raise ValueError(f"{path} has {len(beyond)} ids beyond the model's vocabulary of {vocab}, such as "
                     f"{', '.join(map(repr, beyond[:3]))}: it is the tokenizer of another model.")


def dtype_of(directory: Path | str) -> str:
  """float32 or bfloat16, whichever holds the directory's weights without loss."""
  dtypes = {entry.dtype for entry in safetensors.entries(Path(directory)).values() if entry.dtype in safetensors.FLOATS}
  return "bfloat16" if dtypes == {"BF16"} else "float32"


def save(directory: Path | str, config: DecoderConfig, params: dict, tokenizer: Any = None,
         like: Path | str = "", head: export.ScoreHead | None = None) -> None:
  """Writes a directory that transformers can load, atomically. A collective call.

  directory: new, empty, or an earlier export, which is replaced
  tokenizer: None, or one of text.pretrained; tokenizers of our own vocabularies write no files
  like: the directory the model came from, whose config.json and generation_config.json are kept if they still hold
  head: of a reward model, which AutoModelForSequenceClassification then opens
  """
  export.write(Path(directory), config, params, tokenizer, Path(like) if like else None, head)


def save_config(directory: Path | str, config: DecoderConfig, tokenizer: Any = None, like: Path | str = "") -> None:
  """Writes all files but the weights into an existing directory: config.json, generation_config.json, and those of the
  tokenizer, if any. like: as in `save`."""
  export.write_config(Path(directory), config, tokenizer, Path(like) if like else None, config.dtype)


def parameter_shardings(config: DecoderConfig, mesh: Mesh | None) -> Any:
  """A sharding for each parameter over a mesh; None for None."""
  return None if mesh is None else rules.shardings({"model": fill.shapes_of(config)}, mesh)["model"]


def table_of(path: Path) -> dict:
  """The table in a JSON file; ValueError for a missing or damaged one."""
  try:
    table = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise ValueError(f"{path.parent} holds no {path.name}: it is no directory of a Hugging Face model.") from None
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path} is no sound JSON: {error}.") from None
  if not isinstance(table, dict):
    raise ValueError(f"{path} holds {type(table).__name__}; it must be a table.")
  return table


def _entries(directory: Path) -> dict[str, safetensors.TensorEntry]:
  """{name as the family's table has it: entry}."""
  path = directory / "config.json"
  family = families.named(table_of(path), str(path))
  return {families.spelled(family, name): entry for name, entry in safetensors.entries(directory).items()}


def _tables(directory: Path | str, config: DecoderConfig) -> tuple[str, str]:
  """The names of the embedding and of the head."""
  names = _names(directory, config)
  return names["embed"].name, names["unembed"].name


def _names(directory: Path | str, config: DecoderConfig) -> dict[str, Tensor]:
  path = Path(directory) / "config.json"
  return families.names_of(families.named(table_of(path), str(path)), config)
