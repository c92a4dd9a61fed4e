"""How many programs XLA has compiled in this process."""

import jax.monitoring

_COUNT = [0]


def _count_compilation(event: str, seconds: float, **_) -> None:
  if event == "/jax/core/compile/backend_compile_duration":
    _COUNT[0] += 1


jax.monitoring.register_event_duration_secs_listener(_count_compilation)


def count() -> int:
  """Programs compiled, or read from the compilation cache, since this module was imported."""
  return _COUNT[0]
