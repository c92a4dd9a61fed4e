"""The runs of a study: their names, commands and order, and what study.json records of them."""

import json
import os

from sftrl_jax.programs.config import nested, resolve
from sftrl_jax.programs.study import process_pool


def expand(study, workdir) -> list[process_pool.Run]:
  """The study's runs in the order in which they are wanted.

  The first comparison first; then the other bases, since two runs wait for each and a core would idle at the end while
  the last one trains; then seed by seed, so that all bases are compared early.
  """
  jobs = study.jobs or cores()
  runs = [_run(f"base-{base}", "sft", study.base, workdir, jobs,
               {**_dotted(study.overrides.get("base", {})), "seed": base}) for base in range(study.bases) if study.base]
  budget = {"flops": study.flops} if study.flops else {}
  evals = {**({"evals.episodes": study.eval_episodes} if study.eval_episodes else {}),
           **({"evals.at": tuple(study.at), "evals.every": 0} if study.at else {})}
  shared = {**budget, **evals}
  for seed in range(study.seeds):
    for base in range(study.bases):
      for method, spec in study.methods.items():
        name = f"base-{base}-{method}-{seed}"
        begin = str(workdir / "runs" / f"base-{base}") if study.base else _shipped(study, base)
        keys = {**shared, **_dotted(study.overrides.get(method, {})), "seed": 100 * (base + 1) + seed,
                "start": begin}
        runs.append(_run(name, verb_of(spec), spec, workdir, jobs, keys, needs=f"base-{base}" if study.base else ""))
  return sorted(runs, key=lambda run: _rank(run.name))


def _rank(name) -> int:
  """Stages of a study: what the first comparison needs, that comparison, the other bases, the other runs."""
  if name == "base-0":
    return 0
  return 1 if name.startswith("base-0-") and name.endswith("-0") else 2 if name.count("-") == 1 else 3


def method_of(name) -> str:
  """The method of a run by its name, or "base"."""
  return name.split("-")[2] if name.count("-") > 1 else "base"


def _shipped(study, base) -> str:
  """Where a base comes from that the study does not train itself."""
  return study.shipped if study.shipped == "scratch" else f"base:{study.shipped}_{base}"


def verb_of(spec) -> str:
  """A config that names an algorithm is for rl, any other for sft. ConfigError when the file cannot be read."""
  return "rl" if "algorithm" in resolve.load(spec) else "sft"


def record(study, command, hardware) -> dict:
  """study.json: what the report needs to know besides the runs."""
  return {
      "name": study.name, "claim": study.claim, "bases": list(range(study.bases)), "seeds": list(range(study.seeds)),
      "methods": {method: study.labels.get(method, method.upper()) for method in study.methods}, "flops": study.flops,
      "id": study.id, "ood": study.ood, "reference": study.reference, "disclosure": list(study.disclosure),
      "command": command, "hardware": hardware,
  }


def _run(name, verb, spec, workdir, jobs, keys, needs="") -> process_pool.Run:
  home = workdir / "runs" / name
  keys = {**keys, "mesh.cpu_threads": _threads(home, jobs), "log.report": False}
  words = (verb, f"--config={spec}", f"--workdir={home}",
           *(f"--config.{key}={_text(value)}" for key, value in keys.items()))
  return process_pool.Run(name, words, home, workdir / "logs" / f"{name}.txt", needs)


def _threads(home, jobs) -> int:
  """CPU threads of a run: its share of the cores; one that has begun keeps what it began with, since its bits depend
  on it."""
  try:
    begun = json.loads((home / "config.json").read_text())["mesh"]["cpu_threads"]
  except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, KeyError):
    begun = 0
  return begun or max(1, cores() // jobs)


def _dotted(overrides) -> dict:
  """{"a.b": value} of overrides however they are nested."""
  return nested.flat(nested.plain(overrides))


def _text(value) -> str:
  """A value as `--config.key=` reads it."""
  return str(value).lower() if isinstance(value, bool) else str(value)


def cores() -> int:
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
