"""What every training run does, whatever its method: begin or resume, write down, evaluate, save, stop, finish."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from sftrl_jax import alarms, trees
from sftrl_jax.checkpoints import store as stores
from sftrl_jax.metrics import floats, joined, plain, read
from sftrl_jax.models import heads, lora
from sftrl_jax.programs import adapters, exports
from sftrl_jax.programs.evaluate import evaluate
from sftrl_jax.programs.setup import Parts, complete
from sftrl_jax.rollout.policy import compile_all
from sftrl_jax.training import compiles, log as logs, state as states, throughput
from sftrl_jax.training.loop import Position, due, due_at
from sftrl_jax.training.profile import span
from sftrl_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Session:
  """A run between two steps.

  averaged: state -> parameters like those that are trained; those of the state but for averaging optimizers
  judged: state -> {"model": ..., heads} that play and are evaluated: averaged ones, with what is frozen
  frozen: {"model": start} where adapters are trained and it is not; else {}
  merge: the model of `judged` -> the same without adapters
  measure: the parameters of `judged` -> metrics of what is held out; None where nothing is
  pending: (metrics, extra) of steps not yet written to metrics.jsonl
  owed: the step's evaluation was begun, and is not in evals.jsonl
  warned: alarms that a person has been told of
  """

  state: TrainState
  position: Position
  start: dict  # parameters of `model` at the start, for KL; {} where nothing reads them
  store: Any
  workdir: Path
  averaged: Callable[[TrainState], dict]
  judged: Callable[[TrainState], dict]
  frozen: dict
  merge: Callable[[dict], dict]
  measure: Callable[[dict], dict[str, float]] | None = None
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
  start, params, frozen = adapters.begin(parts, workdir)
  if frozen:
    log.say(f"{workdir}: {trees.size(params):,} numbers of adapters are trained, {trees.size(start):,} stay.")
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
  for name in logs.FILES if log.writes else ():
    # Lines of an evaluation that will be made again; those of metrics hold one where something is held out.
    again = owed and (name != "metrics.jsonl" or bool(pending))
    logs.cut_after(workdir / name, after, lambda line, again=again: again and line.get("kind", "eval") == "eval")
  averaged, whole = _averaged(state), adapters.whole(parts)
  judged = lambda state: whole(averaged(state), frozen)
  stores.described({"state": state, **_evaluated(state, averaged)})  # compiled now, since nothing is later
  merge = _merging(judged(state)["model"]) if frozen and parts.settings["checkpoint"].export_every else lora.merge
  start = start if reads_start(parts) else {}  # a quarter of what training holds
  session = Session(state, position, start, store, workdir, averaged, judged, frozen, merge, pending=pending, owed=owed)
  stop.kept(lambda: _save_last(session, log))
  return session


def reads_start(parts: Parts) -> bool:
  """Whether a run keeps the parameters that it began with, to measure how far it has come from them."""
  evals, method = parts.settings["evals"], parts.settings.get(parts.config.get("algorithm"))
  measured = evals.variants and evals.kl and 1.0 in evals.temperatures
  return bool(measured or (method is not None and method.kl_coef))


def jitted_step(train_step, where):
  """The step as a run compiles it. where: shardings of the state, which is donated."""
  return jax.jit(train_step, donate_argnums=0, out_shardings=(where, None))


def compile_step(train_step, session: Session, batch):
  """(state, batch) -> (state, metrics), compiled for these shapes: any other is an error instead of a compilation.

  The state is donated; what is frozen is not, for it is read again.
  """
  where, frozen = jax.tree.map(lambda x: x.sharding, session.state), session.frozen
  compiled = jitted_step(train_step, where).lower(session.state, batch, frozen).compile()
  return lambda state, batch: compiled(state, batch, frozen)


def evaluate_start(parts: Parts, session: Session, log, stop, rollouts: bool = False) -> Session:
  """Compiles every shape of a rollout, and measures the start, or what an interrupted run still owes.

  rollouts: training plays episodes too, so the shapes are needed even where nothing is evaluated.
  """
  variants = parts.settings["evals"].variants
  if variants or rollouts:
    log.progress("compile", session.position, "compiling rollouts", force=True)
    compile_all(parts.actor, parts.actor.compiled[2](session.judged(session.state)["model"]), log.fed)
  stop.meet()
  if (variants or session.measure) and (session.position.step == 0 or session.owed) and not stop.told:
    stop.kept(lambda: _save_last(session, log), between=True)
    session = _evaluate(parts, session, log, stop)
  _export(parts, session)
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
  evals = parts.settings["evals"]
  reached = due(evals.every, position, limits) if evals.every else due_at(evals.at, before, position, limits)
  owed = reached and bool(evals.variants or session.measure)
  session = dataclasses.replace(session, state=state, position=position, pending=pending, owed=owed)
  # What is measured on held-out rows belongs into the step's line, which then waits for it.
  if hopeless or (due(parts.settings["log"].every, position, limits) and not (owed and session.measure)):
    session = _written(session, log)
  if hopeless:
    raise RuntimeError(_nonfinite(session))
  log.progress("train", position, speed=throughput.said(extra))
  stop.kept(lambda: _save_last(session, log), between=True)
  stop.meet()
  if session.owed and not stop.told:
    session = _evaluate(parts, session, log, stop)
  if due(parts.settings["checkpoint"].every, position, limits) and not session.owed:
    stop.exclusive(lambda: _save(session, log))
  if not stop.told:
    _export(parts, session)
  return _go_on(session, log, stop)


def _go_on(session: Session, log, stop) -> Session:
  """The session, if nobody has told the run to stop; else saves it and ends."""
  stop.meet()
  if stop.told:
    stop.leave(lambda: _save_last(session, log))
  stop.kept(lambda: _save_last(session, log, dropped=True))
  return session


def finish(parts: Parts, session: Session, log) -> None:
  """Waits for the last checkpoint; only then is the run complete."""
  log.close_parts()
  stores.finish(session.store)
  session.store.close()
  told = {"phase": "complete", "done": 1.0, "text": f"step {session.position.step}", "rate": "", "eta": 0.0,
          "steps": parts.limits.steps, "flops": parts.limits.flops}
  if log.writes:
    logs.write_json(session.workdir / "progress.json", told)


def _evaluate(parts: Parts, session: Session, log, stop) -> Session:
  """Every variant played, and what is held out measured: no evaluation is owed any more."""
  params = session.judged(session.state)
  if parts.settings["evals"].variants:
    with span("evaluate"):
      evaluate(parts, params["model"], session.start, session.position, log, stop.pause)
  if session.measure:
    log.progress("evaluate", session.position, "measuring held-out rows")
    measured = session.measure(params)
    log.say(f"step {session.position.step:>5}  " + "  ".join(f"{name} {value:.4f}" for name, value in measured.items()))
    session = _written(session, log, measured)
  return dataclasses.replace(session, owed=False)


def _written(session: Session, log, measured: dict | None = None) -> Session:
  """Writes the line of metrics.jsonl of the steps since the last one; before the first step it has what is measured."""
  line = {**(_merged(session.pending) if session.pending else {}), **(measured or {}),
          "compute/chip_hours": throughput.chip_hours(session.position), "compile/count": compiles.count()}
  session = _warn(session, line, log)
  log.metrics(session.position, {**line, **alarms.raised(line)})
  return dataclasses.replace(session, pending=())


def _export(parts: Parts, session: Session) -> None:
  """What is due of it; an interrupted one is made when the run goes on."""
  every, position = parts.settings["checkpoint"].export_every, session.position
  if every and position.step and due(every, position, parts.limits):
    model = session.merge(session.judged(session.state)["model"])
    exports.write(parts, model, session.workdir, position.step)


def _averaged(state: TrainState) -> Callable[[TrainState], dict]:
  """Parameters to be judged by, of those that are trained, compiled where an optimizer averages."""
  if not states.is_averaged(state):
    return lambda state: state.params
  return jax.jit(states.evaluated).lower(state).compile()


def _evaluated(state: TrainState, averaged) -> dict:
  return {"evaluated": averaged(state)} if states.is_averaged(state) else {}


def _merging(model: dict) -> Callable[[dict], dict]:
  """Merges adapters; compiled now, since nothing is later."""
  return jax.jit(lora.merge).lower(model).compile()


def _save(session: Session, log) -> None:
  log.close_parts()  # before the checkpoint: a run that goes on from it finds every line up to it
  pending = [[{name: plain(metric) for name, metric in part.items()} for part in both] for both in session.pending]
  meta = {"position": dataclasses.asdict(session.position), "pending": pending, "owed": session.owed}
  with span("checkpoint"):
    stores.save(session.store, session.position.step, session.state, meta,
                **_evaluated(session.state, session.averaged))


def _save_last(session: Session, log, dropped: bool = False) -> None:
  """What a run that is told to stop leaves behind; a start that was not trained yet leaves nothing."""
  if session.position.step:
    _save(session, log)
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
