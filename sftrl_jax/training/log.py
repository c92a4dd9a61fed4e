"""What a run writes while it runs: JSON lines, scalars for dashboards, progress, and a bar for people."""

import contextlib
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sftrl_jax import jsonl, paths
from sftrl_jax.chat import Chat
from sftrl_jax.training.position import Limits, Position
from sftrl_jax.training.profile import Profile
from sftrl_jax.training.writers.writer import check_writers, open_writers


@dataclasses.dataclass(frozen=True)
class LogConfig:
  """What is written.

  every: steps between lines of metrics.jsonl (means over the steps between)
  episodes: training episodes written to episodes.jsonl every `every` steps
  megabytes: episodes.jsonl stops growing at this size
  writers: where scalars go besides metrics.jsonl and evals.jsonl: any of tensorboard (WORKDIR/tensorboard), wandb and
    trackio; () for none
  report: write report/ at the end of the run
  profile_steps: steps that are traced into WORKDIR/profile, for xprof; for example (10, 11)
  watchdog_seconds: seconds without progress after which the process prints its stacks and ends (0: never; -1: 1800
    where several processes run together, else never)
  """

  every: int = 1
  episodes: int = 2
  megabytes: float = 64.0
  writers: tuple[str, ...] = ("tensorboard",)
  report: bool = True
  profile_steps: tuple[int, ...] = ()
  watchdog_seconds: float = -1.0

  def __post_init__(self):
    if self.every < 1:
      raise ValueError(f"every is {self.every}; it must be at least 1.")
    for name in ("episodes", "megabytes"):
      if getattr(self, name) < 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")
    object.__setattr__(self, "profile_steps", tuple(self.profile_steps))
    object.__setattr__(self, "writers", tuple(self.writers))
    check_writers(self.writers)
    if any(step < 1 for step in self.profile_steps):
      raise ValueError(f"profile_steps is {self.profile_steps}; steps count from 1, for example (10, 11).")
    if self.watchdog_seconds < 0 and self.watchdog_seconds != -1:
      raise ValueError(f"watchdog_seconds is {self.watchdog_seconds}; it must be 0 (never), -1 or some seconds.")


# Of a line of evals.jsonl.
EVAL_SCALARS = ("success", "first_success", "per_step", "expert_accuracy", "kl", "entropy", "proxy",
                 "rewards/accuracies", "rewards/margins")
FILES = ("metrics.jsonl", "evals.jsonl", "episodes.jsonl", "tasks.jsonl")
PICTURES = "pictures"   # the folder of a workdir with what was seen in the episodes that a report may show
MOST_PICTURES = 2**20   # bytes of all of them
LONGEST_SIDE = 384   # pixels; a larger picture is made smaller, for people
PAUSES = {True: 1.0, False: 15.0}   # seconds between two progress.json, by whether the workdir is on this machine


def write_json(path: Path, value: Any) -> None:
  """Replaces the file in one move: a reader sees the old one or the new one, never half of either."""
  paths.write_whole(path, json.dumps(value, indent=1))


def cut_after(path: Path, step: int, again: Callable[[dict], bool] = lambda line: False) -> None:
  """Drops lines past a restored step, and a torn last line, so that every step is written once.

  again: whether a line of that very step is dropped too, because it will be written again
  """
  jsonl.cut(path, lambda line: line["step"] < step or (line["step"] == step and not again(line)))


def chat_json(chat: Chat) -> list[dict]:
  """A chat as JSON. Of a picture its size and a digest, by which PICTURES has it, if it is there."""
  return [{"role": message.role, "text": message.text, **({} if message.image is None else {
      "image": _described(message.image)})} for message in chat]


def _described(image: Any) -> str:
  height, width = image.shape[:2]
  return f"{width}x{height} sha256:{_digest(image)}"


def _digest(image: Any) -> str:
  return hashlib.sha256(image.tobytes()).hexdigest()[:16]


