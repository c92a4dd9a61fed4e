"""The runs of a study: their names, commands and order, and what study.json records of them."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from sftrl_jax.programs.config import nested, resolve, values
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.run_config import verb_of
from sftrl_jax.programs.runtime.process import cores
from sftrl_jax.programs.study.config import StudyConfig
from sftrl_jax.programs.study.process_pool import ChildRun


def expand(study: StudyConfig, workdir: PurePath) -> list[ChildRun]:
  """The study's runs in the order in which they should start. ConfigError for a config file that cannot be loaded.

  The first comparison comes first. The other bases follow, since every method waits for its base, and a core would idle
  while the last base trains. The rest goes seed by seed, so that all bases are compared early.
  """
  jobs = study.jobs or cores()
  runs = [_run(f"base-{base}", "sft", study.base, workdir, jobs,
               {**_dotted(study.overrides.get("base", {})), "seed": base}) for base in range(study.bases) if study.base]
  budget = {"flops": study.flops} if study.flops else {}
  evals = {**({"evals.episodes": study.eval_episodes} if study.eval_episodes else {}),
           **({"evals.at": tuple(study.at), "evals.every": 0} if study.at else {})}
  verbs = {method: _training_verb(method, spec) for method, spec in study.methods.items()}
  for seed in range(study.seeds):
    for base in range(study.bases):
      for method, spec in study.methods.items():
        start = str(workdir / "runs" / f"base-{base}") if study.base else _shipped(study, base)
        keys = {**budget, **evals, **_dotted(study.overrides.get(method, {})), "seed": 100 * (base + 1) + seed,
                "start": start}
        runs.append(_run(f"base-{base}-{method}-{seed}", verbs[method], spec, workdir, jobs, keys,
                         needs=f"base-{base}" if study.base else ""))
  return sorted(runs, key=lambda run: _rank(run.name))


def method_of(name: str) -> str:
  """The method of a run by its name, or "base"."""
  return name.split("-")[2] if name.count("-") > 1 else "base"


def record(study: StudyConfig, command: str, hardware: str) -> dict[str, Any]:
  """The content of study.json: what the report reads besides the runs.

  command: the command line of the study
  hardware: one line about the machine
  """
  return {
      "name": study.name, "claim": study.claim, "bases": list(range(study.bases)), "seeds": list(range(study.seeds)),
      "methods": {method: study.labels.get(method, method.upper()) for method in study.methods}, "flops": study.flops,
      "id": study.id, "ood": study.ood, "reference": study.reference, "disclosure": list(study.disclosure),
      "command": command, "hardware": hardware,
  }


def _rank(name: str) -> int:
  """0 to 3: the first base, the first comparison, the other bases, the other runs."""
  if name == "base-0":
    return 0
  if name.startswith("base-0-") and name.endswith("-0"):
    return 1
  return 2 if method_of(name) == "base" else 3


def _shipped(study: StudyConfig, base: int) -> str:
  """config.start of a method's run where the study trains no base itself."""
  return study.shipped if study.shipped == "scratch" else f"base:{study.shipped}_{base}"


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
