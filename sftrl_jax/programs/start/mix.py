"""config.start=mix:A,B,SHARE, and evaluate --interpolate=SHARES: weights on the line between two. Nothing is loaded
here, and JAX not imported."""

from typing import NamedTuple

from sftrl_jax.programs.config.errors import ConfigError

PREFIX = "mix:"


class Mix(NamedTuple):
  """The weights (1 - share) * first + share * second, each a config.start of its own."""

  first: str
  second: str
  share: float

  def __str__(self):
    return f"{PREFIX}{self.first},{self.second},{self.share!r}"


def parse(start: str) -> Mix | None:
  """The two starts that config.start mixes, None where it is of another kind. ConfigError for what is no mix of two."""
  if not start.startswith(PREFIX):
    return None
  parts = [part.strip() for part in start.removeprefix(PREFIX).split(",")]
  try:
    first, second, share = *parts[:-1], float(parts[-1])
  except ValueError as error:
    raise ConfigError(f"config.start is {start!r}, but weights are mixed of two starts and a share of the second: give "
                      f"{PREFIX}A,B,0.5, where A and B have no comma.") from error
  for name in (first, second):
    if not name or name.startswith(PREFIX):
      raise ConfigError(f"config.start is {start!r}, of which {name!r} is not a start of its own: give {PREFIX}A,B,0.5 "
                        "with workdirs of runs, base:NAME or pretrained weights.")
  if not 0 <= share <= 1:
    raise ConfigError(f"config.start is {start!r}, whose share is {share:g}; it must be from 0 ({first} alone) to 1 "
                      f"({second} alone).")
  return Mix(first, second, share)


def parse_shares(text: str) -> tuple[float, ...]:
  """The shares of the way from a run's start (0) to its end (1), in ascending order. ConfigError for what are none."""
  try:
    shares = sorted({float(part) for part in text.split(",")})
  except ValueError as error:
    raise ConfigError(f"--interpolate={text} is no list of numbers: give shares of the way from the start (0) to the "
                      "end (1), such as --interpolate=0,0.25,0.5,0.75,1.") from error
  for share in shares:
    if not 0 <= share <= 1:
      raise ConfigError(f"--interpolate={text} has {share:g}; a share is from 0 (the start) to 1 (the end).")
  return tuple(shares)
