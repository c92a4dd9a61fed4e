"""What a person sees while a study goes on: one bar in a terminal, one line every ten seconds elsewhere."""

import contextlib
import os
import sys
import time

from tqdm import tqdm

from sftrl_jax.programs.study import process_pool

FORMAT = "{percentage:3.0f}%|{bar:20}| {n:.1f}/{total} runs [{elapsed}<{remaining}, {rate_fmt}]{postfix}"
KNOWN = 0.01   # of the whole, from which on its end is guessed: before, runs compile and nothing can be said


@contextlib.contextmanager
def board(runs, every=10.0, stream=None):
  """(show, say): show(live runs) draws how far the study is, say(text) prints lines without disturbing it."""
  stream = stream or sys.stdout
  done = _done(runs)
  if not stream.isatty() or 0 in os.get_terminal_size(stream.fileno()):   # pseudo-terminals of containers have no size
    yield _lines(runs, done, every, stream), lambda text: print(text, file=stream, flush=True)
    return
  with tqdm(total=len(runs), initial=done, bar_format=FORMAT, unit="run", file=stream, dynamic_ncols=True) as bar:
    def show(live):
      bar.n = _done(runs)
      bar.set_postfix_str(" ".join(f"{run.name}:{_fraction(run):.0%}" for run in live))
    yield show, lambda text: bar.write(text, file=stream)


def describe(run) -> str:
  """`base-0-ppo-0 (step 40/119, 1.2 it/s)` from the run's progress.json."""
  now = process_pool.progress(run)
  words = [str(now[key]) for key in ("text", "rate") if now.get(key)]
  return f"{run.name} ({', '.join(words) or 'starting'})"


def clock(seconds) -> str:
  """Seconds as 2:05 or 1:02:05."""
  hours, rest = divmod(int(seconds), 3600)
  return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def _lines(runs, initial, every, stream):
  start = time.monotonic()
  last = [start - every]

  def show(live):
    now = time.monotonic()
    if now - last[0] < every:
      return
    last[0] = now
    done, elapsed = _done(runs), now - start
    known = done - initial >= KNOWN * len(runs) and elapsed > 1
    rate = (done - initial) / elapsed if known else 0.0
    left = f"{60 * rate:.2f} runs/min, about {clock((len(runs) - done) / rate)} left" if rate > 0 else "starting"
    print(f"{done / len(runs):4.0%}  {done:.1f}/{len(runs)} runs  {clock(elapsed)} so far, {left}  "
          f"{'; '.join(describe(run) for run in live)}", file=stream, flush=True)
  return show


def _done(runs) -> float:
  """Runs that are done, every unfinished one counted by its fraction."""
  return sum(_fraction(run) for run in runs)


def _fraction(run) -> float:
  now = process_pool.progress(run)
  try:
    done = float(now.get("done", 0.0))
  except (TypeError, ValueError):
    return 0.0
  return 1.0 if now.get("phase") == "complete" else min(max(done, 0.0), 0.999)
