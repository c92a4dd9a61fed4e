"""Reads the files of a run's workdir and of a study.

A run may still be writing, or have been killed in the middle of a line: a torn last line is dropped. Any other damage
is a ValueError that names file, line and rule, because a report on half-read data is worse than none.
"""

import json
import math
import pathlib
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from sftrl_jax import jsonl, paths
from sftrl_jax.report.labels import GENERAL_POINTS, EnvLabels, parse_labels, plain
from sftrl_jax.report.records import NO_COUNTS, Evaluation, LoggedEpisode, PairsRun, PartCounts, Run, Study, number
from sftrl_jax.report.registered_claim import MEASURES, RegisteredClaim, parse_claim
from sftrl_jax.report.task_results import TaskResult

PICTURE = re.compile(r"\d+x\d+ sha256:([0-9a-f]{16})")   # what a line of episodes.jsonl says of one
DIGITS = set("0123456789abcdefghijklmnopqrstuvwxyz")  # attempt 10 is written a, and from 35 on they are all z
# Numbers of an evaluation line that the report prints and does not compute with; a line may lack any of them.
COUNTS = ("responses", "points", "first_right", "legal", "updates", "paper_flops", "entropy", "expert_accuracy",
          "expert_states", "distinct")
MAX_PARTS = 20   # read from one line
MEND_LINE = "Cut or mend that line, or make the run again."


def parse(text: str, where: str) -> dict[str, Any]:
  """JSON text as a dict; ValueError naming `where` otherwise."""
  try:
    value = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{where} is not JSON ({type(error).__name__}: {str(error)[:120]}). {MEND_LINE}") from error
  if not isinstance(value, dict):
    raise ValueError(f"{where} holds a {type(value).__name__}; it must hold a JSON object {{...}}. {MEND_LINE}")
  return value


def read_json(path: pathlib.PurePath) -> dict[str, Any]:
  return parse(jsonl.read_text(path), str(path))


def read_lines(path: pathlib.PurePath) -> list[tuple[str, dict[str, Any]]]:
  """[(file and line number, content)] of a .jsonl file or its parts; [] if it does not exist.

  A torn last line is left out.
  """
  return [line for file in jsonl.files(path) for line in _lines_of(file)]


def _lines_of(path: pathlib.PurePath) -> list[tuple[str, dict[str, Any]]]:
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


def _field(line: dict, key: str, where: str, low: float = -math.inf, high: float = math.inf,
           default: float | None = None) -> float:
  """A number of an evaluation line, checked against its range."""
  if key not in line and default is not None:
    return default
  value = number(line.get(key))
  if not low <= value <= high:
    raise ValueError(f"{where}: {key} is {str(line.get(key))[:40]!r}; it must be a number in [{low:g}, {high:g}]. "
                     f"{MEND_LINE}")
  return value


def _outcomes(line: dict, where: str, episodes: int, attempts: int) -> np.ndarray:
  text = line.get("outcomes", "")
  if text == "":
    return np.zeros(0, np.uint8)
  if not isinstance(text, str) or not DIGITS.issuperset(text) or len(text) != episodes:
    raise ValueError(f"{where}: outcomes must be {episodes} digits, one an episode, not {str(text)[:40]!r}. "
                     f"{MEND_LINE}")
  written = np.frombuffer(text.encode("ascii"), np.uint8)
  outcomes = written - np.where(written < ord("a"), ord("0"), ord("a") - 10).astype(np.uint8)
  if outcomes.max(initial=0) > attempts:
    raise ValueError(f"{where}: outcomes name attempt {outcomes.max()}, but attempts is {attempts}. {MEND_LINE}")
  return outcomes


def _counts_by_episode(line: dict, where: str, episodes: int) -> tuple[np.ndarray, np.ndarray]:
  """(right responses, responses) of every episode, both empty where the line has none."""
  return _pair_of_counts({key: line.get(key, []) for key in ("episode_right", "episode_responses")}, where, episodes)


def _pair_of_counts(counts: dict[str, Any], where: str, episodes: int) -> tuple[np.ndarray, np.ndarray]:
  """Counts of right responses and of responses, an episode each, by their two keys in the line."""
  pair = []
  for key, values in counts.items():
    values_N = np.array([number(value) for value in values]) if isinstance(values, list) else NO_COUNTS - 1.0
    whole = np.isfinite(values_N) & (values_N >= 0) & (values_N < 2**31) & (values_N == np.floor(values_N))
    if not isinstance(values, list) or len(values) not in (0, episodes) or not whole.all():
      raise ValueError(f"{where}: {key} must be {episodes} counts, one an episode, not {str(values)[:40]}. {MEND_LINE}")
    pair.append(values_N.astype(np.int64) if len(values) else NO_COUNTS)
  right_N, responses_N = pair
  if right_N.size != responses_N.size or (right_N > responses_N).any():
    raise ValueError(f"{where}: {' and '.join(counts)} must both be there, and no episode may have more right "
                     f"responses than responses. {MEND_LINE}")
  return right_N, responses_N


