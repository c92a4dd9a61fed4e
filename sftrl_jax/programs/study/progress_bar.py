"""The progress of a study: one bar in a terminal, one line every ten seconds elsewhere."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from tqdm import tqdm

from sftrl_jax.programs.study.process_pool import ChildRun, progress

FORMAT = "{percentage:3.0f}%|{bar:20}| {n:.1f}/{total} runs [{elapsed}<{remaining}, {rate_fmt}]{postfix}"
# The fraction of a study after which its remaining time is estimated. Before, the first runs compile, and an estimate
# would say days.
LEAST_DONE = 0.01

Show = Callable[[Sequence[ChildRun]], None]
Say = Callable[[str], None]


@contextlib.contextmanager
def progress_display(runs: Sequence[ChildRun], every: float = 10.0,
                     stream: TextIO | None = None) -> Iterator[tuple[Show, Say]]:
  """Yields (show, say): show(live runs) draws the progress, say(text) prints lines above the bar.

  runs: all runs of the study
  every: seconds between two lines, where the stream is no terminal
  stream: stdout if left out
  """
  stream = stream or sys.stdout
  done = _done(runs)
  if not stream.isatty() or 0 in os.get_terminal_size(stream.fileno()):   # pseudo-terminals of containers have no size
    yield _lines(runs, done, every, stream), lambda text: print(text, file=stream, flush=True)
    return
  with tqdm(total=len(runs), initial=done, bar_format=FORMAT, unit="run", file=stream, dynamic_ncols=True) as bar:
    def show(live: Sequence[ChildRun]) -> None:
      bar.n = _done(runs)
      bar.set_postfix_str(" ".join(f"{run.name}:{_fraction(run):.0%}" for run in live))
    yield show, lambda text: bar.write(text, file=stream)


def describe(run: ChildRun) -> str:
  """`base-0-ppo-0 (step 40/119, 1.2 it/s)` from the run's progress.json."""
  current = progress(run)
  words = [str(current[key]) for key in ("text", "rate") if current.get(key)]
  return f"{run.name} ({', '.join(words) or 'starting'})"


def clock(seconds: float) -> str:
  """Seconds as 2:05 or 1:02:05."""
  hours, rest = divmod(int(seconds), 3600)
  return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def _lines(runs: Sequence[ChildRun], initial: float, every: float, stream: TextIO) -> Show:
  """`show` where the stream is no terminal. initial: the runs that were done when the study began, see `_done`."""
  start = time.monotonic()
  last = start - every

  def show(live: Sequence[ChildRun]) -> None:
    nonlocal last
    now = time.monotonic()
    if now - last < every:
      return
    last = now
    done, elapsed = _done(runs), now - start
    has_rate = done - initial >= LEAST_DONE * len(runs) and elapsed > 1
    rate = (done - initial) / elapsed if has_rate else 0.0
    left = f"{60 * rate:.2f} runs/min, about {clock((len(runs) - done) / rate)} left" if rate > 0 else "starting"
    print(f"{done / len(runs):4.0%}  {done:.1f}/{len(runs)} runs  {clock(elapsed)} so far, {left}  "
          f"{'; '.join(describe(run) for run in live)}", file=stream, flush=True)
  return show


def _done(runs: Sequence[ChildRun]) -> float:
  """The number of complete runs, plus the fractions of the others."""
  return sum(_fraction(run) for run in runs)


def _fraction(run: ChildRun) -> float:
  current = progress(run)
  try:
    done = float(current.get("done", 0.0))
  except (TypeError, ValueError):
    return 0.0
  return 1.0 if current.get("phase") == "complete" else min(max(done, 0.0), 0.999)
