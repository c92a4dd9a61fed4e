"""What a run writes down while it runs: JSON lines, TensorBoard, progress, and a bar for people."""

import dataclasses
import json
import math
import os
import sys
import time
from pathlib import Path

from tqdm import tqdm

from sftrl_jax.chat import Chat
from sftrl_jax.training.loop import Limits, Position


@dataclasses.dataclass(frozen=True)
class LogConfig:
  """What is written.

  every: steps between lines of metrics.jsonl (means over the steps between)
  episodes: training episodes written to episodes.jsonl every `every` steps
  megabytes: episodes.jsonl stops growing at this size
  tensorboard: write TensorBoard files too
  report: write report/ at the end of the run
  """

  every: int = 1
  episodes: int = 2
  megabytes: float = 64.0
  tensorboard: bool = True
  report: bool = True

  def __post_init__(self):
    if self.every < 1:
      raise ValueError(f"every is {self.every}; it must be at least 1.")
    if self.episodes < 0 or self.megabytes < 0:
      raise ValueError("episodes and megabytes must not be negative.")


def write_json(path: Path, value) -> None:
  """Replaces the file in one move: a reader sees the old one or the new one, never half of either."""
  half = path.with_name(f".{path.name}.{os.getpid()}")
  half.write_text(json.dumps(value, indent=1))
  half.replace(path)


def append_line(path: Path, line: dict) -> None:
  with path.open("a") as file:
    file.write(json.dumps(_finite(line)) + "\n")


def _finite(value):
  """JSON has no NaN or infinity: they are written as text, which no reader can mistake for a number."""
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  if isinstance(value, dict):
    return {key: _finite(item) for key, item in value.items()}
  return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def cut_after(path: Path, step: int, again=lambda line: False) -> None:
  """Drops lines past a restored step, and a torn last one, so that every step is written once.

  again: which lines of that very step are dropped too, because they will be written again.
  """
  if not path.is_file():
    return
  kept = []
  for line in path.read_text().splitlines():
    try:
      told = json.loads(line)
      if told["step"] < step or (told["step"] == step and not again(told)):
        kept.append(line)
    except (ValueError, KeyError, TypeError):
      continue
  half = path.with_name(f".{path.name}.{os.getpid()}")
  half.write_text("".join(line + "\n" for line in kept))
  half.replace(path)


def chat_json(chat: Chat) -> list[dict]:
  return [{"role": message.role, "text": message.text} for message in chat]


class Log:
  """The files of one workdir, open for a run. On every host but the first it writes nothing."""

  def __init__(self, workdir: Path, config: LogConfig, limits: Limits, name: str, writes: bool = True):
    self.workdir, self.config, self.limits, self.name, self.writes = workdir, config, limits, name, writes
    self._board, self._told, self._started, self._from, self._purge = None, 0.0, time.time(), None, None
    shown = writes and sys.stderr.isatty()
    self._bar = tqdm(total=1.0, desc=name, disable=not shown, leave=True,
                     bar_format="{desc} {percentage:3.0f}%|{bar:24}| {elapsed}<{remaining} {postfix}")

  def resumed(self, position: Position) -> None:
    """What TensorBoard shows past this step is written again."""
    self._purge = position.step + 1

  def metrics(self, position: Position, metrics: dict[str, float]) -> None:
    if not self.writes:
      return
    append_line(self.workdir / "metrics.jsonl", {**position.log(), **metrics})
    self._scalars(position.step, metrics, "")

  def evaluation(self, line: dict) -> None:
    if not self.writes:
      return
    append_line(self.workdir / "evals.jsonl", line)
    tag = f"eval/{line['variant']}/T{line['temperature']:g}/"
    self._scalars(line["step"], {k: line[k] for k in ("success", "first_success", "kl") if k in line}, tag)

  def episode(self, line: dict) -> None:
    path = self.workdir / "episodes.jsonl"
    full = path.is_file() and path.stat().st_size > self.config.megabytes * 2**20
    if self.writes and not full:
      append_line(path, line)

  def progress(self, phase: str, position: Position, text: str = "", force: bool = False) -> None:
    """progress.json about once a second, and the bar."""
    now = time.time()
    if not self.writes or (now - self._told < 1.0 and not force):
      return
    done = self.limits.done(position)
    if self._from is None:
      self._from = (now, done, position.step)
    passed, rate = now - self._from[0], 0.0
    eta = passed * (1 - done) / (done - self._from[1]) if done > self._from[1] else 0.0
    rate = (position.step - self._from[2]) / passed if passed > 0 else 0.0
    told = {"phase": phase, "done": round(done, 5), "text": text or f"step {position.step}/{self.limits.steps}",
            "rate": f"{rate:.2f} it/s", "eta": round(eta, 1)}
    write_json(self.workdir / "progress.json", told)
    self._bar.n = done
    self._bar.set_postfix_str(f"{phase} step {position.step} {told['rate']} {text}")
    self._told = now

  def say(self, text: str) -> None:
    """One line for a person, above the bar."""
    if self.writes:
      tqdm.write(text, file=sys.stdout)
      sys.stdout.flush()

  def close(self) -> None:
    self._bar.close()
    if self._board is not None:
      self._board.close()

  def _scalars(self, step: int, metrics: dict, prefix: str) -> None:
    if not self.config.tensorboard:
      return
    if self._board is None:
      from tensorboardX import SummaryWriter
      self._board = SummaryWriter(str(self.workdir / "tensorboard"), purge_step=self._purge)
    for name, value in metrics.items():
      if isinstance(value, int | float):
        self._board.add_scalar(prefix + name, value, step)
