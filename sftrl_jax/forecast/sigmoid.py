"""One run's success over FLOPs as a sigmoid, fitted to its evaluations, and draws of what the evaluations leave open.

  R(C) = R0 + (A - R0) s(C),   s(C) = 1 / (1 + (M / C)^B)          (Khatri et al. 2025, arXiv:2510.13786)

R0: success at the start; A: where it tends, below R0 for a curve that falls; M: FLOPs half way; B: steepness. An
evaluation is y_k = R(C_k) + d(C_k) + e_k. e_k has the variance y (1 - y) / n of n episodes and, after the start, t^2:
what a run moves up and down between two evaluations. d is a drift off the sigmoid, a random walk of variance w^2 in
u(C) = C / FLOPs reached: curves of post-training bend and turn where a sigmoid does not. R0 and A lie in [0, 1].

Penalised least squares: each parameter costs its squared distance from a standard value, in the units below. Given M,
B, t and w, the minimum over R0 and A has a closed form, so these are tried on a grid, which is narrowed twice to where
the fit is not hopeless: no start of a search can be wrong. A draw takes a cell of the grid by its marginal likelihood,
M and B inside it, R0 and A from their normal distribution there, and is dropped outside [0, 1]^2; then the drift at the
evaluations, and its walk beyond the last one. The draws are the posterior whose mode is the least squares. Unlike
refits to resampled data they are as wide as the penalty where the data say nothing.

The drift and its weights were chosen after a backtest: without a drift, 80% bands from the first half held 16 of 48
ends of twelve methods on one base of GeneralPoints; with it, 37 of the same 48.
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
SPREADS = ((0.0, 0.4), (0.01, 0.3), (0.03, 0.3))               # (t, its weight)
DRIFTS = ((0.0, 0.1), (0.05, 0.3), (0.1, 0.3), (0.2, 0.3))   # (w, its weight)
NOISES = tuple((t, w, of_t * of_w) for t, of_t in SPREADS for w, of_w in DRIFTS)
CELLS = (41, 17)    # of the grid: midpoints, steepnesses
NARROWED = 2        # times
HOPELESS = 1e-5     # marginal weight of a line of cells that is left out when the grid is narrowed
MOST_POINTS = 40    # that are fitted: neighbours of more are added up
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
  """Draws of a run's curve, [D] each. residual: e after the start, but for the episodes.

  flops_K, drift_DK: of the evaluations that were fitted, and d there; walk_D: what d changes by per root of u beyond
  """

  start_D: np.ndarray
  end_D: np.ndarray
  midpoint_D: np.ndarray
  steepness_D: np.ndarray
  residual_D: np.ndarray
  flops_K: np.ndarray
  drift_DK: np.ndarray
  walk_D: np.ndarray

  @property
  def points(self) -> int:
    """Evaluations that were fitted."""
    return len(self.flops_K)

  def rates(self, flops_G: np.ndarray) -> np.ndarray:
    """Success at these FLOPs, drift and residual included, [D, G] in [0, 1]."""
    flops_G = np.asarray(flops_G, float)
    share_DG = sigmoid(flops_G, self.midpoint_D[:, None], self.steepness_D[:, None])
    off_DG = np.where(flops_G > 0, self.residual_D[:, None], 0.0) + self._drift(flops_G)
    return np.clip(self.start_D[:, None] + (self.end_D - self.start_D)[:, None] * share_DG + off_DG, 0.0, 1.0)

  def _drift(self, flops_G: np.ndarray) -> np.ndarray:
    """d, straight in u between evaluations, [D, G]."""
    at_G, knots_K = (drift_time(flops, self.flops_K[-1]) for flops in (flops_G, self.flops_K))
    knots_K, drift_DK = np.append(0.0, knots_K), np.pad(self.drift_DK, ((0, 0), (1, 0)))   # none before the start
    right_G = np.clip(np.searchsorted(knots_K, at_G), 1, len(knots_K) - 1)
    width_G = np.maximum(knots_K[right_G] - knots_K[right_G - 1], 1e-12)
    share_G = np.clip((at_G - knots_K[right_G - 1]) / width_G, 0.0, 1.0)
    known_DG = drift_DK[:, right_G - 1] * (1 - share_G) + drift_DK[:, right_G] * share_G
    return known_DG + self.walk_D[:, None] * np.sqrt(np.maximum(at_G - knots_K[-1], 0.0))

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


def drift_time(flops: np.ndarray, reached: float) -> np.ndarray:
  """u(C), in which the drift is a random walk."""
  return np.asarray(flops, float) / reached


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
  flops_K, right_K, trials_K = _merged(np.array(points, float)).T
  scale = flops_K[-1]
  squares = _Squares.of(flops_K / scale, right_K, trials_K)
  generator = np.random.default_rng((seed, 0))
  (midpoint_D, steepness_D, start_D, change_D), noise_D = _draws(squares, generator, draws)
  share_DK = sigmoid(squares.flops_K, np.exp(midpoint_D)[:, None], np.exp(steepness_D)[:, None])
  drift_DK = squares.drift(start_D[:, None] + change_D[:, None] * share_DK, noise_D, generator)
  spread_D, walk_D = (np.array(values)[noise_D] for values in zip(*((t, w) for t, w, _ in NOISES), strict=True))
  return Forecast(start_D, start_D + change_D, scale * np.exp(midpoint_D), np.exp(steepness_D),
                  spread_D * generator.standard_normal(draws), flops_K, drift_DK,
                  walk_D * generator.standard_normal(draws))


def _merged(points: np.ndarray) -> np.ndarray:
  """At most MOST_POINTS rows of FLOPs, right ones, trials: the first one, and groups of neighbours of the others."""
  if len(points) <= MOST_POINTS:
    return points
  groups = np.array_split(points[1:], MOST_POINTS - 1)
  return np.array([points[0], *((group[:, 0].mean(), *group[:, 1:].sum(axis=0)) for group in groups)])


@dataclasses.dataclass(frozen=True)
class _Squares:
  """The evaluations as least squares, with FLOPs in units of the last ones: rates, and for every noise of NOISES the
  covariance of the drift, the inverse of the whole covariance and the logarithm of its determinant."""

  flops_K: np.ndarray
  rate_K: np.ndarray
  walked_TKK: np.ndarray
  inverse_TKK: np.ndarray
  determinant_T: np.ndarray

  @classmethod
  def of(cls, flops_K: np.ndarray, right_K: np.ndarray, trials_K: np.ndarray) -> "_Squares":
    rate_K, trials_K = right_K / trials_K, np.clip(trials_K, 1.0, MOST_TRIALS)
    smoothed_K = (rate_K * trials_K + 1) / (trials_K + 2)   # Laplace's, or a rate of 0 or 1 would have no variance
    variance_K, u_K = smoothed_K * (1 - smoothed_K) / trials_K, drift_time(flops_K, flops_K[-1])
    walked_TKK = np.array([w**2 * np.minimum(u_K[:, None], u_K) for _, w, _ in NOISES])
    whole_TKK = walked_TKK + np.array([np.diag(variance_K + t**2 * (flops_K > 0)) for t, _, _ in NOISES])
    return cls(flops_K, rate_K, walked_TKK, np.linalg.inv(whole_TKK), np.linalg.slogdet(whole_TKK)[1])

  def solved(self, share_NK: np.ndarray, noise: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """(P11, P12, P22, R0, change, log marginal likelihood), of the penalised squares over R0 and the change A - R0.

    share_NK: s(C_k) of N curves
    noise: [N], the noise of each curve; every curve with every noise, [N, T], where it is left out
    """
    inverse_TKK, mean, deviation = self.inverse_TKK, *START
    ones_TK, rates_TK = inverse_TKK.sum(axis=2), inverse_TKK @ self.rate_K
    sums_T = ones_TK.sum(axis=1), ones_TK @ self.rate_K, rates_TK @ self.rate_K
    if noise is None:
      p12, q2 = share_NK @ ones_TK.T, share_NK @ rates_TK.T
      p22 = np.stack([((share_NK @ inverse_KK) * share_NK).sum(axis=1) for inverse_KK in inverse_TKK], axis=1)
    else:
      p12, q2 = (share_NK * ones_TK[noise]).sum(axis=1), (share_NK * rates_TK[noise]).sum(axis=1)
      p22 = np.einsum("nk,nkl,nl->n", share_NK, inverse_TKK[noise], share_NK)
    ones, rate, square, logs = (value if noise is None else value[noise] for value in (*sums_T, self.determinant_T))
    p11, p22 = ones + 1 / deviation**2, p22 + 1 / CHANGE**2
    q1 = rate + mean / deviation**2
    determinant = p11 * p22 - p12**2
    start, change = (p22 * q1 - p12 * q2) / determinant, (p11 * q2 - p12 * q1) / determinant
    squared = square + (mean / deviation) ** 2 - start * q1 - change * q2
    return p11, p12, p22, start, change, -0.5 * (logs + squared + np.log(determinant))

  def drift(self, sigmoid_DK: np.ndarray, noise_D: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draws of d at the evaluations, given the sigmoid and the noise of each draw, [D, K]."""
    gain_TKK = self.walked_TKK @ self.inverse_TKK
    left_TKK = self.walked_TKK - gain_TKK @ self.walked_TKK
    values_TK, vectors_TKK = np.linalg.eigh((left_TKK + left_TKK.transpose(0, 2, 1)) / 2)
    root_TKK = vectors_TKK * np.sqrt(np.maximum(values_TK, 0.0))[:, None, :]
    normal_DK = generator.standard_normal(sigmoid_DK.shape)
    return np.einsum("dkl,dl->dk", gain_TKK[noise_D], self.rate_K - sigmoid_DK) + np.einsum(
        "dkl,dl->dk", root_TKK[noise_D], normal_DK)


