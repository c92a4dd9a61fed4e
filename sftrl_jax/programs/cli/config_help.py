"""The page that `VERB --config=FILE --help` prints: every key with its value, type, choices and meaning."""

import dataclasses
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Mapping

from ml_collections import ConfigDict

from sftrl_jax.programs.config import values
from sftrl_jax.programs.config.schema import Key, expanded, keys_of

WIDTH = 120

# Of the keys outside all sections, and of the sections themselves, of every config.
MEANINGS = {
    "seed": "of everything random; runs with equal configs and seeds are equal",
    "steps": "updates of SFT or preference, or RL iterations",
    "batch": "rows of one update, or episodes of one RL iteration",
    "start": "scratch, base:NAME (a shipped one), or the workdir of a run, also at gs://: DIR, DIR@STEP or "
             "DIR@best:VARIANT, each with :ema for its average; mix:A,B,0.5 for the weights between two of these",
    "max_nonfinite": "steps in a row with a skipped update (not finite, as loss or gradient) after which it stops",
    "max_dropped": "episodes of each kind (metrics dropped/prompt, dropped/env, dropped/reward, dropped/demonstration) "
                   "that training, or one evaluation of a variant, may leave out; may change on resume",
    "verdict_seconds": "that one call of the task's reset or step, its reward included, may take; 0 for no limit",
    "verdict_workers": "threads that call a task's reset and step (its reward included) at one time, where these take "
                       "over a millisecond and state thread_safe = True; 1: one after another; may change on resume",
    "max_without_signal": "iterations in a row whose rewards are all alike (in each group) after which the run stops; "
                          "0 for never",
    "flops": "total FLOPs at which the run stops; 0 for no limit",
    "algorithm": "the method of rl, whose section there is; another one brings its own with its defaults",
    "env": "the task: fields of the environment named by env.name",
    "reward": "path/to/file.py:function(chat, response, verdict) -> float, or of TRL's form, (prompts, completions, "
              "**kwargs) -> list; empty for the environment's own rewards",
    "own_reward": "how the function of config.reward is called, and what it may take",
    "reward_model": "a reward model whose scores are learned from in the place of the environment's rewards",
    "tokenizer": "how text becomes ids",
    "model": "the decoder, or a family of your own by path in model.name",
    "lora": "adapters that are trained in the model's stead; rank 0 for none",
    "data": "what SFT is shown: demonstrations of the environment, or rows of your own; pairs for preference",
    "objective": "what preference trains: dpo (the policy) or reward (a reward model); its section is there",
    "dpo": "the objective: log-ratios to the start as rewards, of which the preferred response has the higher",
    "bradley_terry": "the objective of a reward model: the preferred response has the higher score",
    "evals": "when and how success is measured, per variant",
    "rollout": "how responses are sampled in training",
    "sft": "the objective of SFT: cross-entropy, or a variant of it",
    "ppo": "the objective: a clipped policy and a value function",
    "grpo": "the objective: episodes against others that begin alike; Dr. GRPO, DAPO, GSPO and CISPO are settings",
    "rloo": "the objective: REINFORCE, the other episodes of a group as the baseline",
    "reinforce_plus_plus": "the objective: PPO with whitened returns in the place of a value function",
    "self_sft": "the objective: cross-entropy on its own responses that are correct, fresh every iteration",
    "dagger": "the objective: cross-entropy on the expert's response at a state of every episode",
    "distill": "the objective: the reverse KL to a teacher's distribution on its own responses",
    "teacher": "whose distribution algorithm distill, or sft.loss distill, learns, and what it reads besides",
    "optimizer": "the rule that updates the parameters; args are its own",
    "ema": "an average of the parameters that is evaluated beside them, as variants ema:VARIANT",
    "schedule": "of the learning rate, in optimizer updates",
    "compute": "how a batch is cut into pieces; changes no result but for rounding",
    "mesh": "how arrays lie on the devices, and CPU threads",
    "checkpoint": "when the state is written and which are kept",
    "log": "when metrics are written",
    "study": "bases, methods, seeds and the budget they share",
}


@dataclasses.dataclass(frozen=True)
class KeyRow:
  """One key of a resolved config.

  section: "" for a key outside all sections
  path: the dotted key
  kind: its type, with its choices where the type lists them
  """

  section: str
  path: str
  value: object
  kind: str
  meaning: str


