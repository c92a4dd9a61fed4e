"""Steps of a run traced for xprof, with spans by name: what the devices did, and what they waited for.

  xprof WORKDIR/profile      (pip install xprof), or TensorBoard's profile tab
"""

import contextlib

import jax

from sftrl_jax import paths

span = jax.profiler.TraceAnnotation   # span("rollout"): a block by name; it costs nothing while nothing is traced


class Profile:
  """WORKDIR/profile. Neighbouring steps share a trace."""

  def __init__(self, home, steps: tuple[int, ...], say):
    self.home, self.steps, self._say, self._open = home, frozenset(steps), say, contextlib.ExitStack()
    self._tracing = False

  @contextlib.contextmanager
  def step(self, number: int):
    """The block is step `number`; evaluations and checkpoints after it belong to it."""
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
    """Ends the trace that is going on, if any."""
    self._tracing = False
    self._open.close()