def _parts(line: dict, where: str, episodes: int) -> dict[str, PartCounts]:
  """{part of verdicts: its counts} of all responses where the line has them by episode, else of first ones."""
  by_episode, first = line.get("episode_parts"), line.get("first_parts")
  parts = {}
  if isinstance(by_episode, dict):
    for name, pair in list(by_episode.items())[:MAX_PARTS]:
      right, having = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
      key = f"episode_parts.{plain(name, 40)}"
      parts[name] = _pair_of_counts({f"{key}[0]": right, f"{key}[1]": having}, where, episodes)
  elif isinstance(first, dict):
    for name, text in list(first.items())[:MAX_PARTS]:
      if not isinstance(text, str) or not {"0", "1"}.issuperset(text) or len(text) != episodes:
        raise ValueError(f"{where}: first_parts.{plain(name, 40)} must be {episodes} digits 0 or 1, not "
                         f"{str(text)[:40]!r}. {MEND_LINE}")
      parts[name] = np.array([*text], np.int64), np.ones(episodes, np.int64)
  return {name: counts for name, counts in parts.items() if counts[0].size}


def _codes(line: dict, key: str) -> dict[str, float]:
  codes = line.get(key) if isinstance(line.get(key), dict) else {}
  return {str(code): number(count) for code, count in codes.items() if number(count) >= 0}


def _evaluation(line: dict, where: str) -> Evaluation:
  """One checked line of evals.jsonl."""
  episodes = int(_field(line, "episodes", where, low=1))
  attempts = int(_field(line, "attempts", where, low=1, default=1))
  outcomes = _outcomes(line, where, episodes, attempts)
  success = _field(line, "success", where, 0, 1)
  if outcomes.size and abs(success - np.mean(outcomes > 0)) > 1e-3:
    raise ValueError(f"{where}: success is {success:.4f}, but outcomes are right on {np.mean(outcomes > 0):.4f}. "
                     f"{MEND_LINE}")
  bounds = line.get("ci95")
  low, high = map(number, bounds) if isinstance(bounds, list) and len(bounds) == 2 else (math.nan, math.nan)
  right_N, responses_N = _counts_by_episode(line, where, episodes)
  rate = right_N.sum() / max(1, responses_N.sum())
  if right_N.size and "per_step" in line and abs(_field(line, "per_step", where, 0, 1) - rate) > 1e-3:
    raise ValueError(f"{where}: per_step is {line['per_step']:.4f}, but {rate:.4f} of the responses are right. "
                     f"{MEND_LINE}")
  attempts_of = line.get("attempts_of", "episode")
  if attempts_of not in ("episode", "point"):
    raise ValueError(f"{where}: attempts_of is {str(attempts_of)[:40]!r}; it must be 'episode' or 'point'. {MEND_LINE}")
  pass_at = line.get("pass_at") if isinstance(line.get("pass_at"), dict) else {}
  return Evaluation(
      step=int(_field(line, "step", where, low=0)), variant=str(line.get("variant", "")),
      temperature=_field(line, "temperature", where, low=0, default=0.0),
      seed=int(_field(line, "seed", where, default=0)), attempts=attempts, episodes=episodes, success=success, low=low,
      high=high, flops=_field(line, "flops", where, low=0, default=0.0), outcomes=outcomes,
      codes=_codes(line, "codes"), kl=number(line.get("kl")), attempts_of=attempts_of, right_N=right_N,
      responses_N=responses_N, all_codes=_codes(line, "all_codes"),
      pass_at={int(k): number(rate) for k, rate in list(pass_at.items())[:20]
               if re.fullmatch("[1-9][0-9]{0,5}", k) and 0 <= number(rate) <= 1},
      counts={name: number(line.get(name)) for name in COUNTS if number(line.get(name)) >= 0},
      proxy=number(line.get("proxy")), gold=number(line.get("reward")),
      response_length=number(line.get("response_length")), verifies=line.get("verifies") is not False,
      probe=line.get("probe") is True, parts=_parts(line, where, episodes))


def read_evaluations(path: pathlib.PurePath) -> tuple[Evaluation, ...]:
  """The evaluations in evals.jsonl, lines of held-out pairs apart; two of the same step, variant and temperature are a
  ValueError unless they agree."""
  evaluations, lines = {}, {}
  for where, line in read_lines(path):
    if "pairs" in line:
      continue
    evaluation = _evaluation(line, where)
    key = (evaluation.step, evaluation.variant, evaluation.temperature)
    first = evaluations.setdefault(key, evaluation)
    if (first.success, first.seed) != (evaluation.success, evaluation.seed):
      raise ValueError(f"{lines[key]} and {where} both give step {key[0]}, variant {key[1]!r}, temperature {key[2]:g}, "
                       "and disagree; a run writes each once. Remove the one of the older attempt.")
    lines.setdefault(key, where)
  return tuple(evaluations.values())