def page(config: ConfigDict, schema: Mapping) -> str:
  """The keys of a resolved config as text, section by section. Asks for no device."""
  lines, section = [], ""
  for row in rows(config, schema):
    if row.section != section:
      section = row.section
      lines += ["", f"{section}: {MEANINGS[section]}" if section in MEANINGS else section]
    lines += _lines(row)
  return "\n".join(lines)


def rows(config: ConfigDict, schema: Mapping) -> Iterator[KeyRow]:
  """Every key with its meaning: first those outside all sections, then section by section."""
  tree = config.to_dict()
  schema, keys = expanded(tree, schema), keys_of(tree, schema)
  sections = [name for name, key in keys.items() if isinstance(key, dict) or isinstance(tree[name], dict)]
  for name, key in keys.items():
    if name not in sections:
      yield KeyRow("", name, tree[name], values.describe(key.kind), MEANINGS.get(name, ""))
  for name in sections:
    if isinstance(keys[name], dict):
      yield from _section_rows(name, name, tree[name], keys[name], schema[name])
    else:
      yield from (KeyRow(name, f"{name}.{key}", value, type(value).__name__, "") for key, value in tree[name].items())


def _section_rows(section: str, path: str, tree: dict, keys: dict[str, Key | dict], schema) -> Iterator[KeyRow]:
  """The keys of a section or of a dataclass inside it. schema: the dataclass, or the function that chooses it."""
  dataclass = schema(tree) if isinstance(schema, types.FunctionType) else schema
  help_of = {"name": "which class the other keys belong to",
             "path": "of rows of your own, instead: a file, a directory, or owner/name on the hub",
             **meanings(dataclass)}
  for name, key in keys.items():
    if isinstance(key, dict):
      nested = next(field.type for field in dataclasses.fields(dataclass) if field.name == name)
      yield from _section_rows(section, f"{path}.{name}", tree[name], key, nested)
    else:
      yield KeyRow(section, f"{path}.{name}", tree[name], values.describe(key.kind), help_of.get(name, ""))


def meanings(section: type) -> dict[str, str]:
  """{field: meaning} of a dataclass: the field's metadata "help", else `field: meaning` in the docstring of the class
  (with the more indented lines that follow), else the comment at the end of the field's line."""
  lineage = [part for part in section.__mro__ if dataclasses.is_dataclass(part)]
  document = "\n".join(inspect.cleandoc(part.__doc__ or "") for part in lineage)
  source = "\n".join(map(inspect.getsource, lineage))
  by_field = {}
  for field in dataclasses.fields(section):
    described = re.search(rf"^( *)(?:\w+, )*{field.name}(?:, \w+)*: (?P<text>.+(?:\n\1 +.+)*)", document, re.MULTILINE)
    match = described or re.search(rf"^\s+{field.name}: .*?  # (?P<text>.+)$", source, re.MULTILINE)
    by_field[field.name] = field.metadata.get("help", " ".join(match["text"].split()) if match else "")
  return by_field


def choices(path: str) -> tuple[str, ...]:
  """The names that a key takes where its type does not list them; () for any other key.

  Imports the table that lists them, which may import JAX.
  """
  own = "path/to/file.py:Class"
  if path == "env.name":
    from sftrl_jax.programs.experiment.environment import ENVIRONMENTS
    return (*ENVIRONMENTS, own)
  if path == "optimizer.name":
    from sftrl_jax.training.optimizers.catalogue import catalogue
    return (*catalogue().entries, "path/to/file.py:function")
  if path == "algorithm":
    from sftrl_jax.training.algorithms import ALGORITHMS
    return tuple(ALGORITHMS)
  named = {"tokenizer.name": ("words", "bytes", "pretrained"), "model.name": (
      "decoder", "tiny_vlm", "idefics3", "mllama", "pretrained", own)}
  return named.get(path, ())


def _lines(row: KeyRow) -> list[str]:
  """A row on one line if it fits, else its meaning and its names below."""
  key = f"  --config.{row.path}={textwrap.shorten(values.text_of(row.value), 60, placeholder=' ...')}"
  whole = f"{key:<48} {row.kind:<18} {row.meaning}".rstrip()
  names = choices(row.path)
  list_of_names = f"One of: {', '.join(names)}." if names else ""
  if len(whole) <= WIDTH:
    return [whole, *_below(list_of_names)]
  return [f"{key:<48} {row.kind}", *_below(row.meaning), *_below(list_of_names)]


def _below(text: str) -> list[str]:
  return textwrap.wrap(text, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
