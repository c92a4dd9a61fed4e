"""A run between two steps, and what becomes of the metrics of a step."""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from sftrl_jax import alarms
from sftrl_jax.checkpoints import store as stores
from sftrl_jax.metrics import floats, merge_host
from sftrl_jax.programs.experiment import memory
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.loop.jitted import JittedFunctions
from sftrl_jax.rollout.scoring import Scorer
from sftrl_jax.training import compile_count, throughput
from sftrl_jax.training.log import Log
from sftrl_jax.training.position import Position, due
from sftrl_jax.training.state import TrainState
from sftrl_jax.training.updates import kl_limit


@dataclasses.dataclass(frozen=True)
class Step:
  """A step of the run whose metrics have not been fetched yet.

  before, position: where the run stood before it and stands after it; seconds and skipped updates are still open
  metrics: of the train step, on the devices or fetched
  extra: seconds -> numbers of the host for the line of this step
  started: time.perf_counter() when its work on the host began
  """

  before: Position
  position: Position
  metrics: dict
  extra: Callable[[Position, Position, float], dict]
  started: float


@dataclasses.dataclass(frozen=True)
class RunState:
  """A run between two steps.

  The functions among the fields close over nothing that changes: the state is an argument of each, because a train step
  donates it and every step makes a new one.

  state: of the train step, possibly still being computed
  position: after the newest step; its seconds and skipped updates are those of settled steps
  start: parameters of `model` at the start, for KL; {} where nothing reads them
  averaged_params: state -> parameters like those that are trained; those of the state but for averaging optimizers
  eval_params: state -> {"model": ..., heads} that play and are evaluated: averaged ones, with what is frozen
  ema_params: state -> those of its average of parameters, as `eval_params`; None without config.ema
  frozen: {"model": start} where adapters are trained and it is not, {"teacher": ...} where there is one; else {}
  merge: the model of `eval_params` -> the same without adapters
  measure: the parameters of `eval_params` -> metrics of what is held out; None where nothing is
  measure_variants: the parameters of `eval_params` -> lines of evals.jsonl besides those of episodes; None where there
    are none
  unlogged_metrics: (metrics, extra) of steps not yet written to metrics.jsonl
  eval_pending: the step's evaluation is due and not yet complete in evals.jsonl
  has_evaluated: this process has evaluated before
  unsettled: the newest step, where it is settled late
  settled_at: time.perf_counter() when the last step was settled
  warned: alarms, and a stop by target_kl, that a person has been warned of
  length: of the run as its checkpoints remember it, see experiment/length.py
  alarm_streaks: `alarms.streaks` of the last line, which checkpoints hold
  scorer: of RL whose rewards come after the play, else None
  kl_coef: of the next iteration, where it is adapted, which checkpoints hold too; None where it is fixed
  """

  state: TrainState
  position: Position
  start: dict
  store: Any
  workdir: Path
  jitted: JittedFunctions
  averaged_params: Callable[[TrainState], dict]
  eval_params: Callable[[TrainState], dict]
  frozen: dict
  merge: Callable[[dict], dict]
  ema_params: Callable[[TrainState], dict] | None = None
  measure: Callable[[dict], dict[str, float]] | None = None
  measure_variants: Callable[[dict], list[dict]] | None = None
  unlogged_metrics: tuple = ()
  eval_pending: bool = False
  has_evaluated: bool = False
  unsettled: Step | None = None
  settled_at: float = 0.0
  warned: frozenset = frozenset()
  length: dict = dataclasses.field(default_factory=dict)
  alarm_streaks: dict = dataclasses.field(default_factory=dict)
  scorer: Scorer | None = None
  kl_coef: float | None = None


def settled(experiment: Experiment, run_state: RunState, log: Log) -> RunState:
  """The run with the metrics of its unsettled step fetched, counted and, where a line is due, written."""
  step = run_state.unsettled
  if step is None:
    return run_state
  metrics = jax.device_get(step.metrics)
  now = time.perf_counter()
  seconds = now - max(step.started, run_state.settled_at)
  skipped = run_state.position.skipped + 1 if float(metrics["nonfinite_steps"]) > 0 else 0
  open_fields = dict(seconds=run_state.position.seconds + seconds, skipped=skipped)
  position = dataclasses.replace(step.position, **open_fields)
  before = dataclasses.replace(step.before, seconds=run_state.position.seconds)
  extra = step.extra(before, position, seconds)
  open_fields["without_signal"] = 0 if alarms.has_signal(extra) else run_state.position.without_signal + 1
  position = dataclasses.replace(position, **open_fields)
  run_state = dataclasses.replace(
      run_state, position=dataclasses.replace(run_state.position, **open_fields), unsettled=None, settled_at=now,
      unlogged_metrics=(*run_state.unlogged_metrics, (metrics, extra)))
  most_flat = experiment.config.get("max_without_signal", 0)   # of RL alone
  flat = 0 < most_flat <= position.without_signal
  hopeless = skipped >= experiment.config["max_nonfinite"] or flat
  # What is measured on held-out rows belongs into the step's line, which then waits for it.
  waits = run_state.eval_pending and run_state.measure and run_state.position.step == position.step
  if hopeless or (due(experiment.log.every, position, experiment.limits) and not waits):
    run_state = write_line(run_state, position, log)
  if hopeless:
    raise RuntimeError(_without_signal(experiment, run_state, position, extra) if flat else
                       _nonfinite(run_state, position, metrics))
  log.progress("train", position, speed=throughput.summary(extra))
  return run_state


