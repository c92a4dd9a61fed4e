"""Intervals whose unit is the base model.

Post-training seeds of one base share its accidents, so they alone understate the spread: bases are drawn with
replacement, then the seeds inside each drawn base, then the evaluation episodes. Every run plays the same episodes, so
one draw of episodes serves start and end, all methods and all bases: differences are paired by episode.

A rate of a set of episodes is a quotient of sums: successes over episodes, or right responses over responses. An
episode's right responses and responses are drawn together, so responses of one episode are never taken for independent.

Row 0 of every array over resamples [R+1] is the data as they are (each base, seed and episode once), so a point
estimate and its resamples go through the same arithmetic. With few bases a percentile interval is too narrow (bases
are drawn from bases), so the t interval over bases stands beside it. Tables show the wider of the two, and a claim has
to pass both. Measured coverage of the 95% intervals (400 worlds each, 768 episodes, 2 to 8 bases whose means differ by
3 to 8 points): the bootstrap covers 99% where bases differ by 3 points and 90% where 5 of them differ by 8, for
episodes matter less there; the t interval 95% to 96%, but 92% to 95% where the effect depends on the episode in all
bases alike, for it knows nothing of episodes (in worlds of 1.8 to 2.6 points between bases, 87% to 93%); the wider of
the two 95% to 99% throughout.

Fewer than MIN_BASES bases support no interval over bases: the t interval of two reaches 12.7 standard errors to either
side, and a bootstrap knows three samples of two. Then the bases stay as they are, only episodes are drawn, and the
values of the single bases stand beside the interval.
"""

