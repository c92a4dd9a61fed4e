"""The house rules that a machine can hold: imports point down, JAX stays out of some rooms, files keep their size."""

import ast
import functools
import io
import pathlib
import subprocess
import sys
import tokenize

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "sftrl_jax"
FLOORS = {
    "paths": -1,   # the ground: what a path is
    "shapes": 0, "trees": 0, "metrics": 0, "inputs": 0, "projections": 0, "readout": 0, "chat": 0, "alarms": 0,
    "jsonl": 0, "pictures": 0,
    "models": 1, "envs": 1, "objectives": 1, "text": 1, "parallel": 1, "forecast": 1,
    "checkpoints": 2, "data": 2, "rollout": 2,
    "training": 3,
    "programs": 4,
    "main": 5,
}
# Inside programs/: a verb is a file or a folder here; config, runtime, experiment and loop serve them.
PROGRAM_FLOORS = {
    "config": 0,
    "runtime": 1, "own_reward": 1,
    "start": 2,
    "experiment": 3,
    "sample": 4, "data": 4, "convert": 4, "study": 4,
    "harness": 5,
    "loop": 6,
    "sft": 7, "rl": 7, "preference": 7, "evaluate": 7, "label": 7,
    "trainers": 8, "bench": 8,
    "plan": 9,
    "check": 10,
    "cli": 11,
}
BESIDE = "report"   # imports no room, and may be imported by these only
# But what has no JAX: a run and its report mean the same by an alarm, a path, a file of lines and a forecast.
WORDS_OF_REPORT = {"alarms", "paths", "jsonl", "forecast"}
READERS_OF_REPORT = {"sftrl_jax/programs/cli/commands.py", "sftrl_jax/programs/study/run.py",
                     "sftrl_jax/programs/study/config.py"}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}
# Imported before JAX may be: threads are not decided yet, or a mistake has to be printed at once.
LIGHT_ROOMS = {"envs", "pictures", "report", "forecast", "chat", "alarms", "paths", "jsonl"}
LIGHT_FOLDERS = {"programs/config", "programs/runtime", "programs/study"}
LIGHT_FILES = {"main.py", "__main__.py", *(f"programs/{name}.py" for name in (
    "cli/verbs", "cli/commands", "cli/config_help", "cli/experiments", "experiment/run_config", "start/checkpoint_ref",
    "start/mix", "experiment/environment", "check/run", "check/expert_episodes", "check/adversarial",
    "check/task_checks"))}
MOST_FILES = 12   # of a folder, without __init__.py
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "base", "core", "lib"}
VAGUE_NAMES = {"told", "said", "found", "made", "one", "other"}
LONGEST = 350
MOST_PARAMETERS = 8
# Modules whose tests are somewhere else: this list may only shrink.
WITHOUT_TESTS = {"__main__.py"}

