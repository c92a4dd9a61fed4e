"""What a run writes down while it runs: JSON lines, TensorBoard, progress, and a bar for people."""

import dataclasses
import json
import sys
import time
from pathlib import Path

from tqdm import tqdm

from sftrl_jax import jsonl, paths
from sftrl_jax.chat import Chat
from sftrl_jax.training.position import Limits, Position
from sftrl_jax.training.profile import Profile
from sftrl_jax.training.tensorboard import Scalars


@dataclasses.dataclass(frozen=True)
class LogConfig:
  """What is written.

  every: steps between lines of metrics.jsonl (means over the steps between)
  episodes: training episodes written to episodes.jsonl every `every` steps
  megabytes: episodes.jsonl stops growing at this size
  tensorboard: write TensorBoard files too
  report: write report/ at the end of the run
  profile_steps: steps that are traced into WORKDIR/profile, for xprof; for example (10, 11)
  watchdog_seconds: without progress until the stacks are dumped and the process ends (0: never; -1: 1800 where several
    processes run together, else never)
  """

  every: int = 1
  episodes: int = 2
  megabytes: float = 64.0
  tensorboard: bool = True
  report: bool = True
  profile_steps: tuple[int, ...] = ()
  watchdog_seconds: float = -1.0

  def __post_init__(self):
    if self.every < 1:
      raise ValueError(f"every is {self.every}; it must be at least 1.")
    if self.episodes < 0 or self.megabytes < 0:
      raise ValueError("episodes and megabytes must not be negative.")
    object.__setattr__(self, "profile_steps", tuple(self.profile_steps))
    if any(step < 1 for step in self.profile_steps):
      raise ValueError(f"profile_steps is {self.profile_steps}; steps count from 1, for example (10, 11).")
    if self.watchdog_seconds < 0 and self.watchdog_seconds != -1:
      raise ValueError(f"watchdog_seconds is {self.watchdog_seconds}; it must be 0 (never), -1 or some seconds.")


FILES = ("metrics.jsonl", "evals.jsonl", "episodes.jsonl")
PAUSES = {True: 1.0, False: 15.0}   # seconds between two progress.json, on this machine or not: a request takes longer


def write_json(path: Path, value) -> None:
  """Replaces the file in one move: a reader sees the old one or the new one, never half of either."""
  paths.write_whole(path, json.dumps(value, indent=1))


def cut_after(path: Path, step: int, again=lambda line: False) -> None:
  """Drops lines past a restored step, and a torn last one, so that every step is written once.

  again: which lines of that very step are dropped too, because they will be written again.
  """
  jsonl.cut(path, lambda line: line["step"] < step or (line["step"] == step and not again(line)))


def chat_json(chat: Chat) -> list[dict]:
  return [{"role": message.role, "text": message.text} for message in chat]


class Log:
  """The files of one workdir, open for a run. On every host but the first it writes nothing.

  Where files cannot be appended to, lines are held until `close_parts`. Whoever saves a checkpoint calls it before:
  once a checkpoint is complete, every line up to it is safe, and lines past the last complete one are cut by whoever
  goes on from it.
  """

  def __init__(self, workdir: Path, config: LogConfig, limits: Limits, name: str, writes: bool = True):
    self.workdir, self.config, self.limits, self.name, self.writes = workdir, config, limits, name, writes
    self.heartbeat = lambda: None   # told of all progress
    self._told, self._started, self._from, self._pause = 0.0, time.time(), None, PAUSES[paths.is_here(workdir)]
    self._metrics, self._evals, self._episodes = self._writers = tuple(jsonl.Writer(workdir / name) for name in FILES)
    self._curves = Scalars(workdir / "tensorboard")
    self.profile = Profile(workdir / "profile", config.profile_steps, self.say)
    shown = writes and sys.stderr.isatty()
    self._bar = tqdm(total=1.0, desc=name, disable=not shown, leave=True,
                     bar_format="{desc} {percentage:3.0f}%|{bar:24}| {elapsed}<{remaining} {postfix}")

  def resumed(self, position: Position) -> None:
    """What TensorBoard shows past this step is written again."""
    self._curves.resumed(position.step)

  def metrics(self, position: Position, metrics: dict[str, float]) -> None:
    if not self.writes:
      return
    self._metrics.write({**position.log(), **metrics})
    self._scalars(position.step, metrics, "")

  def evaluation(self, line: dict) -> None:
    if not self.writes:
      return
    self._evals.write(line)
    tag = f"eval/{line['variant']}/T{line['temperature']:g}/"
    self._scalars(line["step"], {k: line[k] for k in ("success", "first_success", "kl") if k in line}, tag)

  def episode(self, line: dict) -> None:
    if self.writes and self._episodes.size <= self.config.megabytes * 2**20:
      self._episodes.write(line)

  def close_parts(self) -> None:
    """Makes safe what is written so far. It may be called at any time: lines past a checkpoint are cut by a resume."""
    for writer in (*self._writers, self._curves):
      writer.close_part()

  def progress(self, phase: str, position: Position, text: str = "", force: bool = False, speed: str = "") -> None:
    """progress.json about once a second (in a bucket, four times a minute), and the bar. speed: beside steps a second.
    """
    self.heartbeat()
    now = time.time()
    if not self.writes or (now - self._told < self._pause and not force):
      return
    done = self.limits.done(position)
    if self._from is None:
      self._from = (now, done, position.step)
    passed, rate = now - self._from[0], 0.0
    eta = passed * (1 - done) / (done - self._from[1]) if done > self._from[1] else 0.0
    rate = (position.step - self._from[2]) / passed if passed > 0 else 0.0
    told = {"phase": phase, "done": round(done, 5), "text": text or f"step {position.step}/{self.limits.steps}",
            "rate": f"{rate:.2f} it/s{speed and ', '}{speed}", "eta": round(eta, 1)}
    self._tell(told)
    self._bar.n = done
    self._bar.set_postfix_str(f"{phase} step {position.step} {told['rate']} {text}")
    self._told = now

  def _tell(self, told: dict) -> None:
    """Writes progress.json. A bucket that does not answer is no reason to end a run: the next one may get there."""
    try:
      write_json(self.workdir / "progress.json", told)
    except Exception as error:  # any of the client's
      if paths.is_here(self.workdir):
        raise
      self.say(f"progress.json was not written ({type(error).__name__}: {str(error)[:200]}).")

  def say(self, text: str) -> None:
    """One line for a person, above the bar."""
    if self.writes:
      tqdm.write(text, file=sys.stdout)
      sys.stdout.flush()

  def close(self) -> None:
    self._bar.close()
    self.profile.close()
    self.close_parts()
    self._curves.close()

  def _scalars(self, step: int, metrics: dict, prefix: str) -> None:
    if self.config.tensorboard:
      self._curves.add(step, metrics, prefix)
