"""What every training run does, whatever its kind: begin or resume, write down, evaluate, save, stop, finish.

A step is settled when its metrics have been fetched and counted. SFT settles a step while the devices compute the next
one (`late`), so that they never wait for the host; a step after which something is due (an evaluation, a checkpoint, an
export, the end) is settled at once, and so is every step of RL, whose next rollout needs the new parameters anyhow.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sftrl_jax import paths, trees
from sftrl_jax.checkpoints import store as stores
from sftrl_jax.forecast import live as forecast_line
from sftrl_jax.metrics import from_json, to_json
from sftrl_jax.models import lora
from sftrl_jax.programs.experiment import length
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.learner import Learner
from sftrl_jax.programs.experiment.workdir import complete, put_aside, recorded_step
from sftrl_jax.programs.harness import run_tasks
from sftrl_jax.programs.loop import evaluation_time, weights_file
from sftrl_jax.programs.loop.evaluator import Weights, compile_rollouts, evaluate
from sftrl_jax.programs.loop.jitted import JittedFunctions, jit_functions
from sftrl_jax.programs.loop.run_state import RunState, Step, settled, write_line
from sftrl_jax.programs.runtime import compile_cache
from sftrl_jax.programs.runtime.shutdown import Stop
from sftrl_jax.programs.start import trainable
from sftrl_jax.programs.start.pretrained import NAME
from sftrl_jax.training import compile_count
from sftrl_jax.training.log import FILES, Log, cut_after, write_json
from sftrl_jax.training.position import Position, due, due_at
from sftrl_jax.training.profile import span
from sftrl_jax.training.state import TrainState, is_averaged
from sftrl_jax.training.updates import ema

LATE_SHARE = 0.25   # of checkpoint.grace_seconds: steps that take longer are settled at once, so that a stop is in time


def start_or_resume(experiment: Experiment, learner: Learner, workdir: Path, log: Log, stop: Stop) -> RunState | None:
  """A new run or the continuation of the one in this workdir; None if that one is complete."""
  if complete(workdir, experiment):
    log.say(f"{workdir} is complete; its report is {workdir / 'report' / 'report.html'}.")
    return None
  earlier_step = recorded_step(workdir)   # before progress.json is written again
  log.progress("compile", Position(), "starting", force=True)
  store = stores.manager(workdir, experiment.checkpoint.keep)
  start, params, frozen = trainable.init_trainable(experiment, workdir)
  if experiment.lora.rank:
    adapters = trees.size(params["lora"])
    log.say(f"{workdir}: {adapters:,} numbers of adapters are trained, {trees.size(start):,} stay.")
  jitted = jit_functions(experiment, learner, params)
  state, position, unlogged_metrics, eval_pending, after = jitted.init_state(params), Position(), (), False, -1
  alarm_streaks, kl_coef = {}, None
  restored = stores.restore_newest(store, state, log.say)
  if restored is not None:
    state, meta, after = restored
    alarm_streaks, kl_coef = meta.get("alarm_streaks", {}), meta.get("kl_coef")
    position, eval_pending = Position(**meta["position"]), meta["eval_pending"]
    unlogged_metrics = tuple(tuple({name: from_json(metric) for name, metric in part.items()} for part in both)
                             for both in meta["unlogged_metrics"])
    log.say(f"{workdir}: going on from step {position.step}.")
    if note := length.change(experiment, learner, meta.get("length", {}), position, int(state.step)):
      log.say(f"{workdir}: {note}")
  elif earlier_step and log.writes:
    put_aside(workdir, earlier_step, log.say)
  log.start(position.step)
  for name in FILES if log.writes else ():
    # Lines of an evaluation that will be made again; those of metrics hold one where something is held out.
    again = eval_pending and (name != "metrics.jsonl" or bool(unlogged_metrics))
    cut_after(workdir / name, after, lambda line, again=again: again and line.get("kind", "eval") == "eval")
  averaged_params, full_params = _averaged(jitted, state), trainable.full_params_fn(experiment)
  eval_params = lambda state: full_params(averaged_params(state), frozen)
  average = (lambda state: full_params(ema.ema_params(state), frozen)) if experiment.ema.decay else None
  stores.described({"state": state, **_evaluated(state, averaged_params)})  # compiled now, since nothing is later
  exports = experiment.lora.rank and experiment.checkpoint.export_every
  merge = jax.jit(lora.merge).lower(eval_params(state)["model"]).compile() if exports else lora.merge
  start = start if trainable.reads_start(experiment) else {}  # a quarter of what training holds
  run_state = RunState(state, position, start, store, workdir, jitted, averaged_params, eval_params, frozen, merge,
                       average, unlogged_metrics=unlogged_metrics, eval_pending=eval_pending,
                       length=length.record(experiment), alarm_streaks=alarm_streaks, kl_coef=kl_coef)
  stop.finish_saves = lambda: stores.finish(store)
  stop.set_savepoint(lambda: _save_last(run_state, log), between=True)
  return run_state


def compile_step(run_state: RunState, batch: Any, *spent: Any) -> Callable[..., tuple[TrainState, dict]]:
  """(state, batch, *spent) -> (state, metrics), compiled for these shapes: any other is an error instead of a
  compilation.

  The state is donated; what is frozen is not, for it is read again.
  """
  frozen = run_state.frozen
  compiled = run_state.jitted.train_step.lower(run_state.state, batch, frozen, *spent).compile()
  return lambda state, batch, *spent: compiled(state, batch, frozen, *spent)


def evaluate_start(experiment: Experiment, run_state: RunState, log: Log, stop: Stop,
                   rollouts: bool = False) -> RunState:
  """Compiles every shape of a rollout, and measures the start, or what an interrupted run has not evaluated yet.

  rollouts: training plays episodes too, so the shapes are needed even where nothing is evaluated.
  """
  variants = experiment.evals.variants
  if variants or rollouts:
    log.progress("compile", run_state.position, "compiling rollouts", force=True)
    model = run_state.eval_params(run_state.state)["model"]
    compile_rollouts(experiment, model, log.heartbeat)
  stop.sync()
  begins = run_state.position.step == 0 or run_state.eval_pending
  if _is_evaluated(experiment, run_state) and begins and not stop.requested:
    stop.set_savepoint(lambda: _save_last(run_state, log), between=True)
    run_state = _evaluate(experiment, run_state, log, stop)
  _export(experiment, run_state)
  log.say(f"{run_state.workdir}: {compile_count.count()} programs compiled{compile_cache.summary()}.")
  return _go_on(run_state, log, stop)


def settles_late(run_state: RunState, seconds: float, grace: float) -> bool:
  """Whether the next step may be settled while the one after it is computed: it is short beside the grace of a stop.

  seconds: of a step, as it took before
  """
  return run_state.position.step > 0 and seconds < LATE_SHARE * grace


def after_step(experiment: Experiment, run_state: RunState, state: TrainState, step: Step, log: Log, stop: Stop,
               late: bool = False) -> RunState:
  """Writes, evaluates and saves whatever is due after a step, and ends the run if a signal has come.

  late: fetch the step's metrics while the next one is computed, unless something is due
  """
  stores.check(run_state.store)   # before more steps are trained that cannot be saved
  run_state = settled(experiment, run_state, log)
  limits, evals, position = experiment.limits, experiment.evals, step.position
  reached = due(evals.every, position, limits) if evals.every else due_at(evals.at, step.before, position, limits)
  eval_pending = reached and _is_evaluated(experiment, run_state)
  saves = due(experiment.checkpoint.every, position, limits)
  carried = {name: getattr(run_state.position, name) for name in ("seconds", "skipped", "without_signal")}
  run_state = dataclasses.replace(run_state, state=state, position=dataclasses.replace(position, **carried),
                                  eval_pending=eval_pending, unsettled=step)
  stop.sync()
  if late and not (eval_pending or saves or _exports(experiment, position) or stop.requested):
    stop.sync()   # as often as below, where all processes may come
    if not stop.requested:
      return run_state
  run_state = settled(experiment, run_state, log)
  stop.set_savepoint(lambda: _save_last(run_state, log), between=True)
  if run_state.eval_pending and not stop.requested:
    run_state = _evaluate(experiment, run_state, log, stop)
  if saves and not run_state.eval_pending:
    stop.no_interrupt(lambda: _save(run_state, log))
  if not stop.requested:
    _export(experiment, run_state)
  return _go_on(run_state, log, stop)


def _go_on(run_state: RunState, log: Log, stop: Stop) -> RunState:
  """The run, if nobody has asked it to stop; else saves it and ends."""
  stop.sync()
  if stop.requested:
    stop.leave(lambda: _save_last(run_state, log))
  stop.set_savepoint(lambda: _save_last(run_state, log, dropped=True))
  return run_state


def finish(experiment: Experiment, run_state: RunState, log: Log, stop: Stop) -> None:
  """Waits for the last checkpoint, and compares the weights with the start; only then is the run complete."""
  stop.set_savepoint(lambda: _save_last(run_state, log), between=True)
  log.close_parts()
  stores.finish(run_state.store)
  step = run_state.position.step
  if weights_file.is_compared(experiment):
    params = run_state.merge(run_state.eval_params(run_state.state)["model"])
    weights_file.write_at_end(experiment, run_state.workdir, step, params, run_state.start, log.say, log.heartbeat)
  run_state.store.close()   # last: a signal that comes while weights are compared finds it open
  progress = {"phase": "complete", "done": 1.0, "text": f"step {step}", "rate": "", "eta": 0.0, "step": step,
              "steps": experiment.limits.steps, "flops": experiment.limits.flops}
  if log.writes:
    write_json(run_state.workdir / "progress.json", progress)


def _is_evaluated(experiment: Experiment, run_state: RunState) -> bool:
  return bool(experiment.evals.variants or experiment.tasks or run_state.measure or run_state.measure_variants)


def _evaluate(experiment: Experiment, run_state: RunState, log: Log, stop: Stop) -> RunState:
  """Every variant played, tasks asked, what is held out measured: no evaluation is pending any more. With config.ema
  all of it twice, of the parameters and of their average."""
  position, weights = run_state.position, {"": run_state.eval_params(run_state.state)}
  if run_state.ema_params is not None:
    weights[ema.EMA] = run_state.ema_params(run_state.state)
  if experiment.evals.variants or experiment.tasks:
    started = time.perf_counter()
    with span("evaluate"):
      for kind, params in weights.items():
        if experiment.evals.variants:
          evaluate(experiment, Weights(params["model"], run_state.start, kind), position, log, stop.sync_or_exit,
                   updates=int(run_state.state.step), scorer=run_state.scorer)
        if experiment.tasks:
          _ask_tasks(experiment, params["model"], kind, position, log, stop)
    slow = evaluation_time.note(experiment, position, time.perf_counter() - started)
    if slow and run_state.has_evaluated:   # the first one of a process compiles
      log.say_once("evaluation_time", f"{run_state.workdir}: {slow}")
    run_state = dataclasses.replace(run_state, has_evaluated=True)
    if experiment.evals.variants:
      _say_forecast(run_state, experiment.limits.done(position), log)
  if run_state.measure_variants:
    log.progress("evaluate", position, "measuring held-out pairs")
    about = {"step": position.step, "flops": position.total_flops, "seconds": round(position.seconds, 3)}
    for kind, params in weights.items():
      for line in run_state.measure_variants(params):
        log.evaluation({**about, **line, "variant": ema.of_weights(line["variant"], kind)})
  if run_state.measure:
    log.progress("evaluate", position, "measuring held-out rows")
    measured = {name.replace("eval/", f"eval/{ema.of_weights('', kind).replace(':', '/')}"): value
                for kind, params in weights.items() for name, value in run_state.measure(params).items()}
    log.say(f"step {position.step:>5}  " + "  ".join(f"{name} {value:.4f}" for name, value in measured.items()))
    run_state = write_line(run_state, position, log, measured)
  return dataclasses.replace(run_state, eval_pending=False)


def _ask_tasks(experiment: Experiment, params: dict, kind: str, position: Position, log: Log, stop: Stop) -> None:
  """The lines of config.evals.tasks of these parameters. kind: as of `Weights`"""
  log.progress("evaluate", position, "asking tasks")
  started = time.perf_counter()
  lines = run_tasks.measure(experiment, params, position, kind, lambda: (log.heartbeat(), stop.sync_or_exit()))
  for line in lines:
    log.task(line)
  log.say(run_tasks.summary(position.step, lines, time.perf_counter() - started))


def _say_forecast(run_state: RunState, done: float, log: Log) -> None:
  """Where success will be at the end of the run, by the lines of evals.jsonl; nothing of the run depends on it.

  done: share of the run, in [0, 1]
  """
  if log.writes and 0 < done < 1 and paths.is_here(run_state.workdir):   # a bucket's lines are still held
    text = forecast_line.line(run_state.workdir / "evals.jsonl", run_state.position.total_flops / done)
    if text:
      log.say(f"step {run_state.position.step:>5}  {text}")


def _exports(experiment: Experiment, position: Position) -> bool:
  every = experiment.checkpoint.export_every
  return bool(every and position.step and due(every, position, experiment.limits))


def _export(experiment: Experiment, run_state: RunState) -> None:
  """What is due of it; an interrupted one is made when the run goes on."""
  if _exports(experiment, run_state.position):
    params = run_state.eval_params(run_state.state)
    head = params["value"] if experiment.objective and "value" in params else None
    write_export(experiment, run_state.merge(params["model"]), run_state.workdir, run_state.position.step, head)


def write_export(experiment: Experiment, params: dict, workdir: Path, step: int, head: dict | None = None) -> None:
  """WORKDIR/exports/STEP: plain parameters of `model`, in a directory that transformers opens.

  All processes write together. A step that is there stays. head: of a reward model
  """
  from sftrl_jax.checkpoints import export, hf
  home = workdir / "exports" / str(step)
  if not (home / "config.json").is_file():
    with paths.staging(home, last="config.json") as folder:
      score = head and export.ScoreHead(np.asarray(head["kernel"]), float(head["bias"]))
      hf.save(folder, experiment.model.config, params, experiment.tokenizer, paths.local_copy(workdir / NAME), score)


def _averaged(jitted: JittedFunctions, state: TrainState) -> Callable[[TrainState], dict]:
  """Parameters to evaluate with, of those that are trained, compiled where an optimizer averages."""
  return jitted.average.lower(state).compile() if is_averaged(state) else lambda state: state.params


def _evaluated(state: TrainState, averaged_params: Callable[[TrainState], dict]) -> dict:
  return {"evaluated": averaged_params(state)} if is_averaged(state) else {}


def _save(run_state: RunState, log: Log) -> None:
  log.close_parts()  # before the checkpoint: a run that goes on from it finds every line up to it
  unlogged = [[{name: to_json(metric) for name, metric in part.items()} for part in both]
              for both in run_state.unlogged_metrics]
  meta = {"position": dataclasses.asdict(run_state.position), "unlogged_metrics": unlogged,
          "eval_pending": run_state.eval_pending, "length": run_state.length,
          "alarm_streaks": run_state.alarm_streaks}
  meta |= {} if run_state.kl_coef is None else {"kl_coef": run_state.kl_coef}
  with span("checkpoint"):
    stores.save(run_state.store, run_state.position.step, run_state.state, meta,
                **_evaluated(run_state.state, run_state.averaged_params))


def _save_last(run_state: RunState, log: Log, dropped: bool = False) -> None:
  """What a run that is asked to stop leaves behind; a start that was not trained yet leaves nothing."""
  step = run_state.position.step
  if step:
    _save(run_state, log)
  stores.finish(run_state.store)
  redone = f" Step {step + 1} is dropped and will be redone." if dropped else ""
  log.say(f"{run_state.workdir}: stopped after step {step}; the same command goes on.{redone}")


