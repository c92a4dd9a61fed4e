"""`FILE.py:smoke`: any experiment on a toy scale, on one CPU in under a minute. The same code path, nothing learned.

It shrinks the keys that make a run long or large. Task, method, optimizer and variants stay, and so do the shapes that
follow from the task. Every config takes `smoke` as its last choice, whatever its file defines.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sftrl_jax.programs.config import nested

WORD = "smoke"

# JAX reads these at import. An accelerator may be busy with the real run, and optimized programs take longer to compile
# than they save in three steps.
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

# Those of training/algorithms.py, which imports JAX.
METHODS = ("ppo", "reinforce_plus_plus", "grpo", "rloo", "self_sft", "dagger", "distill")
# 16 episodes or rows: enough for two minibatches of two microbatches, and for eight devices.
ROWS = 16
EXACTLY = {
    "steps": 3, "flops": 0.0, "batch": ROWS, "start": "scratch", "mesh": {"cpu_threads": 1},
    "model.vocab": 0, "model.width": 16, "model.heads": 2, "model.head_dim": 0, "model.mlp_dim": 0,
    "rollout.rows": ROWS, "rollout.shrink": (0.5,), "evals.episodes": ROWS, "evals.every": 0, "evals.at": (),
    "compute.lengths": 1,   # each length more is compiled for longer than three steps take
    "checkpoint.every": 2, "log.every": 1}   # saved in the middle and at the end
# Where the file has a larger number; the defaults are small.
AT_MOST = {
    "model.layers": 2, "model.kv_heads": 1, "model.unroll": 1, "compute.microbatches": 2, "schedule.warmup": 1,
    "schedule.updates": 3, "sft.minibatches": 2,
    **{f"{method}.{key}": 2 for method in METHODS for key in ("epochs", "minibatches", "max_rounds")}}
# Where the file has the key, also if its number is smaller: a number below 4 need not divide 16.
WHERE_GIVEN = {"grpo.group": 4, "rloo.group": 4}
# Where pairs are sampled: a model from scratch is never right, so that all its responses are ties, and seldom ends one.
PAIRS = {"data.pairs": 8, "data.heldout_pairs": 4, "data.ties": "coin", "data.prompts_limit": 4096}
# In place of a pretrained model, whose weights a toy should not load, our decoder reads bytes. A token of a real
# vocabulary is a few bytes, but a chat template's own tokens fall away. A response may be cut off.
BYTES = {"rollout.prompt_tokens": 3, "rollout.feedback_tokens": 3, "data.length": 3, "teacher.demonstration_tokens": 3}
MOST_BYTES, RESPONSE = 2816, 12
# In place of a large model that reads pictures: this one resizes any picture to one tile of 2 x 2 features.
LARGE_READERS = ("mllama", "idefics3")
SMALL_READER = {"name": "idefics3", "image_height": 16, "image_width": 16, "image_longest": 16, "patch": 4,
                "tower_side": 4, "image_splitting": False, "tower_width": 8, "tower_heads": 2, "tower_layers": 1,
                "tower_mlp_dim": 16}
# A study runs its methods' own :smoke, from one newborn model, so that it needs no base and no other process.
STUDY = {"study.bases": 1, "study.seeds": 1, "study.jobs": 1, "study.flops": 0.0, "study.eval_episodes": ROWS,
         "study.at": (), "study.shipped": "scratch", "study.bases_of": {}}
CROWD = 2   # methods of a toy study; each is a process


def split(spec: str) -> tuple[str, str, bool]:
  """(file, choice, whether :smoke ends the spec) of FILE.py[:choice][:smoke]; without `.py:` the spec is the file."""
  head, colon, rest = spec.partition(".py:")
  if not colon:
    return spec, "", False
  choice, _, last = rest.rpartition(":")
  return (f"{head}.py", choice, True) if last == WORD else (f"{head}.py", rest, False)


def small(spec: str) -> str:
  """The same spec with `:smoke`."""
  return spec if split(spec)[2] else f"{spec}:{WORD}"


def smoke(config: Mapping) -> ConfigDict:
  """The toy scale of a config as its file gives it. Mistakes in it stay: `resolve` raises their errors."""
  tree = nested.plain(config)
  return ConfigDict(_study(tree) if isinstance(tree.get("study"), dict) else _run(tree))


def _run(tree: dict) -> dict:
  if _at(tree, "model.name") == "pretrained":
    tree = _without_weights(tree)
  elif _at(tree, "model.name") in LARGE_READERS:
    tree = _with_model(tree, SMALL_READER)
  for path, most in AT_MOST.items():
    value = _at(tree, path)
    if type(value) is int and value > most:
      nested.put(tree, path, most)
  never = {"rollout.shrink"} if _at(tree, "rollout.shrink") in ((), []) else set()
  given = {path: value for path, value in WHERE_GIVEN.items() if type(_at(tree, path)) is int}
  pairs = PAIRS if "objective" in tree and not _at(tree, "data.path") else {}
  given |= {"teacher.start": "scratch"} if _at(tree, "teacher.start") else {}
  given |= {"evals.task_limit": 2} if _at(tree, "evals.tasks") else {}
  return _put(tree, {**{path: value for path, value in EXACTLY.items() if path not in never}, **given, **pairs})


def _without_weights(tree: dict) -> dict:
  """The config of a pretrained model as one of our decoder over bytes."""
  for path, bytes_per_token in BYTES.items():
    value = _at(tree, path)
    if type(value) is int:
      nested.put(tree, path, min(bytes_per_token * value, MOST_BYTES))
  if type(_at(tree, "rollout.max_new_tokens")) is int:
    nested.put(tree, "rollout.max_new_tokens", RESPONSE)
  return {**_with_model(tree, SMALL_READER if _at(tree, "env.vision") else {}), "tokenizer": {"name": "bytes"}}


def _with_model(tree: dict, family: dict) -> dict:
  """The config with a model of one layer and of some family, computed as the one that it replaces."""
  kept = {key: value for key, value in tree["model"].items() if key in ("dtype", "remat")}
  return {**tree, "model": {**kept, **family, "layers": 1}}


def _study(tree: dict) -> dict:
  study = tree["study"]
  if isinstance(study.get("methods"), dict):
    left_out = _left_out(study)
    study["methods"] = {method: small(str(spec)) for method, spec in study["methods"].items()}
    for key in ("methods", "labels", "overrides", "notes", "uses"):
      if isinstance(study.get(key), dict):
        study[key] = {method: value for method, value in study[key].items() if method not in left_out}
    if isinstance(study.get("prepares"), dict):
      study["prepares"] = {name: small(str(spec)) for name, spec in study["prepares"].items() if _is_used(study, name)}
      kept = {*study["methods"], *study["prepares"], "base"}
      study["overrides"] = {name: keys for name, keys in study.get("overrides", {}).items() if name in kept}
    if isinstance(study.get("claims"), (list, tuple)):
      study["claims"] = tuple(claim for claim in study["claims"] if not isinstance(claim, dict)
                              or not any(claim.get(key) in left_out for key in ("method", "comparison")))
  for key in ("base", "base_start"):
    if study.get(key):
      study[key] = small(str(study[key]))
  overrides = study.get("overrides")
  for method, changed in overrides.items() if isinstance(overrides, dict) else ():
    if isinstance(changed, dict):
      kept = {key: value for key, value in nested.flat(changed).items() if not _decided(key)}
      overrides[method] = nested.plain(kept)
  study["name"] = f"{study.get('name', '')} ({WORD}: a toy scale that shows nothing)".strip()
  return _put(tree, STUDY)


def _is_used(study: dict, name: str) -> bool:
  """Whether a method of the study uses this run of study.prepares."""
  uses = study.get("uses")
  return isinstance(uses, dict) and any(str(place).partition("/")[0] == name for keys in uses.values()
                                        if isinstance(keys, dict) for place in nested.flat(keys).values())


def _left_out(study: dict) -> list:
  """The methods that a toy study leaves out: with more than CROWD, all but the reference and one more."""
  methods = sorted(study["methods"], key=lambda method: method != study.get("reference"))
  return methods[2:] if len(methods) > CROWD else []


def _put(tree: dict, values: dict) -> dict:
  for path, value in values.items():
    section = path.rpartition(".")[0]
    if not section or isinstance(tree.get(section, {}), dict):
      nested.put(tree, path, dict(value) if isinstance(value, dict) else value)
  return tree


def _at(tree: dict, path: str) -> Any:
  section, _, key = path.partition(".")
  return tree[section].get(key) if isinstance(tree.get(section), dict) else None


def _decided(key: str) -> bool:
  """Whether the toy scale sets this key."""
  return any(key == path or key.startswith(f"{path}.") for path in (*EXACTLY, *AT_MOST, *WHERE_GIVEN))
