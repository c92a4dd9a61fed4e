"""What every training run does, whatever its method: begin or resume, write down, evaluate, save, finish."""

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import jax

from sftrl_jax.checkpoints import store as stores
from sftrl_jax.metrics import floats, joined
from sftrl_jax.models import heads
from sftrl_jax.programs import start as starts
from sftrl_jax.programs.evaluate import evaluate
from sftrl_jax.programs.setup import Parts, complete
from sftrl_jax.rollout.policy import compile_all
from sftrl_jax.training import compiles, log as logs, state as states
from sftrl_jax.training.loop import Position, due, due_at
from sftrl_jax.training.state import TrainState

STOPPED = 75  # exit code after SIGTERM


@dataclasses.dataclass(frozen=True)
class Session:
  """A run between two steps."""

  state: TrainState
  position: Position
  start: dict  # parameters of `model` at the start, for KL
  store: Any
  workdir: Path
  pending: tuple = ()  # metrics not yet written


def begin(parts: Parts, workdir: Path, log, optimizer, value_head: bool) -> Session | None:
  """A new run or the continuation of the one in this workdir; None if that one is complete."""
  if complete(workdir, parts):
    log.say(f"{workdir} is complete; its report is {workdir / 'report' / 'report.html'}.")
    return None
  log.progress("compile", Position(), "starting", force=True)
  store = stores.manager(workdir, parts.settings["checkpoint"].keep)
  resumed = store.latest_step()
  start = starts.load(parts.config["start"], parts.model, parts.config["seed"], parts.mesh)
  params = {"model": start}
  if value_head:
    params["value"] = heads.init(parts.model.config.width)
  state, position = states.born(params, optimizer, parts.mesh), Position()
  if resumed is not None:
    state, meta = stores.restore(store, resumed, state)
    position = Position(**meta)
    log.say(f"{workdir}: going on from step {position.step}.")
  for name in ("metrics.jsonl", "evals.jsonl", "episodes.jsonl"):
    logs.cut_after(workdir / name, position.step if resumed is not None else -1)
  return Session(state, position, start, store, workdir)


def compile_step(train_step, state: TrainState, batch):
  """The step compiled for these shapes, its state donated: any other shape is an error instead of a compilation."""
  where = jax.tree.map(lambda x: x.sharding, state)
  return jax.jit(train_step, donate_argnums=0, out_shardings=(where, None)).lower(state, batch).compile()


def evaluate_start(parts: Parts, session: Session, log, rollouts: bool = False) -> Session:
  """Compiles every shape of a rollout, and measures the start unless an earlier session did.

  rollouts: training plays episodes too, so the shapes are needed even where nothing is evaluated.
  """
  variants = parts.settings["evals"].variants
  if variants or rollouts:
    log.progress("compile", session.position, "compiling rollouts", force=True)
    compile_all(parts.actor, parts.actor.compiled[2](session.state.params["model"]))
  if variants and session.position.step == 0:
    _evaluate(parts, session, log)
  log.say(f"{session.workdir}: {compiles.count()} programs compiled.")
  return session


def after_step(parts: Parts, session: Session, state: TrainState, position: Position, metrics: dict, extra: dict,
               log) -> Session:
  """Writes, evaluates and saves whatever is due after a step. metrics: of the train step, on the device."""
  pending = (*session.pending, (metrics, extra))
  before, limits = session.position, parts.limits
  session = dataclasses.replace(session, state=state, position=position)
  if due(parts.settings["log"].every, position, limits):
    log.metrics(position, {**_merged(pending), "compile/count": compiles.count()})
    pending = ()
  log.progress("train", position)
  session = dataclasses.replace(session, pending=pending)
  evals = parts.settings["evals"]
  reached = due(evals.every, position, limits) if evals.every else due_at(evals.at, before, position, limits)
  if evals.variants and reached:
    _evaluate(parts, session, log)
  if due(parts.settings["checkpoint"].every, position, limits):
    stores.save(session.store, position.step, state, dataclasses.asdict(position))
  return session


def stop_if_told(session: Session, received: list, log) -> None:
  """After SIGTERM or Ctrl-C: saves the step just done, leaves with 75 or 130; the same command goes on from there."""
  if not received:
    return
  stores.save(session.store, session.position.step, session.state, dataclasses.asdict(session.position))
  session.store.wait_until_finished()
  session.store.close()
  log.say(f"{session.workdir}: stopped after step {session.position.step}; the same command goes on.")
  raise KeyboardInterrupt if received[0] == signal.SIGINT else SystemExit(STOPPED)


def finish(parts: Parts, session: Session, log) -> None:
  """Waits for the last checkpoint; only then is the run complete."""
  session.store.wait_until_finished()
  session.store.close()
  told = {"phase": "complete", "done": 1.0, "text": f"step {session.position.step}", "rate": "", "eta": 0.0,
          "steps": parts.limits.steps, "flops": parts.limits.flops}
  logs.write_json(session.workdir / "progress.json", told)


def _evaluate(parts: Parts, session: Session, log) -> None:
  evaluate(parts, session.state.params["model"], session.start, session.position, log)


def add_up(fetched: list[dict]) -> dict:
  """Metrics of several updates, fetched: Means and Peaks merged, counts summed, plain numbers averaged."""
  total = {name: joined([metrics[name] for metrics in fetched]) for name in fetched[0]}
  if "nonfinite_steps" in total:
    total["nonfinite_steps"] *= len(fetched)
  return total


def _merged(pending: tuple) -> dict[str, float]:
  """What is written for the steps between two lines."""
  return floats(add_up([{**jax.device_get(metrics), **extra} for metrics, extra in pending]))


def read_meta(workdir: Path) -> dict:
  """The config recorded in a workdir."""
  return json.loads((workdir / "config.json").read_text())
