"""Writing a model as a Hugging Face directory, tensor by tensor, first under a hidden name beside it.

A killed export leaves only the hidden directory, which the next one removes.
"""

import collections
import dataclasses
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sftrl_jax import __version__, trees
from sftrl_jax.checkpoints import families, fill, picture_files, safetensors
from sftrl_jax.checkpoints.families.table import Tensor
from sftrl_jax.models import DecoderConfig
from sftrl_jax.parallel import hosts
from sftrl_jax.projections import is_stacked

LARGEST = 5_000_000_000   # bytes of a file of weights
MARK = "sftrl_jax_version"   # the key in config.json that marks a directory as our export
REWARD = "sftrl_jax_reward"   # the key in config.json of a reward model with what its logits lack, see ScoreHead
# The classes of transformers with one number for a text, where they are not named as all are.
SCORERS = {"gemma3_text": "Gemma3TextForSequenceClassification",
           **dict.fromkeys(("granite", "idefics3", "smolvlm", "mllama"))}


@dataclasses.dataclass(frozen=True)
class ScoreHead:
  """The head of a reward model, beside which the model is written as one of AutoModelForSequenceClassification.

  kernel: [width]. Its classes have no bias: a logit is the raw score without it
  bias: of a raw score
  scale: reward_scale.json of the run, {} without: (logit + bias - mean) / sd is the scaled score
  """

  kernel: Any
  bias: float
  scale: dict = dataclasses.field(default_factory=dict)


def scorer_of(config: DecoderConfig) -> str:
  """The class of a reward model; ValueError where transformers has none."""
  name = families.of(config)
  scorer = SCORERS.get(name, families.FAMILIES[name].ARCHITECTURE.replace("CausalLM", "SequenceClassification"))
  if scorer is None:
    raise ValueError(f"transformers has no class for a reward model of the family {name}: export the model without its "
                     "score, or keep it as a workdir.")
  return scorer


def refuse_occupied(directory: Path) -> None:
  """ValueError for a path that holds anything but an earlier export."""
  if not directory.exists():
    return
  if not directory.is_dir():
    raise ValueError(f"{directory} is a file: give the name of a directory.")
  names = sorted(path.name for path in directory.iterdir())
  if names and MARK not in (_read_json(directory / "config.json") or {}):
    raise ValueError(f"{directory} is not empty ({', '.join(names[:3])}) and is no export of sftrl: give another "
                     "directory, or empty it.")


def write(directory: Path, config: DecoderConfig, params: dict, tokenizer: Any, like: Path | None,
          head: ScoreHead | None = None) -> None:
  """Writes an export. All processes must call it, to gather arrays; process 0 writes. head: of a reward model."""
  refuse_occupied(directory)
  names = families.names_of(families.FAMILIES[families.of(config)], config)
  dtype = np.dtype(params["embed"].dtype)
  if dtype not in safetensors.NAMES:
    raise ValueError(f"The parameters are {dtype}, which is not written; cast them to float32 or bfloat16.")
  if head is not None:
    scorer_of(config)
    params = {**{name: leaf for name, leaf in params.items() if name != "unembed"},
              "score": {"kernel": head.kernel[:, None]}}
    names = {**names, "score/kernel": Tensor("score.weight", "dv -> v d")}
  writes = jax.process_index() == 0
  part = directory.absolute().with_name(f".{directory.absolute().name}.partial")
  try:
    if writes:
      shutil.rmtree(part, ignore_errors=True)
      part.mkdir(parents=True)
    _write_weights(part, names, params, dtype, writes)
    if writes:
      write_config(part, config, tokenizer, like, str(dtype))
      if head is not None:
        _make_scorer(part, config, head)
      _move(part, directory.absolute())
  except BaseException:
    if writes:
      shutil.rmtree(part, ignore_errors=True)
    raise


def _write_weights(part: Path, names: dict[str, Tensor], params: dict, dtype: np.dtype, writes: bool) -> None:
  """Writes one file, or several and an index above LARGEST. Fetches one parameter (with all its layers) at a time."""
  shapes = fill.named(params, names)
  bytes_of = lambda name: math.prod(shapes[name]) * dtype.itemsize
  tensors_of = tensors(names, params, dtype)
  if not writes:
    collections.deque(tensors_of, maxlen=0)   # this process only takes part in gathering
    return
  files, size = [[]], 0
  for name in shapes:
    if files[-1] and size + bytes_of(name) > LARGEST:
      files.append([])
      size = 0
    files[-1].append(name)
    size += bytes_of(name)
  file_names = [safetensors.SINGLE] if len(files) == 1 else [
      f"model-{number:05}-of-{len(files):05}.safetensors" for number in range(1, len(files) + 1)]
  for file, names_in_file in zip(file_names, files, strict=True):
    # `tensors_of` yields in the order of `shapes`, of which each file has the next few.
    safetensors.write(part / file, {name: shapes[name] for name in names_in_file}, dtype,
                      (next(tensors_of) for _ in names_in_file))
  if len(files) > 1:
    file_of = {name: file for file, names_in_file in zip(file_names, files, strict=True) for name in names_in_file}
    _write_json(part / safetensors.INDEX,
                {"metadata": {"total_size": sum(map(bytes_of, shapes))}, "weight_map": file_of})


