"""`FILE.py:smoke`: any experiment on a toy scale, on one CPU in under a minute. The same code path, nothing learned.

What makes a run long or large is made small; what says what the run is (task, method, optimizer, variants) stays, and
so do the shapes that follow from the task. `smoke` is every config's own last choice: no file has to know of it.
"""

from ml_collections import ConfigDict

from sftrl_jax.programs.config import nested

WORD = "smoke"

# What JAX reads when it is imported: an accelerator may be busy with the real run, and compiling takes longer than
# three steps ever gain by it.
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

# 16 episodes or rows: enough for two minibatches of two microbatches, and for eight devices.
ROWS = 16
EXACTLY = {
    "steps": 3, "flops": 0.0, "batch": ROWS, "start": "scratch", "mesh": {"cpu_threads": 1},
    "model.vocab": 0, "model.width": 16, "model.heads": 2, "model.head_dim": 0, "model.mlp_dim": 0,
    "rollout.rows": ROWS, "rollout.shrink": (0.5,), "evals.episodes": ROWS, "evals.every": 0, "evals.at": (),
    "checkpoint.every": 2, "log.every": 1}   # saved in the middle and at the end
# Where the file says more; what it leaves out has a small default.
AT_MOST = {
    "model.layers": 2, "model.kv_heads": 1, "model.unroll": 1, "compute.microbatches": 2, "schedule.warmup": 1,
    "schedule.updates": 3,
    **{f"{method}.{key}": 2 for method in ("ppo", "grpo", "rloo") for key in ("epochs", "minibatches", "max_rounds")}}
# Where the file says anything: a number that is at most 4 need not divide 16.
WHERE_GIVEN = {"grpo.group": 4, "rloo.group": 4}
# A pretrained model needs its weights, which a toy does without: our decoder reads bytes instead, of which a token of a
# real vocabulary is a few; a chat template's own tokens are saved. A response need not be whole.
BYTES = {"rollout.prompt_tokens": 2, "rollout.feedback_tokens": 1, "data.length": 2}
MOST_BYTES, RESPONSE = 640, 12
# A study runs its methods' own :smoke, from one newborn model, so that it needs no base and no other process.
STUDY = {"study.bases": 1, "study.seeds": 1, "study.jobs": 1, "study.flops": 0.0, "study.eval_episodes": ROWS, "study.at": (),
         "study.shipped": "scratch"}
CROWD = 2   # methods of a study that are run


def split(spec: str) -> tuple[str, str, bool]:
  """(file, choice, whether it is to be small) of FILE.py[:choice][:smoke]; without .py the file is all of it."""
  head, colon, rest = spec.partition(".py:")
  if not colon:
    return spec, "", False
  choice, _, last = rest.rpartition(":")
  return (f"{head}.py", choice, True) if last == WORD else (f"{head}.py", rest, False)


def small(spec: str) -> str:
  """The same spec with `:smoke`."""
  return spec if split(spec)[2] else f"{spec}:{WORD}"


def smoke(config) -> ConfigDict:
  """The toy scale of a config as its file gives it. Sections that are none, and wrong keys, are left to be told."""
  tree = nested.plain(config)
  return ConfigDict(_study(tree) if isinstance(tree.get("study"), dict) else _run(tree))


def _run(tree: dict) -> dict:
  if _at(tree, "model.name") == "pretrained":
    tree = _without_weights(tree)
  for path, most in AT_MOST.items():
    value = _at(tree, path)
    if type(value) is int and value > most:
      nested.put(tree, path, most)
  never = {"rollout.shrink"} if _at(tree, "rollout.shrink") in ((), []) else set()
  given = {path: value for path, value in WHERE_GIVEN.items() if type(_at(tree, path)) is int}
  return _put(tree, {**{path: value for path, value in EXACTLY.items() if path not in never}, **given})


def _without_weights(tree: dict) -> dict:
  """The config of a pretrained model as one of our decoder over bytes."""
  for path, bytes_per_token in BYTES.items():
    value = _at(tree, path)
    if type(value) is int:
      nested.put(tree, path, min(bytes_per_token * value, MOST_BYTES))
  if type(_at(tree, "rollout.max_new_tokens")) is int:
    nested.put(tree, "rollout.max_new_tokens", RESPONSE)
  tree["model"] = {**{key: value for key, value in tree["model"].items() if key in ("dtype", "remat")}, "layers": 1}
  return {**tree, "tokenizer": {"name": "bytes"}}


def _study(tree: dict) -> dict:
  study = tree["study"]
  if isinstance(study.get("methods"), dict):
    left_out = _left_out(study)
    study["methods"] = {method: small(str(spec)) for method, spec in study["methods"].items()}
    for key in ("methods", "labels", "overrides"):
      if isinstance(study.get(key), dict):
        study[key] = {method: value for method, value in study[key].items() if method not in left_out}
  if study.get("base"):
    study["base"] = small(str(study["base"]))
  overrides = study.get("overrides")
  for method, changed in overrides.items() if isinstance(overrides, dict) else ():
    if isinstance(changed, dict):
      kept = {key: value for key, value in nested.flat(changed).items() if not _decided(key)}
      overrides[method] = nested.plain(kept)
  study["name"] = f"{study.get('name', '')} ({WORD}: a toy scale that shows nothing)".strip()
  return _put(tree, STUDY)


def _left_out(study: dict) -> list:
  """Methods that are not run: of a crowd, where each would be a process, all but the reference and one more."""
  methods = sorted(study["methods"], key=lambda method: method != study.get("reference"))
  return methods[2:] if len(methods) > CROWD else []


def _put(tree: dict, values: dict) -> dict:
  for path, value in values.items():
    section = path.rpartition(".")[0]
    if not section or isinstance(tree.get(section, {}), dict):
      nested.put(tree, path, dict(value) if isinstance(value, dict) else value)
  return tree


def _at(tree: dict, path: str):
  section, _, key = path.partition(".")
  return tree[section].get(key) if isinstance(tree.get(section), dict) else None


def _decided(key: str) -> bool:
  """Whether the toy scale says what this key is."""
  return any(key == path or key.startswith(f"{path}.") for path in (*EXACTLY, *AT_MOST, *WHERE_GIVEN))