FILES = sorted(path for path in PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
CAMPAIGN = ROOT / "tests" / "faults"   # a program of its own, which tests/test_faults.py checks
SCRIPTS = sorted([*(ROOT / "configs").rglob("*.py")])


def of_each(paths):
  """A test of one file becomes one of all, which names every file that fails: thousands of tests of a millisecond each
  take a minute to collect and report."""
  def of_all(check):
    def test():
      failures = []
      for path in paths:
        try:
          check(path)
        except AssertionError as error:
          failures.append(f"{path.relative_to(ROOT)}: {str(error).splitlines()[0]}")
      assert paths
      if failures:
        pytest.fail("\n".join(failures), pytrace=False)
    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test
  return of_all


@functools.cache
def tree_of(path):
  return ast.parse(path.read_text(), str(path))


def room_of(path):
  return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules_imported(tree, top_level_only=False):
  """Dotted names of what a file imports; `from a import b` counts as a.b, since b may be a module."""
  nodes = top_level(tree) if top_level_only else ast.walk(tree)
  for node in nodes:
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"line {node.lineno}: write the whole name, not a relative import"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_level(node):
  """Nodes that run at import: everything but the bodies of functions."""
  for child in ast.iter_child_nodes(node):
    if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
      yield child
      yield from top_level(child)


def rooms_imported(tree):
  for name in modules_imported(tree):
    parts = name.split(".")
    if parts[0] == "sftrl_jax" and len(parts) > 1 and parts[1] in {*FLOORS, BESIDE}:
      yield parts[1]


@of_each(FILES)
def test_imports_point_down(path):
  here, name = room_of(path), str(path.relative_to(ROOT))
  if here in ("__init__", "__main__"):
    return
  assert here in FLOORS or here == BESIDE, f"{name}: room {here} has no floor; give it one in tests/test_floors.py."
  for there in rooms_imported(tree_of(path)):
    if there == here:
      continue
    if BESIDE in (here, there):
      assert here != BESIDE or there in WORDS_OF_REPORT, (
          f"{name} imports {there}, but report imports no room: it reads workdirs.")
      assert here == BESIDE or name in READERS_OF_REPORT, (
          f"{name} imports report, but only {', '.join(READERS_OF_REPORT)} may.")
    else:
      assert FLOORS[there] < FLOORS[here], (
          f"{name} (floor {FLOORS[here]}) may not import {there} (floor {FLOORS[there]}), see FLOORS here.")


@of_each([path for path in FILES if path.is_relative_to(PACKAGE / "programs") and path.name != "__init__.py"])
def test_imports_point_down_inside_programs(path):
  here = path.relative_to(PACKAGE / "programs").parts[0].removesuffix(".py")
  assert here in PROGRAM_FLOORS, f"{here} has no floor inside programs/; give it one in tests/test_floors.py."
  for name in modules_imported(tree_of(path)):
    parts = name.split(".")
    if parts[:2] == ["sftrl_jax", "programs"] and len(parts) > 2 and parts[2] not in (here, "__name__"):
      assert PROGRAM_FLOORS[parts[2]] < PROGRAM_FLOORS[here], (
          f"{path.relative_to(ROOT)} may not import programs/{parts[2]}: it is not on a lower floor.")


def graph_of_imports():
  """{module: modules of the house that it imports}, imports inside functions counted."""
  modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
  graph = {}
  for module, path in modules.items():
    imported = set()
    for name in modules_imported(tree_of(path)):
      imported.add(name if name in modules else name.rpartition(".")[0])
    graph[module] = (imported & set(modules)) - {module}
  return graph


def test_no_circle_between_files():
  graph = graph_of_imports()
  assert len(graph) > 150
  while leaves := [module for module, imported in graph.items() if not imported & set(graph)]:
    for module in leaves:
      del graph[module]
  # What is left imports itself over others, or is imported by such a file.
  while unused := [module for module in graph if not any(module in imported for imported in graph.values())]:
    for module in unused:
      del graph[module]
  assert not graph, f"These files import each other in a circle: {', '.join(sorted(graph))}"


def test_a_folder_can_be_seen_at_once():
  for folder in sorted({path.parent for path in FILES} | {CAMPAIGN}):
    files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(files) <= MOST_FILES, f"{folder.relative_to(ROOT)} has {len(files)} files: make a room of some."


@of_each(FILES)
def test_jax_stays_out_of_what_is_light(path):
  name = str(path.relative_to(PACKAGE))
  if room_of(path) in LIGHT_ROOMS:
    imported = modules_imported(tree_of(path))
  elif name in LIGHT_FILES or str(path.parent.relative_to(PACKAGE)) in LIGHT_FOLDERS:
    imported = modules_imported(tree_of(path), top_level_only=True)
  else:
    return
  for module in imported:
    assert module.split(".")[0] not in JAX, f"{name} may not import {module}."


@pytest.mark.parametrize("module", ["main", "programs.config.resolve", "programs.study.run", "programs.cli.config_help",
                                    "programs.check.task_checks", "programs.experiment.run_config", "envs"])
def test_importing_a_light_module_loads_no_jax(module):
  heavy = JAX | {"transformers", "datasets"}
  code = f"import sys, sftrl_jax.{module}; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
  assert done.returncode == 0, f"sftrl_jax.{module} loads {done.stderr}"


def test_checking_a_config_loads_no_orbax():
  heavy = {"orbax", "transformers", "datasets", "torch"}
  code = f"import sys, sftrl_jax.programs.experiment.build; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
  assert done.returncode == 0, f"A misspelt key would be told only after loading {done.stderr}."


@of_each([*FILES, *TESTS, *SCRIPTS])
def test_a_file_can_be_read_in_one_sitting(path):
  named_for_content = path.stem not in BANNED_NAMES or path in SCRIPTS   # configs/.../base.py is about a base model
  assert named_for_content, f"{path.name} says nothing about its content: name it for its noun."
  lines = len(path.read_text().splitlines())
  assert lines <= LONGEST, f"{path.relative_to(ROOT)} has {lines} lines; split it (at most {LONGEST})."


@of_each([*FILES, *SCRIPTS])
def test_nothing_is_evaluated_and_nothing_is_swallowed(path):
  for node in ast.walk(tree_of(path)):
    where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
      assert node.func.id not in ("eval", "exec"), f"{where} calls {node.func.id}."
    if isinstance(node, ast.ExceptHandler):
      assert node.type is not None, f"{where}: a bare except also catches Ctrl-C; name the error."
      silent = all(isinstance(statement, ast.Pass) for statement in node.body)
      broad = isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
      assert not (silent and broad), f"{where} swallows every error."


@of_each([*FILES, *SCRIPTS])
def test_a_local_name_is_a_noun_of_the_field(path):
  """`told` once stood for a message, a record, a dict of metrics, a flag and six other things."""
  for node in ast.walk(tree_of(path)):
    bound = [node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else []
    bound += [node.arg] if isinstance(node, ast.arg) else []
    bound += [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
    for name in bound:
      assert name not in VAGUE_NAMES, f"{path.relative_to(ROOT)}:{node.lineno} calls something {name}: name what it is."


@of_each(FILES)
def test_parameters_are_one_hand_full(path):
  for node in ast.walk(tree_of(path)):
    if isinstance(node, ast.FunctionDef):
      count = len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs)
      count -= node.args.args[:1] != [] and node.args.args[0].arg in ("self", "cls")
      assert count <= MOST_PARAMETERS, (
          f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {count} parameters: give it one frozen dataclass.")


@of_each(FILES)
def test_nothing_is_left_to_do(path):
  for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
    if token.type == tokenize.COMMENT:
      assert not {"TODO", "FIXME", "XXX"} & set(token.string.replace(":", " ").replace("(", " ").split()), token


@of_each([path for path in FILES if room_of(path) != BESIDE])
def test_randomness_has_a_seed(path):
  for node in ast.walk(tree_of(path)):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
      call = ast.unparse(node.func)
      seeded = call in ("random.Random", "np.random.default_rng", "numpy.random.default_rng") and node.args
      if call.startswith(("np.random.", "numpy.random.", "random.")):
        assert seeded, f"{path.relative_to(ROOT)}:{node.lineno} draws from a global state: {call}."


def test_every_module_has_its_tests_where_they_are_looked_for():
  owed = set()
  for path in FILES:
    name = path.relative_to(PACKAGE)
    test = ROOT / "tests" / name.parent / f"test_{name.name}"
    if path.name != "__init__.py" and not test.exists():
      owed.add(str(name))
  settled, new = sorted(WITHOUT_TESTS - owed), sorted(owed - WITHOUT_TESTS)
  assert not settled, f"These have tests now, take them off WITHOUT_TESTS: {settled}"
  assert not new, f"These have no test_NAME.py in the same folder of tests/: {new}"


def test_every_test_file_mirrors_a_module():
  for path in TESTS:
    name = path.relative_to(ROOT / "tests")
    module = PACKAGE / name.parent / name.name.removeprefix("test_")
    alone = path.name in ("conftest.py", "__init__.py") or path.parent in (ROOT / "tests", CAMPAIGN)
    script = (ROOT / name.parent / module.name).with_suffix(".sh")   # tests/launch mirrors launch
    assert alone or module.exists() or script.exists(), (
        f"tests/{name} mirrors no module: there is no {module.relative_to(ROOT)}.")


def test_every_long_case_is_one_of_a_test_that_exists():
  """tests/long_cases.txt: what a default run leaves out."""
  lines = (ROOT / "tests" / "long_cases.txt").read_text().splitlines()
  cases = [line for line in lines if line and not line.startswith("#")]
  assert cases and len(set(cases)) == len(cases)
  for case in cases:
    file, _, name = case.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / "tests" / file).read_text(), f"tests/long_cases.txt: no {case}"
