import numpy as np
import pytest

from sftrl_jax.report.stats import bootstrap


def interval(values_BSN, resamples=400):
  """The estimate of a mean over bases of seeds of episodes, from [bases, seeds, episodes]."""
  bases, seeds, episodes = values_BSN.shape
  means = bootstrap.episode_means(values_BSN.reshape(bases * seeds, episodes), "law", resamples)
  return bootstrap.estimate(means, [b for b in range(bases) for _ in range(seeds)], episodes)


def test_row_zero_is_the_data():
  values = np.random.default_rng(0).random((6, 40))
  means = bootstrap.episode_means(values, "x", 10)
  assert means.shape == (11, 6) and np.allclose(means[0], values.mean(axis=1))
  bases = ["a", "a", "a", "b", "b", "c"]
  direct = np.mean([means[0, :3].mean(), means[0, 3:5].mean(), means[0, 5]])
  assert bootstrap.combine(means, bases)[0] == pytest.approx(direct, abs=1e-7)


def test_one_stream_is_one_draw_of_episodes():
  values = np.random.default_rng(0).random((2, 40))
  apart = np.concatenate([bootstrap.episode_means(values[i:i + 1], "x", 50) for i in range(2)], axis=1)
  assert np.allclose(apart, bootstrap.episode_means(values, "x", 50), atol=1e-6)
  assert not np.allclose(apart, bootstrap.episode_means(values, "y", 50), atol=1e-3)


def test_episodes_are_drawn_as_often_as_they_should_be():
  rate, episodes = 0.3, 200
  means = bootstrap.episode_means((np.arange(episodes) < rate * episodes)[None], "x", 4000)[1:, 0]
  assert means.mean() == pytest.approx(rate, abs=0.003)
  assert means.std() == pytest.approx(np.sqrt(rate * (1 - rate) / episodes), rel=0.05)


def test_pairing_by_episode_removes_what_episodes_share():
  hard = np.random.default_rng(0).random(300)
  start, end = (hard < 0.3).astype(float), (hard < 0.5).astype(float)
  means = bootstrap.episode_means(np.stack([start, end]), "x", 1000)
  paired = np.std(means[1:, 1] - means[1:, 0])
  assert paired < 0.8 * np.sqrt(means[1:, 0].var() + means[1:, 1].var())


def test_a_quotient_of_sums_resamples_whole_episodes():
  """Responses of one episode are alike here, so an interval that took each for itself would be far too narrow."""
  random, episodes, each = np.random.default_rng(0), 400, 10
  right = each * (random.random(episodes) < 0.4)
  means = bootstrap.episode_means(np.stack([right, np.full(episodes, each)]), "x", 3000)
  rates = bootstrap.ratios(means[:, :1], means[:, 1:])[:, 0]
  assert rates[0] == pytest.approx(right.sum() / (each * episodes), abs=1e-6)
  assert rates[1:].std() == pytest.approx(np.sqrt(rates[0] * (1 - rates[0]) / episodes), rel=0.06)


def test_a_quotient_of_lengths_that_differ_is_that_of_the_sums():
  right, responses = np.array([0, 3, 8, 2]), np.array([1, 4, 8, 5])
  means = bootstrap.episode_means(np.stack([right, responses]), "x", 50)
  rates = bootstrap.ratios(means[:, :1], means[:, 1:])
  assert rates[0, 0] == pytest.approx(13 / 18) and (rates >= 0).all() and (rates <= 1).all()
  assert np.isnan(bootstrap.ratios(np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32))).all()


def test_seeds_stay_inside_the_base_that_was_drawn():
  bases = ("a", "a", "b", "c", "c", "c")
  index_RBS = bootstrap.run_draws(bases, 300)
  assert index_RBS.shape == (301, 3, 3)
  for row in index_RBS.reshape(-1, 3):
    drawn = [bases[i] for i in row if i >= 0]
    assert len(set(drawn)) == 1 and len(drawn) == bases.count(drawn[0])
  assert index_RBS[0].tolist() == [[0, 1, -1], [2, -1, -1], [3, 4, 5]]


