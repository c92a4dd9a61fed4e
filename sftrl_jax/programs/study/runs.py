"""The runs of a study: their names, commands and order, and what study.json records of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from sftrl_jax.programs.config import nested, resolve, values
from sftrl_jax.programs.config.errors import ConfigError, nearest
from sftrl_jax.programs.experiment.run_config import verb_of
from sftrl_jax.programs.runtime.process import cores
from sftrl_jax.programs.study.config import MIX, START, StudyConfig, mixed
from sftrl_jax.programs.study.process_pool import ChildRun


def expand(study: StudyConfig, workdir: PurePath) -> list[ChildRun]:
  """The study's runs in the order in which they should start. ConfigError for a config file that cannot be loaded.

  The first comparison comes first. The other bases follow, since every method waits for its base, and a core would idle
  while the last base trains. The rest goes seed by seed, so that all bases are compared early.
  """
  jobs = study.jobs or cores()
  groups = base_groups(study)
  trained = {group: source for group, source in groups.values() if _is_file(source)}
  runs = [_run(_base_name(base, START), "sft", study.base_start, workdir, jobs, {"seed": base})
          for base in range(study.bases) if study.base_start]
  for base in range(study.bases):
    for group, source in trained.items():
      needs = _base_name(base, START) if study.base_start and not group else ""
      start = {"start": str(workdir / "runs" / needs)} if needs else {}
      runs.append(_run(_base_name(base, group), "sft", source, workdir, jobs,
                       {**_dotted(study.overrides.get("base", {})), **start, "seed": base}, needs))
  budget = {"flops": study.flops} if study.flops else {}
  specs = {**study.prepares, **study.methods}   # what is used comes before what uses it
  verbs = {name: _training_verb(name, spec) for name, spec in specs.items()}
  # Those that start where another one ends come after it.
  names = sorted(specs, key=lambda name: bool(below(study, groups[name][1])))
  for seed in range(study.seeds):
    for base in range(study.bases):
      for name in names:
        group, source = groups[name]
        ends = below(study, source)
        needs = f"base-{base}-{ends}-{seed}" if ends else (_base_name(base, group) if group in trained else "")
        start = str(workdir / "runs" / needs) if needs else _shipped(source, base)
        if source.startswith(MIX):
          own = str(workdir / "runs" / _base_name(base, "")) if "" in trained else _shipped(study.shipped, base)
          start = f"{MIX}{own},{start},{mixed(source)[1]:g}"
        used = {key: f"base-{base}-{of}-{seed}{slash}{file}" for key, value in _dotted(study.uses.get(name, {})).items()
                for of, slash, file in [value.partition("/")]}
        needs = min(used.values()).partition("/")[0] if used else needs
        keys = {**({**budget, **_evals(study, name)} if name in study.methods else {}),
                **{key: str(workdir / "runs" / place) for key, place in used.items()},
                **_dotted(study.overrides.get(name, {})), "seed": 100 * (base + 1) + seed, "start": start}
        runs.append(_run(f"base-{base}-{name}-{seed}", verbs[name], specs[name], workdir, jobs, keys, needs))
  return sorted(runs, key=lambda run: _rank(run.name))


def select(runs: Sequence[ChildRun], names: Sequence[str]) -> list[ChildRun]:
  """The runs of some methods, in their order, with the runs that these need; all of them where no name is given.

  names: of methods, of runs of study.prepares, or "base". ConfigError for one that no run has
  """
  known = dict.fromkeys(method_of(run.name) for run in runs)
  for name in names:
    if name not in known:
      raise ConfigError(f"--only names {name!r}, which no run of the study has{nearest(name, known)}")
  wanted = {run.name for run in runs if not names or method_of(run.name) in names}
  for run in reversed(runs):   # what a run needs comes before it
    if run.name in wanted and run.needs:
      wanted.add(run.needs)
  return [run for run in runs if run.name in wanted]


def base_groups(study: StudyConfig) -> dict[str, tuple[str, str]]:
  """{name: (group, source)} of the bases that a method, or a run of study.prepares, starts from.

  group: "" for the bases of the study, else the first method with the same source in study.bases_of
  source: FILE.py[:choice] of their pre-training, the name of shipped bases, or of the method whose runs they are
  """
  default, groups, first = study.base or study.shipped, {}, {}
  for method in (*study.methods, *study.prepares):
    source = study.bases_of.get(method, default)
    groups[method] = ("" if source == default else first.setdefault(source, method), source)
  return groups


def below(study: StudyConfig, source: str) -> str:
  """The method at whose end runs of this source begin, alone or mixed with the base; "" where there is none."""
  method = mixed(source)[0] or source
  return method if method in study.methods else ""


def method_of(name: str) -> str:
  """The method of a run by its name, or "base"; base-0-clean is a base, since a method's run ends with its seed."""
  return name.split("-")[2] if name.count("-") > 2 else "base"


