"""The page that `VERB --config=FILE --help` prints: every key with its value, type, choices and meaning."""

import dataclasses
import inspect
import re
import textwrap
import types

from sftrl_jax.programs import values
from sftrl_jax.programs.schema import keys_of

# The keys that stand in no section, and the sections: what every training config has.
MEANINGS = {
    "seed": "of everything random; runs with equal configs and seeds are equal",
    "steps": "SFT updates, or RL iterations",
    "batch": "rows of one SFT update, or episodes of one RL iteration",
    "start": "scratch, a workdir[@step|@best:VARIANT], a model directory or id, or a name the config explains",
    "flops": "total FLOPs at which the run stops; 0 for no limit",
    "algorithm": "the method of rl",
    "env": "the task: fields of the environment named by env.name",
    "model": "the decoder",
    "data": "what SFT is shown",
    "evals": "when and how success is measured, per variant",
    "rollout": "how responses are sampled in training",
    "ppo": "the objective",
    "optimizer": "the rule that updates the parameters; args are its own",
    "schedule": "of the learning rate, in optimizer updates",
    "mesh": "how arrays lie on the devices, and CPU threads",
    "checkpoint": "when the state is written and which are kept",
    "log": "when metrics are written",
    "study": "bases, methods, seeds and the budget they share",
}


def page(config, schema) -> str:
  """The keys of a resolved config as text, section by section; no device is needed."""
  tree = config.to_dict()
  lines = [_line(f"--config.{name}", tree[name], key, MEANINGS.get(name, ""))
           for name, key in keys_of(tree, schema).items() if not isinstance(key, dict) and not _free(tree[name])]
  for name, key in keys_of(tree, schema).items():
    if isinstance(key, dict) or _free(tree[name]):
      lines += ["", f"{name}: {MEANINGS[name]}" if name in MEANINGS else name]
      lines += _section(f"--config.{name}", tree[name], key, schema[name])
  return "\n".join(lines)


def meanings(section) -> dict[str, str]:
  """{field: meaning} of a dataclass: the field's metadata "help", else `field: meaning` in the docstring of the class,
  else the comment at the end of the field's line."""
  document = inspect.getdoc(section) or ""
  source = inspect.getsource(section)
  found = {}
  for field in dataclasses.fields(section):
    described = re.search(rf"^\s*(?:\w+, )*{field.name}(?:, \w+)*: (.+)$", document, re.MULTILINE)
    commented = re.search(rf"^\s+{field.name}: .*?  # (.+)$", source, re.MULTILINE)
    said = described or commented
    found[field.name] = field.metadata.get("help", said.group(1).strip() if said else "")
  return found


def _free(value) -> bool:
  return isinstance(value, dict)


def _section(prefix, tree, keys, section) -> list[str]:
  if not isinstance(keys, dict):
    return [_line(f"{prefix}.{name}", value, None, "") for name, value in tree.items()] or ["  (no keys)"]
  chosen = section(tree) if isinstance(section, types.FunctionType) else section
  said = {"name": "which class the other keys belong to", **meanings(chosen)}
  lines = []
  for name, key in keys.items():
    if isinstance(key, dict):
      nested = next(field.type for field in dataclasses.fields(chosen) if field.name == name)
      lines += _section(f"{prefix}.{name}", tree[name], key, nested)
    else:
      lines.append(_line(f"{prefix}.{name}", tree[name], key, said.get(name, "")))
  return lines


def _line(flag, value, key, meaning) -> str:
  kind = values.describe(key.kind) if key else type(value).__name__
  shown = str(value).lower() if isinstance(value, bool) else str(value)
  head = f"  {flag}={textwrap.shorten(shown, 60, placeholder=' ...')}"
  return f"{head:<48} {kind:<18} {meaning}".rstrip()