def _draws(squares: _Squares, generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
  """([4, count]: ln M (in units of the last FLOPs), ln B, R0 and A - R0; [count]: places in NOISES)."""
  middles, steeps, weight = _narrowed(squares)
  cumulative = np.cumsum(weight.ravel())
  steps = [axis[1] - axis[0] for axis in (middles, steeps)]
  kept, missing = [], count
  for last in (False,) * (MOST_ROUNDS - 1) + (True,):
    cell = np.searchsorted(cumulative, generator.random(2 * missing) * cumulative[-1])
    m, b, noise = np.unravel_index(np.minimum(cell, weight.size - 1), weight.shape)
    middle, steep = (axis[index] + step * (generator.random(2 * missing) - 0.5)
                     for axis, index, step in ((middles, m, steps[0]), (steeps, b, steps[1])))
    share_NK = sigmoid(squares.flops_K, np.exp(middle)[:, None], np.exp(steep)[:, None])
    p11, p12, p22, start, change, _ = squares.solved(share_NK, noise)
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
    kept.append(np.array([middle, steep, start, change, noise])[:, inside][:, :missing])
    missing -= kept[-1].shape[1]
    if not missing:
      break
  *values, noise = np.concatenate(kept, axis=1)
  return np.array(values), noise.astype(int)


def _narrowed(squares: _Squares) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(ln M of the grid's lines, ln B, weights [M, B, T]), where the grid covers what is not hopeless."""
  ends = [(mean - 3 * deviation, mean + 3 * deviation) for mean, deviation in (MIDPOINT, STEEPNESS)]
  weight_T = np.log([weight for *_, weight in NOISES])
  for narrowing in range(NARROWED + 1):
    middles, steeps = (np.linspace(*end, cells) for end, cells in zip(ends, CELLS, strict=True))
    middle, steep = (axis.ravel() for axis in np.meshgrid(middles, steeps, indexing="ij"))
    share_NK = sigmoid(squares.flops_K, np.exp(middle)[:, None], np.exp(steep)[:, None])
    *_, likelihood_NT = squares.solved(share_NK)
    penalty_N = sum(((axis - mean) / deviation) ** 2 for axis, (mean, deviation) in (
        (middle, MIDPOINT), (steep, STEEPNESS)))
    log_NT = likelihood_NT - 0.5 * penalty_N[:, None] + weight_T
    weight = np.exp(log_NT - log_NT.max()).reshape(*CELLS, len(NOISES))
    if narrowing < NARROWED:
      ends = [_where(axis, weight.sum(axis=tuple({0, 1, 2} - {place}))) for place, axis in enumerate((middles, steeps))]
  return middles, steeps, weight


def _where(axis: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
  """The ends of the lines of cells with some weight, and one line more on either side."""
  lines, step = np.flatnonzero(weight > HOPELESS * weight.sum()), axis[1] - axis[0]
  return axis[lines[0]] - step, axis[lines[-1]] + step