def test_with_one_base_only_episodes_are_drawn():
  values = np.random.default_rng(0).random((1, 3, 50))
  estimate = interval(values)
  assert estimate.unit == "episodes" and np.isnan(estimate.t_low)
  identical = np.broadcast_to(values.mean(axis=2, keepdims=True), (1, 3, 50))
  flat = interval(identical)
  assert flat.low == pytest.approx(flat.high, abs=1e-6)


def test_fewer_bases_than_the_least_support_no_interval_over_bases():
  """However far two bases lie apart, the interval is that of the episodes; a third one brings back bases."""
  values = np.random.default_rng(0).random((3, 1, 200)) + np.array([0.0, 50.0, 100.0])[:, None, None]
  two, three = interval(values[:2]), interval(values)
  assert two.unit == "episodes" and np.isnan(two.t_low) and two.wider == (two.low, two.high)
  assert two.high - two.low < 0.2 and len(two.per_base) == 2 < bootstrap.MIN_BASES == 3
  assert three.unit == "bases" and three.high - three.low > 20 and three.t_high > three.high


def test_the_t_interval_is_students():
  low, high = bootstrap.t_interval([1.0, 2.0, 3.0])
  assert (low + high) / 2 == pytest.approx(2) and high - 2 == pytest.approx(4.30265 / np.sqrt(3), rel=1e-6)
  low, high = bootstrap.t_interval([0.0, 1.0])
  assert high - 0.5 == pytest.approx(12.7062 * np.sqrt(0.5) / np.sqrt(2), rel=1e-5)
  assert np.isnan(bootstrap.t_interval([1.0])).all()


def test_the_wider_of_the_two_intervals_is_shown():
  wide = lambda low, high, t_low, t_high: bootstrap.Estimate(0.5, low, high, t_low, t_high, 2, 2, 9, 1.0, ()).wider
  assert wide(0.1, 0.8, 0.3, 0.6) == (0.1, 0.8) and wide(0.3, 0.6, 0.1, 0.8) == (0.1, 0.8)
  assert wide(0.3, 0.6, np.nan, np.nan) == (0.3, 0.6)   # one base


def test_what_does_not_exist_is_left_out_and_counted():
  values = np.array([[0.2, np.nan], [0.2, np.nan], [np.nan, np.nan]])
  estimate = bootstrap.estimate(values, ["a", "b"], 10)
  assert (estimate.bases, estimate.runs, estimate.kept) == (1, 1, 0.5) and estimate.value == pytest.approx(0.2)
  nothing = bootstrap.estimate(np.full((3, 1), np.nan), ["a"], 10)
  assert nothing.bases == 0 and np.isnan(nothing.value)
  with pytest.raises(ValueError, match="one base name a run"):
    bootstrap.estimate(np.zeros((3, 2)), ["a"], 10)


def test_the_intervals_cover_a_known_truth():
  # A truth of 0.1, bases that differ by 0.05, seeds by 0.02; 8 bases, 2 seeds, 200 episodes paired start to end.
  random, hit, hit_t, worlds = np.random.default_rng(3), 0, 0, 120
  for _ in range(worlds):
    effect = 0.1 + 0.05 * random.standard_normal((8, 1, 1)) + 0.02 * random.standard_normal((8, 2, 1))
    gained = (random.random((8, 2, 200)) < 0.3 + effect).astype(float) - (random.random((8, 2, 200)) < 0.3)
    estimate = interval(gained, 200)
    hit += estimate.low <= 0.1 <= estimate.high
    hit_t += estimate.t_low <= 0.1 <= estimate.t_high
  assert 0.87 <= hit / worlds <= 1.0 and 0.89 <= hit_t / worlds <= 1.0
