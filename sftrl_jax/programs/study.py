"""`sftrl study`: methods compared on the same bases at the same FLOPs, every run a process, and then the report."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import shlex
import signal
import time
from pathlib import Path

from sftrl_jax import places
from sftrl_jax.programs import dotted, pool, rehearsal, settings
from sftrl_jax.programs.board import board, clock
from sftrl_jax.programs.lock import only_writer
from sftrl_jax.programs.mistakes import ConfigError, nearest, recorded
from sftrl_jax.programs.stop import STOPPED
from sftrl_jax.study import report

LIMITS = (("bases", 1, 99), ("seeds", 1, 99), ("jobs", 0, 1024), ("flops", 0, 1e30), ("hands", 0, 10**6))


@dataclasses.dataclass(frozen=True)
class Study:
  """The comparison.

  name: heading of the report
  claim: what is tested, in a sentence or two
  bases: how many base models; the unit of the statistics
  seeds: post-training seeds on each base
  methods: {method: FILE.py[:choice] of its sft or rl config}
  base: FILE.py[:choice] of the bases' pre-training; "" for the shipped bases
  shipped: where base is "", the name of the shipped bases base:NAME_0, base:NAME_1, ..., or scratch for newborn models
  labels: {method: its name in figures}; a method without one is shown in capitals
  flops: training FLOPs of every method's run; 0 leaves it to their configs
  id: the variant that is trained on
  ood: the variant that is not
  reference: the method that the others are compared with; "" for SFT, and only then claims about SFT and RL are judged
  jobs: processes at once; 0 for one per CPU core; 1 on an accelerator
  hands: evaluation episodes per variant; 0 leaves it to the configs
  at: shares of every method's run after which it is evaluated; () leaves it to the configs
  overrides: {method, or "base": {key: value}} on top of its config
  disclosure: choices that were made after seeing results
  """

  name: str
  claim: str
  methods: dict[str, str]
  bases: int = 1
  seeds: int = 1
  base: str = ""
  shipped: str = "general_points"
  labels: dict[str, str] = dataclasses.field(default_factory=dict)
  flops: float = 0.0
  id: str = "id_seen"
  ood: str = "rule_ood"
  reference: str = ""
  jobs: int = 1
  hands: int = 0
  at: tuple[float, ...] = ()
  overrides: dict = dataclasses.field(default_factory=dict)
  disclosure: tuple[str, ...] = ()

  def __post_init__(self):
    for key, least, most in LIMITS:
      if not least <= getattr(self, key) <= most:
        raise ValueError(f"{key} is {getattr(self, key)}, but should be from {least} to {most:g}.")
    if not self.methods:
      raise ValueError("methods is empty, but a study compares at least one: methods = {'sft': 'FILE.py', ...}.")
    named = {"overrides": self.overrides, "labels": self.labels, "reference": [self.reference] * bool(self.reference)}
    for key, methods in named.items():
      allowed = [*self.methods, *(["base"] if key == "overrides" else [])]
      for method in methods:
        if method not in allowed:
          raise ValueError(f"{key} has {method!r}, which is no method{nearest(method, allowed)}")
    for key, kind, example in (("methods", str, "FILE.py"), ("overrides", dict, "{'batch': 8}")):
      for method, value in getattr(self, key).items():
        if not isinstance(value, kind) or value == "":
          raise ValueError(f"{key}.{method} is {value!r}, but should be for example {example!r}.")
    if not all(0 < share < 1 for share in self.at):
      raise ValueError(f"at is {self.at}; it needs shares of the run between 0 and 1; its end is always evaluated.")
    for method in self.methods:
      if not method.replace("_", "").isalnum() or method == "base":
        raise ValueError(f"methods has {method!r}, but a method is a word of letters, digits and _, and not 'base'.")


SCHEMA = {"study": Study}


def run(config, workdir, command="sftrl study") -> None:
  """Everything that the study still lacks, then DIR/report; the same call goes on after an interruption.

  Raises ConfigError before anything is written, RuntimeError at the end when runs failed, SystemExit(75) after SIGTERM
  and KeyboardInterrupt after Ctrl-C, both with every run stopped behind a checkpoint.
  """
  start = time.monotonic()
  study = settings.build(Study, config.study, "config.study")
  runs = expand(study, workdir)
  _check_recorded(config, workdir)
  if not all(pool.is_complete(run) for run in runs):
    rehearsal.refuse([(_who(run.name), run) for run in runs])
  with only_writer(workdir) as lock:
    _write_json(workdir / "config.json", {**config.to_dict(), "verb": "study"})
    _write_json(workdir / "study.json", record(study, command, _hardware()))
    failed = _train(runs, study, workdir, start, lock)
    _report(workdir, failed, clock(time.monotonic() - start))
  if failed:
    names = ", ".join(run.name for run in failed)
    raise RuntimeError(f"{len(failed)} of {len(runs)} runs failed: {names}. Their logs are in {workdir / 'logs'}; the "
                       "report covers the others. The same command tries them again.")


def listing(config, workdir, command="sftrl study --list") -> None:
  """Prints the command of every run, bases first, and writes what `sftrl report` needs besides the runs.

  The parts of the runs are not tried: a mesh for a pod cannot be made where they are listed.
  """
  study = settings.build(Study, config.study, "config.study")
  runs = sorted(expand(study, workdir), key=lambda run: bool(run.needs))
  _check_recorded(config, workdir)
  places.make(workdir)
  _write_json(workdir / "config.json", {**config.to_dict(), "verb": "study"})
  _write_json(workdir / "study.json", record(study, command, "the machines of its runs, started one by one"))
  needed = [run for run in runs if not run.needs]
  for title, several in (("These need nothing", needed), ("These need the ones above", runs[len(needed):])):
    if several:
      print("\n".join([f"# {title}:", *(shlex.join(["sftrl", *run.words]) for run in several)]))
  print(f"# The report, at any time: {shlex.join(['sftrl', 'report', str(workdir)])}", flush=True)


def expand(study, workdir) -> list[pool.Run]:
  """The study's runs in the order in which they are wanted.

  The first comparison first; then the other bases, since two runs wait for each and a core would idle at the end while
  the last one trains; then seed by seed, so that all bases are compared early.
  """
  jobs = study.jobs or _cores()
  runs = [_run(f"base-{base}", "sft", study.base, workdir, jobs,
               {**_dotted(study.overrides.get("base", {})), "seed": base}) for base in range(study.bases) if study.base]
  budget = {"flops": study.flops} if study.flops else {}
  evals = {**({"evals.episodes": study.hands} if study.hands else {}),
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


def _who(name) -> str:
  """The method of a run by its name, or "base"."""
  return name.split("-")[2] if name.count("-") > 1 else "base"


def _shipped(study, base) -> str:
  """Where a base comes from that the study does not train itself."""
  return study.shipped if study.shipped == "scratch" else f"base:{study.shipped}_{base}"


def verb_of(spec) -> str:
  """A config that names an algorithm is for rl, any other for sft. ConfigError when the file cannot be read."""
  return "rl" if "algorithm" in settings.load(spec) else "sft"


def record(study, command, hardware) -> dict:
  """study.json: what the report needs to know besides the runs."""
  return {
      "name": study.name, "claim": study.claim, "bases": list(range(study.bases)), "seeds": list(range(study.seeds)),
      "methods": {method: study.labels.get(method, method.upper()) for method in study.methods}, "flops": study.flops,
      "id": study.id, "ood": study.ood, "reference": study.reference, "disclosure": list(study.disclosure),
      "command": command, "hardware": hardware,
  }


def _run(name, verb, spec, workdir, jobs, keys, needs="") -> pool.Run:
  home = workdir / "runs" / name
  keys = {**keys, "mesh.cpu_threads": _threads(home, jobs), "log.report": False}
  words = (verb, f"--config={spec}", f"--workdir={home}",
           *(f"--config.{key}={_text(value)}" for key, value in keys.items()))
  return pool.Run(name, words, home, workdir / "logs" / f"{name}.txt", needs)


def _threads(home, jobs) -> int:
  """CPU threads of a run: its share of the cores; one that has begun keeps what it began with, since its bits depend
  on it."""
  try:
    begun = json.loads((home / "config.json").read_text())["mesh"]["cpu_threads"]
  except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, KeyError):
    begun = 0
  return begun or max(1, _cores() // jobs)


def _check_recorded(config, workdir) -> None:
  """ConfigError when the directory holds another study, or a single run."""
  if not (workdir / "config.json").is_file():
    return
  before = recorded(workdir)
  verb = before.pop("verb", "study")
  if verb != "study":
    raise ConfigError(f"{workdir} is the workdir of one {verb} run: give another --workdir.")
  settings.refuse_another(before, config, workdir)


def _train(runs, study, workdir, start, lock) -> list[pool.Run]:
  """Runs what is not complete and returns what failed; draws the curve whenever a run ended. The runs hold the lock."""
  environment = {"JAX_COMPILATION_CACHE_DIR": str((workdir / "cache").resolve()),
                 "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "PYTHONUNBUFFERED": "1"}
  failed, drawn, looked = [], False, 0.0
  with pool.signals() as received, board(runs) as (show, say):
    for moment in pool.supervise(runs, study.jobs or _cores(), environment, received, keep=(lock,)):
      show(moment.live)
      for ended, code in moment.ended:
        if code and not received:
          failed.append(ended)
          say(f"{ended.name} failed (exit code {code}); the end of {ended.log}:\n{pool.tail(ended)}")
      if not drawn and (moment.ended or time.monotonic() - looked > 1.0):
        looked = time.monotonic()
        if is_comparable(study, workdir):
          drawn = _draw(workdir, say, f"First curve after {time.monotonic() - start:.0f} s")
      elif drawn and any(code == 0 for _, code in moment.ended):
        _draw(workdir, say)
      if received:
        say(f"Stopping: waiting for {len(moment.live)} runs to write their checkpoints; a second signal kills them.")
  if received:
    raise KeyboardInterrupt if received[0] == signal.SIGINT else SystemExit(STOPPED)
  lost = {run.name for run in failed}
  return failed + [run for run in runs if run.needs in lost]


def is_comparable(study, workdir) -> bool:
  """Whether two methods (or the only one) have been evaluated at least twice on the same base."""
  def twice(base, method):
    homes = (workdir / "runs" / f"base-{base}-{method}-{seed}" for seed in range(study.seeds))
    return any(_evaluations(home) >= 2 for home in homes)
  enough = min(2, len(study.methods))
  return any(sum(twice(base, method) for method in study.methods) >= enough for base in range(study.bases))


def _evaluations(home) -> int:
  """How many steps of a run have been evaluated; a line that is still being written does not count."""
  steps = set()
  try:
    lines = (home / "evals.jsonl").read_text().splitlines()
  except FileNotFoundError:
    return 0
  for line in lines:
    with contextlib.suppress(json.JSONDecodeError, KeyError):
      steps.add(json.loads(line)["step"])
  return len(steps)


def _draw(workdir, say, news="") -> bool:
  """Draws the curve so far. It is a convenience: what goes wrong in it is told, and the study goes on."""
  out = workdir / "report" / "curve.png"
  out.parent.mkdir(parents=True, exist_ok=True)
  try:
    path = report.draw_curve(workdir, out)
  except (ValueError, OSError) as error:
    say(f"The curve so far could not be drawn: {error}")
    return False
  if news:
    say(f"{news}: {path}")
  return True


def _report(workdir, failed, elapsed) -> None:
  try:
    path = report.write_study(workdir)
    print(f"\n{report.summary(workdir)}\n\nStudy complete after {elapsed}. Report: {path}" if not failed else
          f"\n{report.summary(workdir)}\n\nReport of what there is: {path}", flush=True)
  except ValueError as error:
    if not failed:
      raise
    print(f"There is too little for a report: {error}", flush=True)


def _dotted(overrides) -> dict:
  """{"a.b": value} of overrides however they are nested."""
  return dotted.flat(dotted.plain(overrides))


def _text(value) -> str:
  """A value as `--config.key=` reads it."""
  return str(value).lower() if isinstance(value, bool) else str(value)


def _write_json(path, content) -> None:
  places.write_whole(path, json.dumps(content, indent=2) + "\n")


def _hardware() -> str:
  """One line about the machine, for the report."""
  model = platform.processor() or platform.machine()
  with contextlib.suppress(FileNotFoundError):
    named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = named[0].partition(":")[2].strip() if named else model
  return f"{model}, {_cores()} cores, {platform.system()}, Python {platform.python_version()}, jax {_version('jax')}"


def _version(package) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return "not installed"


def _cores() -> int:
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
