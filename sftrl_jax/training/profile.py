"""Traces of a run's steps for xprof, with named spans: what the devices do, and what they wait for.

  xprof WORKDIR/profile      (pip install xprof), or TensorBoard's profile tab
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from sftrl_jax import paths

span = jax.profiler.TraceAnnotation   # span("rollout") names a block; it costs nothing without a trace


class Profile:
  """Traces of chosen steps in WORKDIR/profile. Neighbouring steps share a trace."""

  def __init__(self, home: Path, steps: tuple[int, ...], say: Callable[[str], None]):
    self.home, self.steps, self._say, self._open = home, frozenset(steps), say, contextlib.ExitStack()
    self._tracing = False

  @contextlib.contextmanager
  def step(self, number: int) -> Iterator[None]:
    """Runs the block as step `number`, with the evaluations and checkpoints after it."""
    if number in self.steps and not self._tracing:
      folder = self._open.enter_context(paths.staging(self.home))
      self._open.enter_context(jax.profiler.trace(str(folder)))
      self._tracing = True
    with jax.profiler.StepTraceAnnotation("step", step_num=number):
      yield
    if self._tracing and number + 1 not in self.steps:
      self.close()
      self._say(f"Traced up to step {number}: {self.home}")

  def close(self) -> None:
    """Ends the current trace, if there is one."""
    self._tracing = False
    self._open.close()
