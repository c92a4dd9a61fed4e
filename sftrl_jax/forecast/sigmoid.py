"""One run's success over FLOPs as a sigmoid, fitted to its evaluations, and draws of what the evaluations leave open.

  R(C) = R0 + (A - R0) s(C),   s(C) = 1 / (1 + (M / C)^B)          (Khatri et al. 2025, arXiv:2510.13786)

R0: success at the start; A: where it tends, below R0 for a curve that falls; M: FLOPs half way; B: steepness. An
evaluation is y_k = R(C_k) + e_k, where e_k has the variance y (1 - y) / n of n episodes and, after the start, t^2: what
a run moves up and down between two evaluations. R0 and A lie in [0, 1].

Penalised least squares: each parameter costs its squared distance from a standard value, in the units below. Given M, B
and t, the minimum over R0 and A has a closed form, so M, B and t are tried on a grid, which is narrowed twice to where
the fit is not hopeless: no start of a search can be wrong. A draw takes a cell of the grid by its marginal likelihood,
M and B inside it, R0 and A from their normal distribution there, and is dropped outside [0, 1]^2: the draws are the
posterior whose mode is the least squares. Unlike refits to resampled data they are as wide as the penalty where the
data say nothing, so a curve that has not turned yet has a wide band.
"""

import dataclasses
import math

import numpy as np

MIN_POINTS = 4      # evaluations, the start included: a sigmoid has as many parameters
EARLY = 0.03        # of the FLOPs reached: evaluations before that, but the start, are left out if enough stay
DRAWS = 1000
LEVEL = 0.8         # of a band
START = (0.5, 1.0)  # mean and standard deviation of the penalties: of R0,
CHANGE = 0.7        # of A - R0, about 0,
MIDPOINT = (-0.5, 1.7)                  # of ln(M / FLOPs reached),
STEEPNESS = (math.log(1.5), 0.5)        # and of ln B
SPREADS = ((0.0, 0.3), (0.01, 0.25), (0.02, 0.2), (0.04, 0.15), (0.08, 0.1))   # (t, its weight)
CELLS = (41, 17)    # of the grid: midpoints, steepnesses
NARROWED = 2        # times
HOPELESS = 1e-5     # marginal weight of a line of cells that is left out when the grid is narrowed
MOST_TRIALS = 1e9   # that count
MOST_ROUNDS = 20    # of draws, before those that are still missing are cut to [0, 1]


@dataclasses.dataclass(frozen=True)
class Curve:
  """Evaluations of one run on one variant, in any order: FLOPs spent, right ones, and trials, all [K].

  Trials need not be whole: a rate with the variance of n independent trials has n of them.
  """

  flops: tuple[float, ...]
  right: tuple[float, ...]
  trials: tuple[float, ...]

  @property
  def reached(self) -> float:
    return max(self.flops, default=0.0)

  def until(self, flops: float) -> "Curve":
    """The evaluations up to these FLOPs."""
    kept = [point for point in zip(self.flops, self.right, self.trials, strict=True) if point[0] <= flops]
    return Curve(*map(tuple, zip(*kept, strict=True))) if kept else Curve((), (), ())


@dataclasses.dataclass(frozen=True)
class Forecast:
  """Draws of a run's curve, [D] each; those of `spread` times `residual` move a measured value off the sigmoid.

  points: evaluations that were fitted
  """

  start_D: np.ndarray
  end_D: np.ndarray
  midpoint_D: np.ndarray
  steepness_D: np.ndarray
  residual_D: np.ndarray
  points: int

  def rates(self, flops_G: np.ndarray) -> np.ndarray:
    """Success at these FLOPs, residual included, [D, G] in [0, 1]."""
    share_DG = sigmoid(flops_G, self.midpoint_D[:, None], self.steepness_D[:, None])
    moved_DG = np.where(np.asarray(flops_G) > 0, self.residual_D[:, None], 0.0)
    return np.clip(self.start_D[:, None] + (self.end_D - self.start_D)[:, None] * share_DG + moved_DG, 0.0, 1.0)

  def measured(self, flops: float, trials: float, seed: int = 0) -> np.ndarray:
    """What an evaluation of so many trials would measure at these FLOPs, [D]."""
    trials = max(1, round(min(trials, MOST_TRIALS)))
    generator = np.random.default_rng((seed, 1))
    return generator.binomial(trials, self.rates(np.array([flops]))[:, 0]) / trials


