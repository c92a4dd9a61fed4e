"""`sftrl evaluate FROM`: a checkpoint of a run, or a model without a run on the task of a config, evaluated; or a run
between its start and its end, or its weights against those of its start."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from sftrl_jax import jsonl, paths
from sftrl_jax.parallel import hosts, rules
from sftrl_jax.programs.config.errors import ConfigError, as_path
from sftrl_jax.programs.evaluate.subject import Subject, of_run, refuse_run, say, without_run
from sftrl_jax.programs.experiment import hosts_agree, saved_run
from sftrl_jax.programs.experiment.environment import has_reward_model
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.loop import weights_file
from sftrl_jax.programs.loop.evaluator import Weights, compile_rollouts, evaluate, score_text
from sftrl_jax.programs.loop.reward_scorers import make_scorer
from sftrl_jax.programs.runtime.lock import only_output
from sftrl_jax.programs.start import initial_params
from sftrl_jax.rollout.scoring import Scorer
from sftrl_jax.training.log import Log
from sftrl_jax.training.position import Limits, Position


def run(source: str, overrides: Sequence[tuple[str, str]], workdir: str = "", spec: str = "") -> list[dict]:
  """Evaluates every variant of config.evals.variants and prints a table.

  source: WORKDIR, WORKDIR@STEP or WORKDIR@best:VARIANT; with a spec, anything that config.start takes
  overrides: ((dotted key, text), ...), on top of the config that the run recorded, or of the spec's
  workdir: where evals.jsonl and episodes.jsonl go (default: WORKDIR/evaluate/STEP; runs/evaluate/NAME without a run)
  spec: FILE.py[:choice], the task for a model without a run

  Returns the lines of evals.jsonl. Of several processes each plays its share, and the first one writes and prints; all
  must see the workdir. Raises ConfigError.
  """
  subject = _subject(source, overrides, workdir, spec)
  with _loaded(subject) as (params, start, step):
    out = subject.output(workdir, step)
    with _only_output(out):
      lines = _evaluate(subject.experiment, out, params, start, step, f"evaluate {source}")
  say(table(lines))
  say(f"Written: {', '.join(map(str, jsonl.files(out / 'evals.jsonl')))}")
  return lines


def interpolate(source: str, overrides: Sequence[tuple[str, str]], shares: Sequence[float],
                workdir: str = "") -> tuple[list[dict], Path]:
  """Evaluates the weights (1 - share) * start + share * end of a run, each share into OUT/SHARE.

  source, overrides: as of `run`, of a run with a start that is there
  shares: each from 0 (the start itself) to 1 (the checkpoint itself)
  workdir: OUT (default: WORKDIR/evaluate/STEP-interpolated)

  Returns the lines of all evals.jsonl, each with its `share`, and OUT. Raises ConfigError.
  """
  subject = _subject(source, overrides, workdir)
  _check_start_is_there(subject)
  lines = []
  with _loaded(subject) as (params, start, step):
    out = subject.output(workdir, step, "-interpolated")
    with _only_output(out):
      for share in shares:
        weights = initial_params.lerp(start, params, share)
        title = f"evaluate {source} at share {share:g}"
        lines += [{"share": share, **line} for line in _evaluate(
            subject.experiment, out / f"{share:g}", weights, start, step, title)]
  return lines, out


def compare_weights(source: str, overrides: Sequence[tuple[str, str]], workdir: str = "") -> Path:
  """Writes weights.json of a checkpoint against the start of its run, however large, and evaluates nothing.

  workdir: where it goes (default: the run's own workdir, for its report). Returns the path. Raises ConfigError.
  """
  subject = of_run(source, overrides)
  hosts_agree.check({**subject.experiment.config, "from": source}, subject.experiment.verb, {}, os.environ)
  _check_start_is_there(subject)
  path = (as_path(workdir) if workdir else subject.home) / weights_file.NAME
  with _loaded(subject) as (params, start, step):
    weights_file.write(subject.experiment, path, step, start, params)
  say(f"Written: {path}; `sftrl report {subject.home}` shows it.")
  return path


def share_table(lines: Sequence[dict]) -> str:
  """Success, or the score where no response is right or wrong, by share: a row a variant and temperature."""
  shares = sorted({line["share"] for line in lines})
  rows = [f"{'variant':<14}{'temperature':>12}" + "".join(f"{share:>10g}" for share in shares)]
  for variant, temperature in dict.fromkeys((line["variant"], line["temperature"]) for line in lines):
    own = {line["share"]: line for line in lines if (line["variant"], line["temperature"]) == (variant, temperature)}
    cells = [f"{100 * own[share]['success']:.1f}%" if own[share].get("verifies", True) else score_text(own[share])
             for share in shares]
    rows.append(f"{variant:<14}{temperature:>12g}" + "".join(f"{cell:>10}" for cell in cells))
  return "\n".join([*rows, "Shares of the way from the start (0) to the checkpoint (1)."])


def _subject(source: str, overrides: Sequence[tuple[str, str]], workdir: str, spec: str = "") -> Subject:
  """What is evaluated, the same in all processes. ConfigError for a workdir that holds a run, and without variants."""
  refuse_run(workdir)
  subject = without_run(source, overrides, spec) if spec else of_run(source, overrides)
  experiment = subject.experiment
  hosts_agree.check({**experiment.config, "from": source}, experiment.verb, {}, os.environ)
  if not experiment.evals.variants:
    raise ConfigError(f"{source} names no variants to evaluate: add --config.evals.variants=\"('...',)\".")
  return subject


def _check_start_is_there(subject: Subject) -> None:
  if not initial_params.adapters_of(subject.home):
    initial_params.check_start(subject.experiment.start, subject.experiment.model)


@contextlib.contextmanager
def _loaded(subject: Subject) -> Iterator[tuple[dict, dict, int]]:
  """Yields `_parameters` under the mesh."""
  # A run that is still training has another best step soon.
  step = hosts.led_by_first(lambda: subject.ref.step if subject.ref else 0)
  with jax.set_mesh(subject.experiment.mesh), rules.applied():
    yield _parameters(subject, step)


def _only_output(out: Path) -> contextlib.AbstractContextManager:
  """Held by the first process, which writes."""
  return only_output(out, "--workdir", inside=True) if hosts.is_first_process() else contextlib.nullcontext()


def _evaluate(experiment: Experiment, out: Path, params: dict, start: dict, step: int, title: str) -> list[dict]:
  """Every variant by these parameters; evals.jsonl and episodes.jsonl go to `out`. title: of the progress bar"""
  writes = hosts.is_first_process()
  if writes:
    paths.make(out)
  for name in ("evals.jsonl", "episodes.jsonl") if writes else ():
    jsonl.remove(out / name)  # an evaluation is whole or written again
  with contextlib.closing(Log(out, experiment.log, Limits(1), title, writes=writes)) as log:
    log.start()
    compile_rollouts(experiment, params)
    return evaluate(experiment, Weights(params, start), Position(step=step), log, scorer=_scorer(experiment))


def table(lines: list[dict]) -> str:
  """Success by variant and temperature, with 95% intervals, and what an attempt is.

  Where tries begin anew at every point of an episode, `per step` is the share of right responses, and `first try` is
  of points; else it is of episodes. Where a line has them: `expert's states`, the share of right greedy responses at
  the states of the expert's walk, and `pass@k`, of k samples of an episode. Where no response is right or wrong, the
  mean score of an episode stands alone.
  """
  if not lines[0].get("verifies", True):
    return "\n".join([f"{'variant':<14}{'temperature':>12}{'score':>10}{'tokens':>10}{'episodes':>10}", *(
        f"{line['variant']:<14}{line['temperature']:>12g}{score_text(line):>10}{line['response_length']:>10.1f}"
        f"{line['episodes']:>10}" for line in lines)])
  of_points, attempts = lines[0]["attempts_of"] == "point", lines[0]["attempts"]
  columns = [("first try", lambda line: line["first_right"] / max(1, line["points"]) if of_points else
              line["first_success"])]
  if of_points:
    columns.insert(0, ("per step", lambda line: line["per_step"]))
  if any("expert_accuracy" in line for line in lines):
    columns.append(("expert's states", lambda line: line.get("expert_accuracy")))
  counts = sorted({int(k) for line in lines for k in line.get("pass_at", {}) if int(k) > 1})
  columns += [(f"pass@{k}", lambda line, k=str(k): line.get("pass_at", {}).get(k)) for k in counts]
  head = f"{'variant':<14}{'temperature':>12}{'success':>10}{'95% interval':>18}" \
         + "".join(f"{name:>{_width(name)}}" for name, _ in columns) + f"{'episodes':>10}"
  rows = [f"{line['variant']:<14}{line['temperature']:>12g}{100 * line['success']:>9.1f}%"
          f"{100 * line['ci95'][0]:>10.1f} - {100 * line['ci95'][1]:.1f}%"
          + "".join(f"{_percent(rate(line)):>{_width(name)}}" for name, rate in columns) + f"{line['episodes']:>10}"
          for line in lines]
  unit = "a try at a point, and each point has its own" if of_points else "a response of the episode"
  note = f"Success is within {attempts} attempt{'s' * (attempts != 1)}; an attempt is {unit}."
  return "\n".join([head, *rows, note])


def _width(name: str) -> int:
  return max(10, len(name) + 2)


def _percent(rate: float | None) -> str:
  return "" if rate is None else f"{100 * rate:.1f}%"


def _scorer(experiment: Experiment) -> Scorer | None:
  """What scored the episodes of the run, if it is there."""
  missing = has_reward_model(experiment.config) and experiment.reward_model is None
  return None if missing or experiment.verb != "rl" else make_scorer(experiment, None)


def _parameters(subject: Subject, step: int | None) -> tuple[dict, dict, int]:
  """(parameters of `model`, those that KL is measured from, step)."""
  experiment, home = subject.experiment, subject.home
  if home is None:
    params = initial_params.load_start(experiment.start, experiment.model, experiment.seed, experiment.mesh)
    return params, params, 0
  params, step = saved_run.parameters(experiment, dataclasses.replace(subject.ref, step=step))
  if initial_params.adapters_of(home):
    return params, initial_params.reference_params(home, experiment.start, experiment.model, experiment.seed,
                                                   experiment.mesh), step
  try:
    initial_params.check_start(experiment.start)
  except ConfigError as error:
    say(f"KL is not measured from the start: {error}")
    return params, params, step
  start = initial_params.load_start(experiment.start, experiment.model, experiment.seed, experiment.mesh)
  return params, start, step