import dataclasses
import functools
import math
import zlib
from collections.abc import Hashable, Sequence

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 20_250_117
MIN_BASES = 3   # for an interval over bases, and for a claim


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A statistic with its percentile interval [low, high] and the t interval over bases (NaN with few of them).

  With fewer than MIN_BASES bases the percentile interval is over episodes alone. `per_base` are the values of the
  bases; `runs` counts runs (or pairs of runs), `episodes` those of one run. `kept` is the share of resamples in which
  the statistic exists.
  """

  value: float
  low: float
  high: float
  t_low: float
  t_high: float
  bases: int
  runs: int
  episodes: int
  kept: float
  per_base: tuple[float, ...]

  @property
  def wider(self) -> tuple[float, float]:
    """The wider of the two intervals, which is what is shown: the other one covers less than it says in some worlds."""
    return (self.t_low, self.t_high) if self.t_high - self.t_low > self.high - self.low else (self.low, self.high)

  @property
  def unit(self) -> str:
    return "bases" if self.bases >= MIN_BASES else "episodes"


def _generator(*stream) -> np.random.Generator:
  """A generator fixed by its name: two statistics of one stream see the same draws."""
  return np.random.default_rng((SEED, zlib.crc32(repr(stream).encode())))


def episode_means(vectors_MN: np.ndarray, stream: str, resamples: int = RESAMPLES, block: int = 500) -> np.ndarray:
  """Means over resampled episodes of M vectors of N episodes, [R+1, M] float32; one `stream` is one draw of episodes.

  Episodes are drawn as counts (how often each came up), a block of resamples at a time: memory stays at block x N.
  """
  vectors_MN = np.asarray(vectors_MN, np.float32)
  episodes = vectors_MN.shape[1]
  # "hands" is part of the seed: with another name, every interval of a recorded study would move a little.
  random, means = _generator("hands", stream, episodes), [vectors_MN.mean(axis=1, dtype=np.float64)[None]]
  for start in range(0, resamples, block):
    rows = min(block, resamples - start)
    drawn = random.integers(0, episodes, (rows, episodes)) + episodes * np.arange(rows)[:, None]
    counts_RN = np.bincount(drawn.ravel(), minlength=rows * episodes).reshape(rows, episodes).astype(np.float32)
    means.append(counts_RN @ vectors_MN.T / episodes)
  return np.concatenate(means).astype(np.float32)


@functools.lru_cache(maxsize=64)
def run_draws(bases: tuple[Hashable, ...], resamples: int = RESAMPLES) -> np.ndarray:
  """Which runs each resample holds: indices [R+1, drawn bases, drawn seeds], -1 where a base has fewer seeds.

  `bases` names the base of every run. Row 0 is the identity. With fewer than MIN_BASES bases, so is every row: the data
  say nothing about other bases, and only episodes are resampled.
  """
  names = list(dict.fromkeys(bases))
  members = [[index for index, base in enumerate(bases) if base == name] for name in names]
  sizes = np.array([len(group) for group in members])
  table_BS = np.full((len(names), sizes.max()), -1)
  for row, group in enumerate(members):
    table_BS[row, :len(group)] = group
  if len(names) < MIN_BASES:
    return np.repeat(table_BS[None], resamples + 1, axis=0)
  random = _generator("runs", len(names), tuple(sizes))
  base_RB = random.integers(0, len(names), (resamples, len(names)))
  seed_RBS = np.floor(random.random((resamples, *table_BS.shape)) * sizes[base_RB][..., None]).astype(int)
  index_RBS = table_BS[base_RB[..., None], seed_RBS]
  index_RBS[np.arange(table_BS.shape[1]) >= sizes[base_RB][..., None]] = -1
  return np.concatenate([table_BS[None], index_RBS])


def ratios(parts_RM: np.ndarray, wholes_RM: np.ndarray) -> np.ndarray:
  """Quotients of means over the same draws of episodes, [R+1, M] float32; NaN where a whole is 0."""
  return np.where(wholes_RM > 0, parts_RM / np.maximum(wholes_RM, np.float32(1e-9)), np.float32(np.nan))


def _finite_mean(values: np.ndarray, axis: int) -> np.ndarray:
  """A mean over the finite entries, NaN where there is none."""
  finite = np.isfinite(values)
  count = finite.sum(axis=axis)
  total = np.where(finite, values, 0).sum(axis=axis, dtype=np.float64)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def combine(values_RN: np.ndarray, bases: Sequence[Hashable]) -> np.ndarray:
  """Mean over bases of the mean over seeds, per resample [R+1], from a value a run and the base of each run.

  NaN entries (a statistic that does not exist) are left out.
  """
  index_RBS = run_draws(tuple(bases), len(values_RN) - 1)
  rows = np.arange(len(values_RN))[:, None, None]
  drawn_RBS = np.where(index_RBS >= 0, values_RN[rows, np.maximum(index_RBS, 0)], np.nan)
  return _finite_mean(_finite_mean(drawn_RBS, 2), 1)


def t_interval(values: Sequence[float]) -> tuple[float, float]:
  """Mean ± t·s/√n over bases; NaN with fewer than two."""
  values = np.asarray(values, float)
  if len(values) < 2:
    return math.nan, math.nan
  from scipy import stats  # a second to import: only where there is something to estimate
  half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
  return values.mean() - half, values.mean() + half


def estimate(values_RN: np.ndarray, bases: Sequence[Hashable], episodes: int) -> Estimate:
  """An Estimate from a statistic per resample and run [R+1, N] and the base of each run; ValueError without a run."""
  if not len(bases) or values_RN.shape[1] != len(bases):
    raise ValueError(f"An estimate needs one base name a run; got {values_RN.shape[1]} runs and {len(bases)} names.")
  exists = np.isfinite(values_RN[0])
  values_RN, bases = values_RN[:, exists], tuple(base for base, kept in zip(bases, exists, strict=True) if kept)
  if not bases:
    return Estimate(*[math.nan] * 5, bases=0, runs=0, episodes=episodes, kept=0.0, per_base=())
  draws = combine(values_RN, bases)
  tail = (1 - LEVEL) / 2
  finite = draws[1:][np.isfinite(draws[1:])]
  low, high = np.quantile(finite, [tail, 1 - tail]) if finite.size else (math.nan, math.nan)
  names = list(dict.fromkeys(bases))
  per_base = tuple(float(np.mean([values_RN[0, i] for i, b in enumerate(bases) if b == name])) for name in names)
  t_low, t_high = t_interval(per_base if len(names) >= MIN_BASES else ())
  return Estimate(float(draws[0]), float(low), float(high), float(t_low), float(t_high), len(names), len(bases),
                  episodes, finite.size / max(1, len(draws) - 1), per_base)