def read_tasks(path: pathlib.PurePath) -> tuple[TaskResult, ...]:
  """What a run has asked of lm-eval, from its tasks.jsonl."""
  return tuple(TaskResult(
      task=str(line.get("task", "")), metric=str(line.get("metric", "")), filter=str(line.get("filter", "none")),
      step=int(_field(line, "step", where, low=0)), flops=_field(line, "flops", where, low=0),
      value=number(line.get("value")), stderr=number(line.get("stderr")), falls=line.get("higher_is_better") is False,
      documents=number(line.get("n")), group=line.get("group") is True) for where, line in read_lines(path))


def read_episodes(directory: pathlib.PurePath, variant: str = "", limit: int = 20000) -> tuple[LoggedEpisode, ...]:
  """The greedy evaluation episodes among the first `limit` lines of a run, of one variant if it is named."""
  episodes = []
  for _, line in read_lines(paths.as_path(directory) / "episodes.jsonl")[:limit]:
    if line.get("kind") != "eval" or number(line.get("temperature")) != 0 or not isinstance(line.get("chat"), list):
      continue
    if variant and line.get("variant") != variant:
      continue
    chat = tuple((str(m.get("role", "")), str(m.get("text", ""))) for m in line["chat"] if isinstance(m, dict))
    rewards, codes = (line.get(key) if isinstance(line.get(key), list) else [] for key in ("rewards", "codes"))
    step, seed = number(line.get("step")), number(line.get("seed"))
    if math.isfinite(step) and math.isfinite(seed):
      episodes.append(LoggedEpisode(int(step), str(line.get("variant", "")), int(seed), chat,
                                    tuple(map(number, rewards)), tuple(map(str, codes)), line.get("success") is True,
                                    _pictures(paths.as_path(directory), line["chat"])))
  return tuple(episodes)


def _pictures(directory: pathlib.PurePath, chat: list) -> dict[int, pathlib.PurePath]:
  """{place in the chat: PNG file} of the pictures that the run has kept."""
  messages = [message for message in chat if isinstance(message, dict)]
  digests = [PICTURE.fullmatch(str(message.get("image", ""))) for message in messages]
  files = {place: directory / "pictures" / f"{digest[1]}.png" for place, digest in enumerate(digests) if digest}
  return {place: file for place, file in files.items() if file.is_file()}


def read_labels(path: pathlib.PurePath) -> EnvLabels:
  """labels.json; GENERAL_POINTS if it is absent or damaged, because a report can do without it."""
  try:
    return parse_labels(read_json(path)) if path.is_file() else GENERAL_POINTS
  except ValueError:
    return GENERAL_POINTS


def read_run(directory: pathlib.PurePath | str) -> Run:
  """A run's workdir; ValueError if it has no config.json."""
  directory = paths.as_path(directory)
  if not (directory / "config.json").exists():
    raise ValueError(f"{directory} has no config.json: a run's workdir has one. Name the directory given as --workdir.")
  config, progress_file = read_json(directory / "config.json"), directory / "progress.json"
  progress = read_json(progress_file) if progress_file.exists() else {}
  done = number(progress.get("done"))
  return Run(directory=directory, name=directory.name, verb=str(config.get("verb", "")), config=config,
             evaluations=read_evaluations(directory / "evals.jsonl"),
             metrics=tuple(line for _, line in read_lines(directory / "metrics.jsonl")),
             phase=str(progress.get("phase", "")), done=done if math.isfinite(done) else 0.0,
             labels=read_labels(directory / "labels.json"), tasks=read_tasks(directory / "tasks.jsonl"))


def _whole_numbers(values: Any, key: str, path: pathlib.PurePath) -> tuple[int, ...]:
  if not isinstance(values, list) or not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
    raise ValueError(f"{path}: {key} is {str(values)[:60]}; it must be a list of whole numbers, for example [0, 1].")
  return tuple(values)