def sigmoid(flops: np.ndarray, midpoint: np.ndarray, steepness: np.ndarray) -> np.ndarray:
  """1 / (1 + (midpoint / flops)^steepness), 0 at 0 FLOPs."""
  with np.errstate(divide="ignore"):
    above = steepness * (np.log(flops) - np.log(midpoint))
  return 1.0 / (1.0 + np.exp(np.clip(-above, -700.0, 700.0)))


def band(draws: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(low, median, high) over the first axis."""
  low, middle, high = np.quantile(draws, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
  return low, middle, high


def fit(curve: Curve, seed: int = 0, draws: int = DRAWS) -> Forecast | None:
  """The draws for a curve; None where it has evaluations at fewer than MIN_POINTS unlike FLOPs.

  seed: two curves of one seed share their random numbers, and the same curve has the same draws
  """
  points = sorted(zip(curve.flops, curve.right, curve.trials, strict=True))
  late = [point for point in points if not 0 < point[0] < EARLY * curve.reached]
  points = late if len({flops for flops, *_ in late}) >= MIN_POINTS else points
  if len({flops for flops, *_ in points}) < MIN_POINTS:
    return None
  flops_K, right_K, trials_K = np.array(points, float).T
  scale = flops_K[-1]
  squares = _Squares.of(flops_K / scale, right_K, trials_K)
  generator = np.random.default_rng((seed, 0))
  kept = _draws(squares, generator, draws)
  midpoint_D, steepness_D, spread_D, start_D, change_D = kept
  return Forecast(start_D, start_D + change_D, scale * np.exp(midpoint_D), np.exp(steepness_D),
                  spread_D * generator.standard_normal(draws), len(points))


@dataclasses.dataclass(frozen=True)
class _Squares:
  """The evaluations as least squares: FLOPs in units of the last ones, rates, and weights by spread, [K, T]."""

  flops_K: np.ndarray
  rate_K: np.ndarray
  weight_KT: np.ndarray

  @classmethod
  def of(cls, flops_K: np.ndarray, right_K: np.ndarray, trials_K: np.ndarray) -> "_Squares":
    rate_K, trials_K = right_K / trials_K, np.clip(trials_K, 1.0, MOST_TRIALS)
    right_K = rate_K * trials_K
    smoothed_K = (right_K + 1) / (trials_K + 2)   # Laplace's, or a rate of 0 or 1 would have no variance
    variance_K = smoothed_K * (1 - smoothed_K) / trials_K
    spread_T = np.array([spread for spread, _ in SPREADS])
    return cls(flops_K, rate_K, 1 / (variance_K[:, None] + (flops_K > 0)[:, None] * spread_T**2))

  def solved(self, share_NK: np.ndarray, weight: np.ndarray, sums: bool) -> tuple[np.ndarray, ...]:
    """(P11, P12, P22, R0, change, log marginal likelihood), of the penalised squares over R0 and the change A - R0.

    share_NK: s(C_k) of N curves
    weight: [K, T] for every curve with every spread (sums), or [N, K], a spread a curve
    """
    add = (lambda value_NK: value_NK @ weight) if sums else (lambda value_NK: (value_NK * weight).sum(1))
    ones_NK = np.ones_like(share_NK)
    mean, deviation = START
    p11 = add(ones_NK) + 1 / deviation**2
    p12, p22 = add(share_NK), add(share_NK**2) + 1 / CHANGE**2
    q1, q2 = add(ones_NK * self.rate_K) + mean / deviation**2, add(share_NK * self.rate_K)
    determinant = p11 * p22 - p12**2
    start, change = (p22 * q1 - p12 * q2) / determinant, (p11 * q2 - p12 * q1) / determinant
    squared = add(ones_NK * self.rate_K**2) + (mean / deviation) ** 2 - start * q1 - change * q2
    logs = np.log(weight).sum(0) if sums else np.log(weight).sum(1)
    return p11, p12, p22, start, change, 0.5 * (logs - squared - np.log(determinant))


def _draws(squares: _Squares, generator: np.random.Generator, count: int) -> np.ndarray:
  """[5, count]: ln M (in units of the last FLOPs), ln B, t, R0 and A - R0."""
  middles, steeps, weight = _narrowed(squares)
  cumulative = np.cumsum(weight.ravel())
  steps = [axis[1] - axis[0] for axis in (middles, steeps)]
  spread_T = np.array([spread for spread, _ in SPREADS])
  kept, missing = [], count
  for last in (False,) * (MOST_ROUNDS - 1) + (True,):
    cell = np.searchsorted(cumulative, generator.random(2 * missing) * cumulative[-1])
    m, b, t = np.unravel_index(np.minimum(cell, weight.size - 1), weight.shape)
    middle, steep = (axis[index] + step * (generator.random(2 * missing) - 0.5)
                     for axis, index, step in ((middles, m, steps[0]), (steeps, b, steps[1])))
    share_NK = sigmoid(squares.flops_K, np.exp(middle)[:, None], np.exp(steep)[:, None])
    p11, p12, p22, start, change, _ = squares.solved(share_NK, squares.weight_KT.T[t], sums=False)
    # Cholesky's factor of the precision, inverted on standard normal numbers.
    first, second = generator.standard_normal((2, 2 * missing))
    l11 = np.sqrt(p11)
    l22 = np.sqrt(p22 - p12**2 / p11)
    change = change + second / l22
    start = start + (first - p12 / l11 * second / l22) / l11
    inside = (start >= 0) & (start <= 1) & (start + change >= 0) & (start + change <= 1)
    if last:
      start = np.clip(start, 0, 1)
      change, inside = np.clip(start + change, 0, 1) - start, np.ones_like(inside)
    kept.append(np.array([middle, steep, spread_T[t], start, change])[:, inside][:, :missing])
    missing -= kept[-1].shape[1]
    if not missing:
      break
  return np.concatenate(kept, axis=1)


def _narrowed(squares: _Squares) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(ln M of the grid's lines, ln B, weights [M, B, T]), where the grid covers what is not hopeless."""
  ends = [(mean - 3 * deviation, mean + 3 * deviation) for mean, deviation in (MIDPOINT, STEEPNESS)]
  weight_T = np.log([weight for _, weight in SPREADS])
  for narrowing in range(NARROWED + 1):
    middles, steeps = (np.linspace(*end, cells) for end, cells in zip(ends, CELLS, strict=True))
    middle, steep = (axis.ravel() for axis in np.meshgrid(middles, steeps, indexing="ij"))
    share_NK = sigmoid(squares.flops_K, np.exp(middle)[:, None], np.exp(steep)[:, None])
    *_, likelihood_NT = squares.solved(share_NK, squares.weight_KT, sums=True)
    penalty_N = sum(((axis - mean) / deviation) ** 2 for axis, (mean, deviation) in (
        (middle, MIDPOINT), (steep, STEEPNESS)))
    log_NT = likelihood_NT - 0.5 * penalty_N[:, None] + weight_T
    weight = np.exp(log_NT - log_NT.max()).reshape(*CELLS, len(SPREADS))
    if narrowing < NARROWED:
      ends = [_where(axis, weight.sum(axis=tuple({0, 1, 2} - {place}))) for place, axis in enumerate((middles, steeps))]
  return middles, steeps, weight


def _where(axis: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
  """The ends of the lines of cells with some weight, and one line more on either side."""
  lines, step = np.flatnonzero(weight > HOPELESS * weight.sum()), axis[1] - axis[0]
  return axis[lines[0]] - step, axis[lines[-1]] + step
