"""What every training run does, whatever its method: begin or resume, write down, evaluate, save, stop, finish."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from sftrl_jax import alarms
from sftrl_jax.checkpoints import store as stores
from sftrl_jax.metrics import floats, joined, plain, read
from sftrl_jax.models import heads
from sftrl_jax.programs import start as starts
from sftrl_jax.programs.evaluate import evaluate
from sftrl_jax.programs.setup import Parts, complete
from sftrl_jax.rollout.policy import compile_all
from sftrl_jax.training import compiles, log as logs, state as states
from sftrl_jax.training.loop import Position, due, due_at
from sftrl_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Session:
  """A run between two steps.

  judged: state -> the parameters that play and are evaluated; those of the state but for averaging optimizers
  pending: (metrics, extra) of steps not yet written to metrics.jsonl
  owed: the step's evaluation was begun, and is not in evals.jsonl
  warned: alarms that a person has been told of
  """

  state: TrainState
  position: Position
  start: dict  # parameters of `model` at the start, for KL
  store: Any
  workdir: Path
  judged: Callable[[TrainState], dict]
  pending: tuple = ()
  owed: bool = False
  warned: frozenset = frozenset()


def begin(parts: Parts, workdir: Path, log, stop, optimizer, value_head: bool) -> Session | None:
  """A new run or the continuation of the one in this workdir; None if that one is complete."""
  if complete(workdir, parts):
    log.say(f"{workdir} is complete; its report is {workdir / 'report' / 'report.html'}.")
    return None
  log.progress("compile", Position(), "starting", force=True)
  store = stores.manager(workdir, parts.settings["checkpoint"].keep)
  start = starts.load(parts.config["start"], parts.model, parts.config["seed"], parts.mesh)
  params = {"model": start}
  if value_head:
    params["value"] = heads.init(parts.model.config.width)
  state, position, pending, owed, after = states.born(params, optimizer, parts.mesh), Position(), (), False, -1
  found = stores.restore_newest(store, state, log.say)
  if found is not None:
    state, meta, after = found
    position, owed = Position(**meta["position"]), meta["owed"]
    pending = tuple(tuple({name: read(metric) for name, metric in part.items()} for part in both)
                    for both in meta["pending"])
    log.resumed(position)
    log.say(f"{workdir}: going on from step {position.step}.")
  for name in ("metrics.jsonl", "evals.jsonl", "episodes.jsonl"):
    again = owed and name != "metrics.jsonl"  # lines of an evaluation that will be made again
    logs.cut_after(workdir / name, after, lambda line, again=again: again and line.get("kind", "eval") == "eval")
  judged = _judged(state)
  stores.described({"state": state, **_evaluated(state, judged)})  # compiled now, since nothing is later
  session = Session(state, position, start, store, workdir, judged, pending, owed)
  stop.kept(lambda: _save_last(session, log))
  return session


def compile_step(train_step, state: TrainState, batch):
  """The step compiled for these shapes, its state donated: any other shape is an error instead of a compilation."""
  where = jax.tree.map(lambda x: x.sharding, state)
  return jax.jit(train_step, donate_argnums=0, out_shardings=(where, None)).lower(state, batch).compile()


def evaluate_start(parts: Parts, session: Session, log, stop, rollouts: bool = False) -> Session:
  """Compiles every shape of a rollout, and measures the start, or what an interrupted run still owes.

  rollouts: training plays episodes too, so the shapes are needed even where nothing is evaluated.
  """
  variants = parts.settings["evals"].variants
  if variants or rollouts:
    log.progress("compile", session.position, "compiling rollouts", force=True)
    compile_all(parts.actor, parts.actor.compiled[2](session.judged(session.state)["model"]))
  if variants and (session.position.step == 0 or session.owed):
    stop.kept(lambda: _save_last(session, log), between=True)
    _evaluate(parts, session, log)
    session = dataclasses.replace(session, owed=False)
  log.say(f"{session.workdir}: {compiles.count()} programs compiled.")
  return _go_on(session, log, stop)


def after_step(parts: Parts, session: Session, state: TrainState, position: Position, metrics: dict, extra: dict,
               log, stop) -> Session:
  """Writes, evaluates and saves whatever is due after a step, and ends the run if a signal has come.

  metrics: of the train step, on the device; extra: numbers of the host.
  """
  metrics = jax.device_get(metrics)
  skipped = float(metrics["nonfinite_steps"]) > 0
  before, limits = session.position, parts.limits
  position = dataclasses.replace(position, skipped=position.skipped + 1 if skipped else 0)
  hopeless = position.skipped >= parts.config["max_nonfinite"]
  pending = (*session.pending, (metrics, extra))
  session = dataclasses.replace(session, state=state, position=position)
  if due(parts.settings["log"].every, position, limits) or hopeless:
    line = {**_merged(pending), "compile/count": compiles.count()}
    session, pending = _warn(session, line, log), ()
    log.metrics(position, {**line, **alarms.raised(line)})
  if hopeless:
    raise RuntimeError(_nonfinite(session))
  log.progress("train", position)
  evals = parts.settings["evals"]
  reached = due(evals.every, position, limits) if evals.every else due_at(evals.at, before, position, limits)
  session = dataclasses.replace(session, pending=pending, owed=bool(evals.variants) and reached)
  stop.kept(lambda: _save_last(session, log), between=True)
  if session.owed and not stop.told:
    _evaluate(parts, session, log)
    session = dataclasses.replace(session, owed=False)
  if due(parts.settings["checkpoint"].every, position, limits) and not session.owed:
    stop.exclusive(lambda: _save(session))
  return _go_on(session, log, stop)


def _go_on(session: Session, log, stop) -> Session:
  """The session, if nobody has told the run to stop; else saves it and ends."""
  if stop.told:
    stop.leave(lambda: _save_last(session, log))
  stop.kept(lambda: _save_last(session, log, dropped=True))
  return session


def finish(parts: Parts, session: Session, log) -> None:
  """Waits for the last checkpoint; only then is the run complete."""
  stores.finish(session.store)
  session.store.close()
  told = {"phase": "complete", "done": 1.0, "text": f"step {session.position.step}", "rate": "", "eta": 0.0,
          "steps": parts.limits.steps, "flops": parts.limits.flops}
  logs.write_json(session.workdir / "progress.json", told)


def _evaluate(parts: Parts, session: Session, log) -> None:
  evaluate(parts, session.judged(session.state)["model"], session.start, session.position, log)


def _judged(state: TrainState) -> Callable[[TrainState], dict]:
  """Parameters to play and evaluate with, compiled where an optimizer averages."""
  if not states.is_averaged(state):
    return lambda state: state.params
  return jax.jit(states.evaluated).lower(state).compile()


def _evaluated(state: TrainState, judged) -> dict:
  return {"evaluated": judged(state)} if states.is_averaged(state) else {}


def _save(session: Session) -> None:
  pending = [[{name: plain(metric) for name, metric in part.items()} for part in both] for both in session.pending]
  meta = {"position": dataclasses.asdict(session.position), "pending": pending, "owed": session.owed}
  stores.save(session.store, session.position.step, session.state, meta, **_evaluated(session.state, session.judged))


def _save_last(session: Session, log, dropped: bool = False) -> None:
  """What a run that is told to stop leaves behind; a start that was not trained yet leaves nothing."""
  if session.position.step:
    _save(session)
  stores.finish(session.store)
  redone = f" Step {session.position.step + 1} is dropped and will be redone." if dropped else ""
  log.say(f"{session.workdir}: stopped after step {session.position.step}; the same command goes on.{redone}")


def _warn(session: Session, line: dict, log) -> Session:
  """Tells a person once of every alarm that a line of metrics raises."""
  names = {name.removeprefix("alarm/") for name in alarms.raised(line)} - session.warned
  for name in sorted(names):
    alarm = alarms.ALARMS[name]
    log.say(f"ALARM {name} at step {session.position.step}: {alarm.cause} {alarm.knob}")
  return dataclasses.replace(session, warned=session.warned | names)


def _nonfinite(session: Session) -> str:
  step, bad = session.position.step, session.position.skipped
  saved = session.store.latest_step()
  begin = f"--config.start={session.workdir}@{saved}" if saved is not None else "its start"
  return (f"{session.workdir}: loss or gradient was not finite in each of the last {bad} steps (config.max_nonfinite). "
          f"Their updates were skipped; the last good step is {step - bad}. Begin another workdir from {begin} with a "
          "lower config.optimizer.learning_rate, a longer config.schedule.warmup or a smaller config.optimizer.clip.")


def add_up(fetched: list[dict]) -> dict:
  """Metrics of several updates, fetched: Means and Peaks merged, counts summed, plain numbers averaged."""
  total = {name: joined([metrics[name] for metrics in fetched]) for name in fetched[0]}
  for name in ("nonfinite_steps", "label_tokens"):
    if name in total:
      total[name] *= len(fetched)
  return total


def _merged(pending: tuple) -> dict[str, float]:
  """What is written for the steps between two lines."""
  return floats(add_up([{**metrics, **extra} for metrics, extra in pending]))
