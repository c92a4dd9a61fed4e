"""The files of a workdir and of a study, read back as frozen data.

A run may still be writing, or have been killed in the middle of a line: a torn last line is dropped. Anything else that
is wrong is a ValueError that names file, line and rule, because a report on half-read data is worse than none.
"""

import dataclasses
import json
import math
import pathlib
import re

import numpy as np

from sftrl_jax import jsonl, paths
from sftrl_jax.report import labels

DIGITS = set("0123456789abcdefghijklmnopqrstuvwxyz")  # attempt 10 is written a, and from 35 on they are all z
CROWD = 5  # methods of a study, above which its report has a row for each instead of columns and colours
WAY_OUT = "Cut or mend that line, or make the run again."


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """One line of evals.jsonl. `outcomes` [hands] uint8: 0 never right, else the attempt that was right; empty if not
  written.
  """
  step: int
  variant: str
  temperature: float
  seed: int
  attempts: int
  episodes: int
  success: float
  low: float
  high: float
  flops: float
  outcomes: np.ndarray
  codes: dict
  kl: float
  response_length: float

  def within(self, attempts):
    """Right within so many attempts, one 0/1 a hand."""
    return ((self.outcomes > 0) & (self.outcomes <= attempts)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Episode:
  """One line of episodes.jsonl; `chat` is a tuple of (role, text)."""
  step: int
  kind: str
  variant: str
  temperature: float
  seed: int
  chat: tuple
  rewards: tuple
  codes: tuple
  success: bool


@dataclasses.dataclass(frozen=True)
class Run:
  """One workdir. `metrics` are the lines of metrics.jsonl as dicts, `phase` is progress.json's ("" if it has none)."""
  directory: pathlib.PurePath
  name: str
  verb: str
  config: dict
  evaluations: tuple
  metrics: tuple
  phase: str
  done: float

  @property
  def finished(self):
    return self.phase == "complete"

  def curve(self, variant, temperature):
    """The evaluations of one variant and temperature by step."""
    kept = [e for e in self.evaluations if e.variant == variant and e.temperature == temperature]
    return tuple(sorted(kept, key=lambda evaluation: evaluation.step))

  def column(self, name):
    """(steps, values) of one metric where it was written; what is no finite number is NaN."""
    pairs = [(number(line.get("step")), number(line[name])) for line in self.metrics if name in line]
    steps, values = np.array(pairs, dtype=float).reshape(-1, 2).T
    return steps, values

  def last(self, name, default=math.nan):
    """The last finite value of a metric."""
    _, values = self.column(name)
    values = values[np.isfinite(values)]
    return float(values[-1]) if values.size else default


@dataclasses.dataclass(frozen=True)
class Study:
  """study.json and its runs; `runs` by (base, method, seed), `starts` by base (a shipped start has no run)."""
  directory: pathlib.PurePath
  name: str
  claim: str
  methods: dict
  bases: tuple
  seeds: tuple
  flops: float
  id: str
  ood: str
  against: str
  disclosure: tuple
  command: str
  hardware: str
  runs: dict
  starts: dict
  missing: tuple

  @property
  def crowd(self):
    """Whether there are more methods than columns and colours can tell apart."""
    return len(self.methods) > CROWD

  @property
  def reference(self):
    """The method that the others are compared with: the one named, else the one whose runs are of the verb sft; where
    none ran yet, the one called sft, else the first.
    """
    if self.against:
      return self.against
    ran = {method for (_, method, _), run in self.runs.items() if run.verb == "sft"}
    named = [method for method in self.methods if method in ran] or [m for m in self.methods if m == "sft"]
    return (named or list(self.methods))[0]

  @property
  def reference_label(self):
    return self.methods[self.reference]

  @property
  def others(self):
    """Every other method."""
    return tuple(method for method in self.methods if method != self.reference)

  @property
  def held_out(self):
    """The variant of the training rule that no method trained on, by its name; "" if there is none."""
    return next((variant for variant in self.variants if "unseen" in variant), "")

  @property
  def variants(self):
    """Variants evaluated: in distribution first, then others, the shifted one last."""
    seen = dict.fromkeys(e.variant for run in self.runs.values() for e in run.evaluations)
    middle = sorted(variant for variant in seen if variant not in (self.id, self.ood))
    return tuple(variant for variant in (self.id, *middle, self.ood) if variant in seen)

  @property
  def temperatures(self):
    return tuple(sorted({e.temperature for run in self.runs.values() for e in run.evaluations}))


def number(value):
  """A finite float, or NaN for anything else (a string, a bool, 1e999, NaN)."""
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return math.nan
  try:
    return float(value) if math.isfinite(float(value)) else math.nan
  except OverflowError:
    return math.nan


def parse(text, where):
  """JSON text as a dict; ValueError naming `where` otherwise."""
  try:
    value = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{where} is not JSON ({type(error).__name__}: {str(error)[:120]}). {WAY_OUT}") from error
  if not isinstance(value, dict):
    raise ValueError(f"{where} holds a {type(value).__name__}; it must hold a JSON object {{...}}. {WAY_OUT}")
  return value


def read_lines(path):
  """[(where, dict)] of a .jsonl file or its parts; [] if it does not exist; a torn last line is left out."""
  return [line for file in jsonl.files(path) for line in _lines_of(file)]


def _lines_of(path):
  lines = jsonl.read_text(path).split("\n")
  last = max((index for index, line in enumerate(lines) if line.strip()), default=-1)
  parsed = []
  for index, line in enumerate(lines):
    if not line.strip():
      continue
    where = f"{path} line {index + 1}"
    try:
      parsed.append((where, parse(line, where)))
    except ValueError:
      # A writer that was killed leaves half a line, and only ever the last one.
      if index != last:
        raise
  return parsed


def field(line, key, where, low=-math.inf, high=math.inf, default=None):
  """A number of an evaluation line, checked against its range; ValueError with the way out otherwise."""
  if key not in line and default is not None:
    return default
  value = number(line.get(key))
  if not low <= value <= high:
    raise ValueError(
      f"{where}: {key} is {str(line.get(key))[:40]!r}; it must be a number in [{low:g}, {high:g}]. {WAY_OUT}"
    )
  return value


def outcomes_of(line, where, episodes, attempts):
  text = line.get("outcomes", "")
  if text == "":
    return np.zeros(0, np.uint8)
  if not isinstance(text, str) or not DIGITS.issuperset(text) or len(text) != episodes:
    raise ValueError(f"{where}: outcomes must be {episodes} digits, one an episode, not {str(text)[:40]!r}. {WAY_OUT}")
  written = np.frombuffer(text.encode("ascii"), np.uint8)
  outcomes = written - np.where(written < ord("a"), ord("0"), ord("a") - 10).astype(np.uint8)
  if outcomes.max(initial=0) > attempts:
    raise ValueError(f"{where}: outcomes name attempt {outcomes.max()}, but attempts is {attempts}. {WAY_OUT}")
  return outcomes


def evaluation_of(line, where):
  """One checked line of evals.jsonl."""
  episodes = int(field(line, "episodes", where, low=1))
  attempts = int(field(line, "attempts", where, low=1, default=1))
  outcomes = outcomes_of(line, where, episodes, attempts)
  success = field(line, "success", where, 0, 1)
  if outcomes.size and abs(success - np.mean(outcomes > 0)) > 1e-3:
    raise ValueError(
      f"{where}: success is {success:.4f}, but outcomes are right on {np.mean(outcomes > 0):.4f}. {WAY_OUT}"
    )
  bounds = line.get("ci95")
  low, high = map(number, bounds) if isinstance(bounds, list) and len(bounds) == 2 else (math.nan, math.nan)
  codes = line.get("codes") if isinstance(line.get("codes"), dict) else {}
  counts = {str(code): number(count) for code, count in codes.items() if number(count) >= 0}
  return Evaluation(
    step=int(field(line, "step", where, low=0)), variant=str(line.get("variant", "")), outcomes=outcomes, codes=counts,
    temperature=field(line, "temperature", where, low=0, default=0.0), seed=int(field(line, "seed", where, default=0)),
    attempts=attempts, episodes=episodes, success=success, low=low, high=high, kl=number(line.get("kl")),
    flops=field(line, "flops", where, low=0, default=0.0), response_length=number(line.get("response_length")))


def read_evaluations(path):
  """evals.jsonl as a tuple of Evaluation; the same (step, variant, temperature) twice is an error unless the lines
  agree.
  """
  found, lines = {}, {}
  for place, line in read_lines(path):
    evaluation = evaluation_of(line, place)
    key = (evaluation.step, evaluation.variant, evaluation.temperature)
    if key in found and (found[key].success, found[key].seed) != (evaluation.success, evaluation.seed):
      raise ValueError(
        f"{lines[key]} and {place} both give step {key[0]}, variant {key[1]!r}, temperature "
        f"{key[2]:g}, and disagree; a run writes each once. Remove the one of the older attempt."
      )
    found.setdefault(key, evaluation)
    lines.setdefault(key, place)
  return tuple(found.values())


def read_episodes(directory, variant="", limit=20000):
  """Greedy evaluation episodes of a run (of one variant if named), at most `limit` lines."""
  path, found = paths.as_path(directory) / "episodes.jsonl", []
  for _, line in read_lines(path)[:limit]:
    if line.get("kind") != "eval" or number(line.get("temperature")) != 0 or not isinstance(line.get("chat"), list):
      continue
    if variant and line.get("variant") != variant:
      continue
    chat = tuple((str(m.get("role", "")), str(m.get("text", ""))) for m in line["chat"] if isinstance(m, dict))
    rewards, codes = (line.get(k) if isinstance(line.get(k), list) else [] for k in ("rewards", "codes"))
    step, seed = number(line.get("step")), number(line.get("seed"))
    if math.isfinite(step) and math.isfinite(seed):
      found.append(Episode(int(step), "eval", str(line.get("variant", "")), 0.0, int(seed), chat,
                           tuple(map(number, rewards)), tuple(map(str, codes)), line.get("success") is True))
  return tuple(found)


def read_json(path):
  return parse(jsonl.read_text(path), str(path))


def read_run(directory):
  """A run's workdir; ValueError if it has no config.json."""
  directory = paths.as_path(directory)
  if not (directory / "config.json").exists():
    raise ValueError(f"{directory} has no config.json: a run's workdir has one. Name the directory given as --workdir.")
  config, place = read_json(directory / "config.json"), directory / "progress.json"
  progress = read_json(place) if place.exists() else {}
  done = number(progress.get("done"))
  return Run(directory=directory, name=directory.name, verb=str(config.get("verb", "")), config=config,
             evaluations=read_evaluations(directory / "evals.jsonl"),
             metrics=tuple(line for _, line in read_lines(directory / "metrics.jsonl")),
             phase=str(progress.get("phase", "")), done=done if math.isfinite(done) else 0.0)


def whole_numbers(values, key, path):
  if not isinstance(values, list) or not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
    raise ValueError(f"{path}: {key} is {str(values)[:60]}; it must be a list of whole numbers, for example [0, 1].")
  return tuple(values)


def read_study(directory):
  """study.json with every run that exists; runs that do not are named in `missing`."""
  directory = paths.as_path(directory)
  path = directory / "study.json"
  if not path.exists():
    raise ValueError(f"{directory} has no study.json: a study's directory has one. For one run use its own workdir.")
  told = read_json(path)
  methods = told.get("methods")
  if not isinstance(methods, dict) or not methods or not all(re.fullmatch(r"\w[\w.-]*", name) for name in methods):
    raise ValueError(f"{path}: methods is {str(methods)[:80]}; it must map names of letters, digits, _ . - to labels.")
  against = str(told.get("reference", ""))
  if against and against not in methods:
    raise ValueError(f"{path}: reference is {labels.plain(against, 40)!r}; it must be one of the methods, "
                     f"{', '.join(methods)}, or left out.")
  bases, seeds = (whole_numbers(told.get(key, [0]), key, path) for key in ("bases", "seeds"))
  wanted = {(b, m, s): directory / "runs" / f"base-{b}-{m}-{s}" for b in bases for m in methods for s in seeds}
  runs = {key: read_run(place) for key, place in wanted.items() if (place / "config.json").exists()}
  starts = {b: read_run(directory / "runs" / f"base-{b}") for b in bases
            if (directory / "runs" / f"base-{b}" / "config.json").exists()}
  disclosure = told.get("disclosure", [])
  return Study(
    directory=directory, name=str(told.get("name", directory.name)), claim=str(told.get("claim", "")),
    methods={name: str(label) for name, label in methods.items()}, bases=bases, seeds=seeds, runs=runs, starts=starts,
    flops=number(told.get("flops")), id=str(told.get("id", "id_seen")), ood=str(told.get("ood", "rule_ood")),
    against=against, disclosure=tuple(map(str, disclosure if isinstance(disclosure, list) else [disclosure])),
    command=str(told.get("command", "")), hardware=str(told.get("hardware", "")),
    missing=tuple(place.name for key, place in wanted.items() if key not in runs))
