"""The options of `sftrl plan`. A wrong one is an error before JAX is imported."""

import dataclasses
import math
from pathlib import Path

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.plan import topology
from sftrl_jax.programs.plan.topology import Slice

SHOWN = ("sharding",)
TRIES = 6   # knobs that are compiled when a run does not fit


@dataclasses.dataclass(frozen=True)
class PlanOptions:
  """verb: of the config's run; where: the slice, or None for the local devices; only: beginnings of the names of
  functions, () for all functions; price: of a chip-hour; tries: knobs that are compiled when the run does not fit."""

  verb: str
  where: Slice | None = None
  optimizers: tuple[str, ...] = ()
  only: tuple[str, ...] = ()
  show: str = ""
  out: str = ""
  price: float = 0.0
  tries: int = TRIES


def read_options(flags: dict[str, str], verb: str) -> PlanOptions:
  """Checks the flags of a command line, and sets the environment that the compiler reads. ConfigError for a wrong one.

  flags: --topology, --show, --json, --price, --tries, --optimizer, --only; others are ignored.
  """
  if verb == "study":
    raise ConfigError(f"--config={flags['--config']} is a study; plan takes the config of one run.")
  name, show, out = flags.get("--topology", topology.LOCAL[0]), flags.get("--show", ""), flags.get("--json", "")
  where = None if name in topology.LOCAL else topology.parse(name)
  if show and show not in SHOWN:
    raise ConfigError(f"--show={show} is not known; there is {', '.join(SHOWN)}.")
  _refuse_unwritable(out)
  price, tries = (parse_number(flag, flags.get(flag, default)) for flag, default in (
      ("--price", "0"), ("--tries", str(TRIES))))
  topology.prepare(name)
  words = lambda flag: tuple(word for word in flags.get(flag, "").split(",") if word)
  return PlanOptions(verb, where, words("--optimizer"), words("--only"), show, out, price, int(tries))


def refuse_with_published(flags: dict[str, str], overrides: tuple) -> None:
  """ConfigError for a flag that means nothing beside --published, which has its own runs, and for a wrong one."""
  for flag in (*flags, *(f"--config.{key}" for key, _ in overrides)):
    if flag != "--json":
      raise ConfigError(f"--published predicts published runs and takes only --json=FILE: leave out {flag}.")
  _refuse_unwritable(flags.get("--json", ""))


def _refuse_unwritable(out: str) -> None:
  if out and (Path(out).is_dir() or not Path(out).absolute().parent.is_dir()):
    raise ConfigError(f"--json={out} cannot be written: give a path of a file in an existing directory.")


def parse_number(flag: str, text: str) -> float:
  """A number of a flag; ConfigError for anything else, and below zero."""
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 <= value < math.inf:
    raise ConfigError(f"{flag}={text} must be a number that is not negative.")
  return value