def record(study: StudyConfig, command: str, hardware: str) -> dict[str, Any]:
  """The content of study.json: what the report reads besides the runs.

  command: the command line of the study
  hardware: one line about the machine
  """
  budgets = {method: {key: value for key, value in _dotted(study.overrides.get(method, {})).items()
                      if key in ("flops", "steps")} for method in study.methods}
  return {
      "name": study.name, "claim": study.claim, "bases": list(range(study.bases)), "seeds": list(range(study.seeds)),
      "methods": {method: study.labels.get(method, method.upper()) for method in study.methods}, "flops": study.flops,
      "id": study.id, "ood": study.ood, "measure": study.measure, "claims": [dict(claim) for claim in study.claims],
      "notes": dict(study.notes), "reference": study.reference, "prepares": list(study.prepares),
      "bases_of": {method: group for method, (group, _) in base_groups(study).items()
                   if group and method in study.methods},
      "budgets": {method: budget for method, budget in budgets.items() if budget},
      "disclosure": list(study.disclosure), "command": command, "hardware": hardware,
  }


def _rank(name: str) -> int:
  """0 to 3: the first bases, the first comparison, the other bases, the other runs."""
  if name == "base-0" or (name.startswith("base-0-") and method_of(name) == "base"):
    return 0
  if name.startswith("base-0-") and name.endswith("-0"):
    return 1
  return 2 if method_of(name) == "base" else 3


def _is_file(source: str) -> bool:
  return ".py" in source


def _base_name(base: int, group: str) -> str:
  return f"base-{base}-{group}" if group else f"base-{base}"


def _shipped(name: str, base: int) -> str:
  """config.start of a method's run where the study does not train its bases."""
  return name if name == "scratch" else f"base:{name}_{base}"


def _evals(study: StudyConfig, method: str) -> dict[str, Any]:
  """The keys of a method's evaluations that the study decides."""
  shares = study.shares_of(method)
  return {**({"evals.episodes": study.eval_episodes} if study.eval_episodes else {}),
          **({"evals.at": shares, "evals.every": 0} if shares else {})}


def _training_verb(method: str, spec: str) -> str:
  """The kind of training that a method's config is for. ConfigError for a study, and for a file that does not load."""
  verb = verb_of(resolve.load(spec))
  if verb == "study":
    raise ConfigError(f"config.study.methods.{method} is {spec!r}, which is a study: name the config of one run.")
  return verb


def _run(name: str, verb: str, spec: str, workdir: PurePath, jobs: int, keys: Mapping, needs: str = "") -> ChildRun:
  home = workdir / "runs" / name
  keys = {**keys, "mesh.cpu_threads": _threads(home, jobs), "log.report": False}
  words = (verb, f"--config={spec}", f"--workdir={home}",
           *(f"--config.{key}={values.text_of(value)}" for key, value in keys.items()))
  return ChildRun(name, words, home, workdir / "logs" / f"{name}.txt", needs)


def _threads(home: Path, jobs: int) -> int:
  """CPU threads of a run: its share of the cores. A run that has begun keeps its number: its bits depend on it."""
  try:
    recorded = json.loads((home / "config.json").read_text())["mesh"]["cpu_threads"]
  except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, KeyError):
    recorded = 0
  return recorded or max(1, cores() // jobs)


def _dotted(overrides: Mapping) -> dict[str, Any]:
  """{"a.b": value} of overrides, however they are nested."""
  return nested.flat(nested.plain(overrides))
