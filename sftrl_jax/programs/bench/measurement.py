"""One of --only: what a measurement gets, and how it times our work and the peer's."""

import dataclasses
from collections.abc import Callable

import jax

from sftrl_jax.programs.bench import table
from sftrl_jax.programs.bench.hf_peer import Peer
from sftrl_jax.programs.bench.machine_peak import MachinePeak
from sftrl_jax.programs.bench.memory_use import MemoryUse
from sftrl_jax.programs.bench.paired_timing import Work, alternate
from sftrl_jax.programs.bench.workloads import Timed
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.experiment import Experiment

RECOMPUTED = {"full": "the activations of whole blocks", "light": "the cheap parts of blocks",
              "offload": "the cheap parts of blocks", "none": "nothing"}


@dataclasses.dataclass(frozen=True)
class ScriptedLengths:
  """How long scripted responses are: lognormal tokens, cut to 1 to config.rollout.max_new_tokens.

  mean: before they are cut (0: a fifth of max_new_tokens); sigma: of their logarithm
  longest: tokens of the longest of the ragged examples of SFT (0: config.data.length)
  """

  mean: float = 0.0
  sigma: float = 0.9
  longest: float = 0.0

  def __post_init__(self):
    if not 0 <= self.mean < float("inf"):
      raise ConfigError(f"--mean-length is {self.mean}; it must be a number of tokens above 0.")
    if not 0 <= self.sigma <= 10:
      raise ConfigError(f"--sigma is {self.sigma}; it must be from 0 (all lengths alike) to 10.")
    if self.longest and not (2 <= self.longest < float("inf") and self.longest == int(self.longest)):
      raise ConfigError(f"--longest is {self.longest}; it must be a whole number of tokens, 2 or more.")


SCRIPTED = ScriptedLengths()


@dataclasses.dataclass(frozen=True)
class Bench:
  """What a measurement needs.

  start, params, frozen: the model at the start, what is trained, what is not; see start/trainable.py
  against: the peer, "hf", "trl" or ""; peer: the model of "hf", else None
  pairs: how often ours and theirs run
  say: prints a line
  """

  experiment: Experiment
  start: dict
  params: dict
  frozen: dict
  peak: MachinePeak
  against: str
  peer: Peer | None
  pairs: int
  scripted: ScriptedLengths
  say: Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Measurement:
  """One of --only.

  measure: Bench -> lines of bench.json
  needs_episodes: only of training that plays episodes
  peers: those that do the same work; without one, ours is timed alone
  """

  measure: Callable[[Bench], list[dict]]
  needs_episodes: bool = False
  peers: tuple[str, ...] = ()


def _memory(work: Work) -> float | None:
  """Bytes of this process, at the peak of one run of the work, above what it held before; None where not known."""
  began = MemoryUse.now()
  work()
  return began.increase()


def measure(bench: Bench, work: str, shape: str, timed: Timed, theirs: Work | None, steps: int = 1, note: str = "",
            sides: str = "") -> dict:
  """The line of one work, after it is printed.

  theirs: of the peer, or None; steps: of decoding, in one run; note: printed with the line; sides: what the two sides
  do differently, printed below the table
  """
  line = table.line_of(work, shape, timed, alternate(timed.run, theirs, bench.pairs), bench.peak,
                       bench.experiment.model.config.dtype, steps)
  if theirs is not None and jax.default_backend() == "cpu":
    line |= {key: grown for key, side in (("memory", timed.run), ("their_memory", theirs))
             if (grown := _memory(side)) is not None}
  line |= {"note": note} if note else {}
  line |= {"sides": sides} if sides and theirs else {}
  bench.say(table.describe_line(line))
  return line
