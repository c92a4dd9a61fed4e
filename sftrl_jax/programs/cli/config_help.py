"""The page of `VERB --config=FILE --help`: every key with its value, type, choices and meaning."""

import dataclasses
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from sftrl_jax.programs.config import values
from sftrl_jax.programs.config.schema import Schema, Section, expanded, keys_of

WIDTH = 120

# The keys outside all sections, and the sections.
MEANINGS = {
    "seed": "of everything random; runs with equal configs and seeds are equal",
    "steps": "SFT updates, or RL iterations",
    "batch": "rows of one SFT update, or episodes of one RL iteration",
    "start": "scratch, base:NAME (a shipped one), or the workdir of a run, also at gs://: DIR, DIR@STEP or "
             "DIR@best:VARIANT",
    "max_nonfinite": "steps in a row with a skipped update (loss or gradient not finite) after which the run stops",
    "flops": "total FLOPs at which the run stops; 0 for no limit",
    "algorithm": "the method of rl; another one replaces the section of the old one by its own, with its defaults",
    "env": "the task: fields of the environment named by env.name",
    "reward": "path/to/file.py:function(chat, response, verdict) -> float; empty for the environment's own rewards",
    "tokenizer": "how text becomes ids",
    "model": "the decoder, or a family of your own by path in model.name",
    "lora": "adapters that are trained instead of the model; rank 0 for none",
    "data": "the data of SFT: demonstrations of the environment, or rows of your own",
    "evals": "when and how success is measured, per variant",
    "rollout": "how responses are sampled in training",
    "ppo": "the objective: a clipped policy and a value function",
    "grpo": "the objective: each episode against the others of its group; Dr. GRPO and DAPO are settings of it",
    "rloo": "the objective: REINFORCE, the other episodes of a group as the baseline",
    "optimizer": "the update rule; args are its arguments",
    "schedule": "of the learning rate, in optimizer updates",
    "compute": "how a batch is split; changes results only by rounding",
    "mesh": "how arrays are split over devices, and CPU threads",
    "checkpoint": "when the state is saved, and which checkpoints are kept",
    "log": "when metrics are written",
    "study": "bases, methods, seeds and the budget they share",
}


@dataclasses.dataclass(frozen=True)
class Row:
  """One key of a resolved config.

  section: "" for a key outside all sections
  kind: its type, with the choices if they are closed
  """

  section: str
  path: str
  value: object
  kind: str
  meaning: str


def page(config: ConfigDict, schema: Schema) -> str:
  """The keys of a resolved config as text, section by section. It uses no device."""
  lines, section = [], ""
  for row in rows(config, schema):
    if row.section != section:
      section = row.section
      lines += ["", f"{section}: {MEANINGS[section]}" if section in MEANINGS else section]
    lines += _lines(row)
  return "\n".join(lines)


def rows(config: ConfigDict, schema: Schema) -> Iterator[Row]:
  """A row for every key: first the keys outside all sections, then section by section."""
  tree = config.to_dict()
  schema, keys = expanded(tree, schema), keys_of(tree, schema)
  sections = [name for name, key in keys.items() if isinstance(key, dict) or isinstance(tree[name], dict)]
  for name, key in keys.items():
    if name not in sections:
      yield Row("", name, tree[name], values.describe(key.kind), MEANINGS.get(name, ""))
  for name in sections:
    if isinstance(keys[name], dict):
      yield from _section(name, name, tree[name], keys[name], schema[name])
    else:
      yield from (Row(name, f"{name}.{key}", value, type(value).__name__, "") for key, value in tree[name].items())


def _section(section: str, path: str, tree: Mapping[str, Any], keys: Mapping[str, Any],
             dataclass: Section) -> Iterator[Row]:
  """The rows of a section or of a dataclass inside one. path: its dotted name"""
  dataclass = dataclass(tree) if isinstance(dataclass, types.FunctionType) else dataclass
  described = {"name": "the class that has the other keys",
               "path": "rows of your own instead: a file, a directory, or owner/name on the hub", **meanings(dataclass)}
  for name, key in keys.items():
    if isinstance(key, dict):
      inner = next(field.type for field in dataclasses.fields(dataclass) if field.name == name)
      yield from _section(section, f"{path}.{name}", tree[name], key, inner)
    else:
      yield Row(section, f"{path}.{name}", tree[name], values.describe(key.kind), described.get(name, ""))


def meanings(section: type) -> dict[str, str]:
  """{field: meaning} of a dataclass; "" for a field without one.

  A meaning is the field's metadata "help", else `field: meaning` in the docstring of the class or of a base (with the
  more indented lines below), else the comment at the end of the field's line.
  """
  lineage = [part for part in section.__mro__ if dataclasses.is_dataclass(part)]
  document = "\n".join(inspect.cleandoc(part.__doc__ or "") for part in lineage)
  source = "\n".join(map(inspect.getsource, lineage))
  result = {}
  for field in dataclasses.fields(section):
    in_docstring = re.search(rf"^( *)(?:\w+, )*{field.name}(?:, \w+)*: (.+(?:\n\1 +.+)*)", document, re.MULTILINE)
    in_comment = re.search(rf"^\s+{field.name}: .*?  # (.+)$", source, re.MULTILINE)
    text = in_docstring[2] if in_docstring else in_comment[1] if in_comment else ""
    result[field.name] = field.metadata.get("help", " ".join(text.split()))
  return result


def choices(path: str) -> tuple[str, ...]:
  """The names that a key takes, where its type is only str; () for any other key.

  It imports their tables here: they need JAX, and this module does not.
  """
  user_class = "path/to/file.py:Class"
  if path == "env.name":
    from sftrl_jax.envs import ENVS
    return (*ENVS, user_class)
  if path == "optimizer.name":
    from sftrl_jax.training.optimizers.catalogue import catalogue
    return (*catalogue().entries, "path/to/file.py:function")
  if path == "algorithm":
    from sftrl_jax.training.algorithms import ALGORITHMS
    return tuple(ALGORITHMS)
  named = {"tokenizer.name": ("words", "bytes", "pretrained"), "model.name": ("decoder", "pretrained", user_class)}
  return named.get(path, ())


def _lines(row: Row) -> list[str]:
  """A row on one line if it fits, else with its meaning below it; its names are always below."""
  value = str(row.value).lower() if isinstance(row.value, bool) else str(row.value)
  key = f"  --config.{row.path}={textwrap.shorten(value, 60, placeholder=' ...')}"
  line = f"{key:<48} {row.kind:<18} {row.meaning}".rstrip()
  names = f"One of: {', '.join(choices(row.path))}." if choices(row.path) else ""
  if len(line) <= WIDTH:
    return [line, *_below(names)]
  return [f"{key:<48} {row.kind}", *_below(row.meaning), *_below(names)]


def _below(text: str) -> list[str]:
  return textwrap.wrap(text, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