class Log:
  """The files of one workdir, open for a run. On every host but the first it writes nothing.

  Where files cannot be appended to, lines are held until `close_parts`. The run calls it before it saves a checkpoint:
  once a checkpoint is complete, every line up to it is safe, and a resumed run cuts the lines past it.
  """

  def __init__(self, workdir: Path, config: LogConfig, limits: Limits, name: str, writes: bool = True):
    """name: of the progress bar; writes: whether this process is the one that writes."""
    self.workdir, self.config, self.limits, self.name, self.writes = workdir, config, limits, name, writes
    self.heartbeat: Callable[[], None] = lambda: None   # called at every progress
    self._progress_at, self._from, self._pause = 0.0, None, PAUSES[paths.is_here(workdir)]
    self._lines = tuple(jsonl.Writer(workdir / file) for file in FILES)
    self._metrics, self._evals, self._episodes, self._tasks = self._lines
    self._scalar_writers, self._start_step, self._evaluated = (), 0, set()
    self._kinds: set[str] = set()   # of what was said once
    self._picture_bytes: int | None = None   # of PICTURES, once one is written
    self.profile = Profile(workdir / "profile", config.profile_steps, self.say)
    shown = writes and sys.stderr.isatty()
    self._bar = tqdm(total=1.0, desc=name, disable=not shown, leave=True,
                     bar_format="{desc} {percentage:3.0f}%|{bar:24}| {elapsed}<{remaining} {postfix}")

  def start(self, step: int = 0) -> None:
    """Opens the scalar writers for a run that continues after `step` (0: it begins); called before lines are cut.

    An evaluation of that very step that was interrupted is made again from its first variant: the writers have the
    scalars of the variants in evals.jsonl.
    """
    if not self.writes:
      return
    self._start_step, self._evaluated = step, {
        *_evaluated_at(self._evals.path, step, _scalar_prefix), *_evaluated_at(self._tasks.path, step, _task_scalar),
    } if step else set()
    self._scalar_writers = open_writers(self.config.writers, self.workdir, step)

  def metrics(self, position: Position, metrics: dict[str, float]) -> None:
    """One line of metrics.jsonl, which begins with the position."""
    if not self.writes:
      return
    self._metrics.write({**position.log(), **metrics})
    self._write_scalars(position.step, metrics)

  def evaluation(self, line: dict) -> None:
    """One line of evals.jsonl: a variant at a temperature."""
    if not self.writes:
      return
    self._evals.write(line)
    prefix = _scalar_prefix(line)
    self._write_once(line["step"], prefix, {f"{prefix}{name}": line[name] for name in EVAL_SCALARS if name in line})

  def task(self, line: dict) -> None:
    """One line of tasks.jsonl: a metric of a task."""
    if not self.writes:
      return
    self._tasks.write(line)
    name = _task_scalar(line)
    self._write_once(line["step"], name, {name: line["value"]})

  def episode(self, line: dict) -> None:
    """One line of episodes.jsonl, as long as the file is small enough."""
    if self.writes and self._episodes.size <= self.config.megabytes * 2**20:
      self._episodes.write(line)

  def pictures(self, chat: Chat) -> None:
    """The pictures of a chat as PNG files by their digests, each once, as long as all of them are small enough. In a
    bucket there are none."""
    images = [image for message in chat for image in message.images]
    if not images or not self.writes or not paths.is_here(self.workdir):
      return
    from sftrl_jax.pictures.read import png, resize  # which loads Pillow, as texts need not
    home = self.workdir / PICTURES
    home.mkdir(parents=True, exist_ok=True)
    if self._picture_bytes is None:
      self._picture_bytes = sum(file.stat().st_size for file in home.iterdir())
    for image in images:
      path, scale = home / f"{_digest(image)}.png", max(1.0, max(image.shape[:2]) / LONGEST_SIDE)
      if path.exists() or self._picture_bytes > MOST_PICTURES:
        continue
      content = png(resize(image, *(max(1, round(side / scale)) for side in image.shape[:2])))
      if self._picture_bytes + len(content) <= MOST_PICTURES:
        path.write_bytes(content)
        self._picture_bytes += len(content)

  def close_parts(self) -> None:
    """Makes safe what is written so far. It may be called at any time: lines past a checkpoint are cut by a resume."""
    for writer in (*self._lines, *self._scalar_writers):
      writer.close_part()

  def progress(self, phase: str, position: Position, text: str = "", force: bool = False, speed: str = "") -> None:
    """Writes progress.json about once a second (in a bucket, four times a minute), and the bar.

    text: in the place of "step 3/10" or "step 3, 30% of the FLOPs"; force: write now; speed: beside steps a second
    """
    self.heartbeat()
    now = time.time()
    if not self.writes or (now - self._progress_at < self._pause and not force):
      return
    done = self.limits.done(position)
    if self._from is None:
      self._from = (now, done, position.step)
    started, done_before, step_before = self._from
    passed = now - started
    eta = passed * (1 - done) / (done - done_before) if done > done_before else 0.0
    steps_per_second = (position.step - step_before) / passed if passed > 0 else 0.0
    rate = f"{steps_per_second:.2f} it/s{speed and ', '}{speed}"
    self._write_progress({"phase": phase, "done": round(done, 5), "rate": rate, "eta": round(eta, 1),
                          "step": position.step, "text": text or f"step {position.step}{self._of(position)}"})
    self._bar.n = done
    self._bar.set_postfix_str(f"{phase} step {position.step} {rate} {text}")
    self._progress_at = now

  def _of(self, position: Position) -> str:
    """How far the run is: of its steps, or of its FLOPs, which end most runs long before their steps do."""
    return f", {self.limits.done(position):.0%} of the FLOPs" if self.limits.flops else f"/{self.limits.steps}"

  def _write_progress(self, progress: dict) -> None:
    """Writes progress.json. A bucket that does not answer does not end a run: the next write may succeed."""
    try:
      write_json(self.workdir / "progress.json", progress)
    except Exception as error:  # of any kind, as the bucket's client has many
      if paths.is_here(self.workdir):
        raise
      self.say(f"progress.json was not written ({type(error).__name__}: {str(error)[:200]}).")

  def say(self, text: str) -> None:
    """Prints one line above the bar."""
    if self.writes:
      tqdm.write(text, file=sys.stdout)
      sys.stdout.flush()

  def say_once(self, kind: str, text: str) -> None:
    """`say`, the first time that this process has something of this kind to say."""
    if kind not in self._kinds:
      self._kinds.add(kind)
      self.say(text)

  def close(self) -> None:
    """Makes everything safe and closes the writers."""
    self._bar.close()
    self.profile.close()
    self.close_parts()
    for writer in self._scalar_writers:
      writer.close()

  def _write_once(self, step: int, name: str, values: dict) -> None:
    """`_write_scalars`, unless the run begins at this step and has written what is called `name` before it stopped."""
    if step != self._start_step or name not in self._evaluated:
      self._write_scalars(step, values)

  def _write_scalars(self, step: int, values: dict) -> None:
    """The numbers among the values, to every writer."""
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    for writer in self._scalar_writers:
      writer.scalars(step, numbers)


def _scalar_prefix(line: dict) -> str:
  """What the scalars of a line of evals.jsonl are called: `eval/rule_ood/T0/`, to which `success` is added; of a line
  of held-out pairs, which have no temperature, `eval/rule_ood/pairs/`."""
  return f"eval/{line['variant']}/{'pairs' if 'pairs' in line else _temperature(line)}/"


def _temperature(line: dict) -> str:
  return f"T{line['temperature']:g}"


def _task_scalar(line: dict) -> str:
  """What the scalar of a line of tasks.jsonl is called: `task/arc_easy/acc`, and of a filter of its responses
  `task/gsm8k/exact_match/strict-match`."""
  return "/".join(["task", line["task"], line["metric"], *([line["filter"]] if line["filter"] != "none" else [])])


def _evaluated_at(path: Path, step: int, name_of: Callable[[dict], str]) -> set[str]:
  """The names, or prefixes, of the scalars of a file's lines that are of one step; a torn line has none."""
  prefixes = set()
  for text in (text for file in jsonl.files(path) for text in jsonl.read_text(file).splitlines()):
    with contextlib.suppress(ValueError, KeyError, TypeError):
      line = json.loads(text)
      if line["step"] == step:
        prefixes.add(name_of(line))
  return prefixes