def tensors(names: dict[str, Tensor], params: dict, dtype: np.dtype) -> Iterator[tuple[str, np.ndarray]]:
  """(name, tensor) in the order of the parameters, each gathered whole. All processes must iterate over all."""
  leaves = trees.leaves(params)
  for paths in fill.sharing(params, names).values():
    stacked, arrays = is_stacked(paths[0]), [_whole(leaves[path], dtype) for path in paths]
    for n in range(len(arrays[0]) if stacked else 1):
      parts = [names[path].outward(array[n] if stacked else array) for path, array in zip(paths, arrays, strict=True)]
      yield names[paths[0]].of_layer(n), parts[0] if len(parts) == 1 else np.concatenate(parts)


def _whole(leaf: Any, dtype: np.dtype) -> np.ndarray:
  local = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
  return np.asarray(leaf if local else hosts.whole_arrays(leaf), dtype)


def write_config(part: Path, config: DecoderConfig, tokenizer: Any, like: Path | None, dtype: str) -> None:
  """Writes config.json, generation_config.json, and the tokenizer with its chat template into an existing directory.

  Both name every id at which our own generation stops: a base model's files know no end of a turn in a chat.
  """
  own = {}
  if hasattr(tokenizer, "save"):   # tokenizers of our own vocabularies have no files
    tokenizer.save(part)
    own = _read_json(part / "generation_config.json") or {}
  values, generation = _unchanged(like, config, "config.json"), _unchanged(like, config, "generation_config.json")
  if values is None:
    name = families.of(config)
    family = families.FAMILIES[name]
    values = {"model_type": name, "architectures": [family.ARCHITECTURE], **family.written(config)}
  values.pop("auto_map", None)   # names code that is not exported
  values["tie_word_embeddings"] = config.tie_embeddings
  _write_json(part / "config.json", {**_with_ids(values, tokenizer, own), "dtype": dtype, "torch_dtype": dtype,
                                     MARK: __version__})
  for file, contents in picture_files.written(config, like).items():
    _write_json(part / file, contents)
  generation = _with_ids(generation or {}, tokenizer, own)
  if generation:
    _write_json(part / "generation_config.json", generation)


def _make_scorer(part: Path, config: DecoderConfig, head: ScoreHead) -> None:
  """Turns the config.json of a model into that of a reward model.

  transformers reads the score at the last token that is no padding. Where that id ends a response too, it would read
  the one before the end: the file then names no padding, and transformers takes one text at a time.
  """
  values = _read_json(part / "config.json")
  ends = values.get("eos_token_id")
  if values.get("pad_token_id") in (ends if isinstance(ends, list) else [ends]):
    values["pad_token_id"] = None
  values |= {"architectures": [scorer_of(config)], "id2label": {"0": "score"}, "label2id": {"score": 0},
             REWARD: {"bias": head.bias, **{name: head.scale[name] for name in ("mean", "sd") if name in head.scale}}}
  _write_json(part / "config.json", values)
  (part / "generation_config.json").unlink(missing_ok=True)


def _with_ids(values: dict, tokenizer: Any, own: dict) -> dict:
  """The values of a file with the ids that open, fill and end: `own`, which the tokenizer's files give; else those that
  are there, if the tokenizer has them; else what it uses itself."""
  if tokenizer is None:
    return values
  ids = {}
  for name, used in (("bos_token_id", tokenizer.bos), ("pad_token_id", tokenizer.pad)):
    there = values.get(name)
    fits = type(there) is int and 0 <= there < getattr(tokenizer, "size", there + 1)
    ids[name] = own.get(name, there if fits else used)
  ends = list(dict.fromkeys((tokenizer.eos, *getattr(tokenizer, "stops", ()))))
  ids["eos_token_id"] = ends if ends[1:] else ends[0]
  return {**values, **{name: number for name, number in ids.items() if number is not None}}


def _unchanged(like: Path | None, config: DecoderConfig, name: str) -> dict | None:
  """A JSON file of the directory that the model came from; None if there is none, or its model differs from config.

  Its flag of tied embeddings may be wrong (see hf.describe).
  """
  model = None if like is None else _read_json(like / "config.json")
  if model is None:
    return None
  described = picture_files.described(like, families.describe(model, str(like / "config.json")))
  if families.differences(config, dataclasses.replace(described, tie_embeddings=config.tie_embeddings)):
    return None
  return _read_json(like / name)


def _move(part: Path, directory: Path) -> None:
  if directory.exists() and any(directory.iterdir()):
    aside = directory.with_name(f".{directory.name}.replaced")
    shutil.rmtree(aside, ignore_errors=True)
    directory.rename(aside)
    os.replace(part, directory)
    shutil.rmtree(aside)
  else:
    os.replace(part, directory)   # also over an empty directory


def _read_json(path: Path) -> dict | None:
  """The table in a JSON file; None if there is no sound one."""
  try:
    table = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError, RecursionError):
    return None
  return table if isinstance(table, dict) else None


def _write_json(path: Path, value: dict) -> None:
  path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