def write_line(run_state: RunState, position: Position, log: Log, measured: dict | None = None) -> RunState:
  """Writes the line of metrics.jsonl of the steps since the last one; before the first step it has what is measured."""
  line = {**(_merged(run_state.unlogged_metrics) if run_state.unlogged_metrics else {}), **(measured or {}),
          "compute/chip_hours": throughput.chip_hours(position), "compile/count": compile_count.count(),
          "memory/peak_gib": memory.peak_gib()}
  streaks = alarms.streaks(line, run_state.alarm_streaks)
  raised = alarms.raised(line, streaks)
  run_state = _warn(run_state, position, raised, log)
  log.metrics(position, {**line, **raised})
  return dataclasses.replace(run_state, unlogged_metrics=(), alarm_streaks=streaks)


def _warn(run_state: RunState, position: Position, raised: dict, log: Log) -> RunState:
  """Warns a person once of every alarm that a line of metrics raises."""
  names = {name.removeprefix("alarm/") for name in raised} - run_state.warned
  for name in sorted(names):
    alarm = alarms.ALARMS[name]
    log.say(f"ALARM {name} at step {position.step}: {alarm.cause} {alarm.knob}")
  return dataclasses.replace(run_state, warned=run_state.warned | names)


def _nonfinite(run_state: RunState, position: Position, metrics: dict) -> str:
  stores.finish(run_state.store)   # what is named below must be there
  bad, saved = position.skipped, run_state.store.latest_step()
  start = f"--config.start={run_state.workdir}@{saved}" if saved is not None else "its start"
  return (f"{run_state.workdir}: loss, gradient or update was not finite in each of the last {bad} steps "
          f"(config.max_nonfinite). Their updates were skipped; the last good step is {position.step - bad}. Begin "
          f"another workdir from {start} with a lower config.optimizer.learning_rate, a longer config.schedule.warmup "
          f"or a smaller config.optimizer.clip{_of_update(metrics)}.")


def _of_update(metrics: dict) -> str:
  """What else to change where the gradient is finite: the optimizer made the update that is not."""
  finite = math.isfinite(float(metrics["grad_norm"]))
  return "; the gradient is finite, so look at config.optimizer.args first (a larger eps)" if finite else ""


def _without_signal(experiment: Experiment, run_state: RunState, position: Position, line: dict) -> str:
  config, groups = experiment.config, "frac_reward_zero_std" in line
  reward = next((f"config.{key}={value}" for key, value in (
      ("reward", config["reward"]), ("reward_model.start", config.get("reward_model", {}).get("start"))) if value),
      f"of config.env.name={config['env']['name']}")
  if experiment.algorithm.imitated:
    return (f"{run_state.workdir}: in each of the last {position.without_signal} steps no response could be imitated "
            "(config.max_without_signal), so the policy learned nothing from them. Start from a better model "
            "(--config.start) or an easier task (--config.env).")
  where, alarm = ("of each group ", "constant_groups") if groups else ("", "constant_rewards")
  return (f"{run_state.workdir}: the rewards ({reward}) of all episodes {where}were alike in each of the last "
          f"{position.without_signal} steps (config.max_without_signal), so the policy learned nothing from them; "
          f"their mean is {line['objective/scores']:g}. {alarms.ALARMS[alarm].knob}")


def add_up(fetched: list[dict]) -> dict:
  """Metrics of several updates, fetched: Means and Peaks merged, counts summed, plain numbers averaged."""
  total = {name: merge_host([metrics[name] for metrics in fetched]) for name in fetched[0]}
  for name in ("nonfinite_steps", "label_tokens", kl_limit.APPLIED, kl_limit.STOPPED):
    if name in total:
      total[name] *= len(fetched)
  return total


def _merged(unlogged_metrics: tuple) -> dict[str, float]:
  """What is written for the steps between two lines."""
  return floats(add_up([{**metrics, **extra} for metrics, extra in unlogged_metrics]))