def read_study(directory: pathlib.PurePath | str) -> Study:
  """study.json with every run that has a workdir; ValueError naming file, key and rule if it is damaged."""
  directory = paths.as_path(directory)
  path = directory / "study.json"
  if not path.exists():
    raise ValueError(f"{directory} has no study.json: a study's directory has one. For one run use its own workdir.")
  content = read_json(path)
  methods = content.get("methods")
  if not isinstance(methods, dict) or not methods or not all(re.fullmatch(r"\w[\w.-]*", name) for name in methods):
    raise ValueError(f"{path}: methods is {str(methods)[:80]}; it must map names of letters, digits, _ . - to labels.")
  reference = str(content.get("reference", ""))
  if reference and reference not in methods:
    raise ValueError(f"{path}: reference is {plain(reference, 40)!r}; it must be one of the methods, "
                     f"{', '.join(methods)}, or left out.")
  bases, seeds = (_whole_numbers(content.get(key, [0]), key, path) for key in ("bases", "seeds"))
  homes = {(b, m, s): directory / "runs" / f"base-{b}-{m}-{s}" for b in bases for m in methods for s in seeds}
  runs = {key: read_run(home) for key, home in homes.items() if (home / "config.json").exists()}
  variant, measure = str(content.get("ood", "rule_ood")), content.get("measure", "success")
  if measure not in MEASURES:
    raise ValueError(f"{path}: measure is {str(measure)[:40]!r}; it must be one of {', '.join(MEASURES)}.")
  bases_of = {method: group for method, group in _by_method(content, "bases_of", methods).items()
              if isinstance(group, str) and re.fullmatch(r"\w[\w.:-]*", group)}
  groups = sorted({bases_of.get(method, "") for method in methods})
  starts = {(base, group): directory / "runs" / (f"base-{base}-{group}" if group else f"base-{base}")
            for base in bases for group in groups}
  disclosure = content.get("disclosure", [])
  return Study(
      directory=directory, name=str(content.get("name", directory.name)), claim=str(content.get("claim", "")),
      methods={name: str(label) for name, label in methods.items()}, bases=bases, seeds=seeds, runs=runs,
      starts={key: read_run(home) for key, home in starts.items() if (home / "config.json").exists()},
      flops=number(content.get("flops")), id=str(content.get("id", "id_seen")), ood=variant,
      named_reference=reference, named_measure=measure, claims=_claims(content, path, methods, variant, measure),
      notes={method: str(note) for method, note in _by_method(content, "notes", methods).items()}, bases_of=bases_of,
      budgets={method: {key: number(value) for key, value in budget.items() if number(value) > 0}
               for method, budget in _by_method(content, "budgets", methods).items() if isinstance(budget, dict)},
      disclosure=tuple(map(str, disclosure if isinstance(disclosure, list) else [disclosure])),
      command=str(content.get("command", "")), hardware=str(content.get("hardware", "")),
      missing=tuple(home.name for key, home in homes.items() if key not in runs),
      prepared=_prepared(directory, content.get("prepares"), bases, seeds))


def _prepared(directory: pathlib.PurePath, names: Any, bases: Sequence[int], seeds: Sequence[int]
              ) -> dict[str, tuple[PairsRun, ...]]:
  """{name: the runs of study.prepares that have a workdir}; {} for an older version."""
  names = [name for name in names if isinstance(name, str) and re.fullmatch(r"\w+", name)] if isinstance(
      names, list) else []
  homes = {name: [directory / "runs" / f"base-{base}-{name}-{seed}" for base in bases for seed in seeds]
           for name in names}
  return {name: tuple(read_pairs_run(home) for home in there if (home / "config.json").exists())
          for name, there in homes.items()}


def read_pairs_run(directory: pathlib.PurePath) -> PairsRun:
  """What a run that learns from pairs says of them. ValueError for a file that is damaged."""
  progress, pairs = (read_json(path) if path.exists() else {} for path in (
      directory / "progress.json", directory / "pairs.json"))
  lines = [line for _, line in read_lines(directory / "evals.jsonl") if "pairs" in line]
  last = max((number(line.get("step")) for line in lines), default=math.nan)
  end = [line for line in lines if number(line.get("step")) == last]
  return PairsRun(
      directory.name, progress.get("phase") == "complete",
      {key: number(value) for key, value in pairs.items() if math.isfinite(number(value))},
      {str(line.get("variant", "")): number(line.get("rewards/accuracies")) for line in end},
      number(end[0].get("flops")) if end else math.nan)


def _by_method(content: dict, key: str, methods: Collection[str]) -> dict[str, Any]:
  """A table of study.json by method; {} for an older version, and without the entries of no method."""
  table = content.get(key)
  return {name: value for name, value in table.items() if name in methods} if isinstance(table, dict) else {}


def _claims(content: dict, path: pathlib.PurePath, methods: Collection[str], variant: str,
            measure: str) -> tuple[RegisteredClaim, ...]:
  entries, claims = content.get("claims", []), []
  if not isinstance(entries, list):
    raise ValueError(f"{path}: claims is {str(entries)[:60]}; it must be a list of claims, or left out.")
  for index, entry in enumerate(entries):
    try:
      claims.append(parse_claim(entry, methods, variant, measure))
    except ValueError as error:
      raise ValueError(f"{path}: claims, number {index + 1}: {error}") from error
  return tuple(claims)
