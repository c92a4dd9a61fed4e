"""Advantages by hand, and what may not change them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.objectives.returns import gae, group_relative, leave_one_out, rewards_differ, whiten

compiled = jax.jit(gae)


def run(rewards, values, last, discount=0.9, gae_lambda=0.5, live=None):
  """(advantages, returns) of a grid as NumPy arrays; discount is a number or a grid."""
  rewards, values = np.float32(rewards), np.float32(values)
  discounts = np.broadcast_to(np.float32(discount), rewards.shape)
  live = np.ones_like(rewards) if live is None else np.float32(live)
  return tuple(map(np.asarray, compiled(rewards, values, discounts, live, np.float32(last), gae_lambda)))


def test_three_turns_by_hand():
  """gamma 0.9, lambda 0.5, rewards -1 -1 5, values 1 2 3; gamma lambda = 0.45.

  terminated  delta = (-1 + 1.8 - 1, -1 + 2.7 - 2, 5 - 3)         = (-0.2, -0.3, 2.0)
  V after = 4 delta = (-1 + 1.8 - 1, -1 + 2.7 - 2, 5 + 3.6 - 3)   = (-0.2, -0.3, 5.6)
  """
  rewards, values = [[-1, -1, 5]] * 2, [[1, 2, 3]] * 2
  advantages, returns = run(rewards, values, last=[0, 4])
  terminated = [-0.2 + 0.45 * (-0.3 + 0.45 * 2.0), -0.3 + 0.45 * 2.0, 2.0]
  truncated = [-0.2 + 0.45 * (-0.3 + 0.45 * 5.6), -0.3 + 0.45 * 5.6, 5.6]
  np.testing.assert_allclose(advantages, [terminated, truncated], rtol=1e-5)
  np.testing.assert_allclose(returns, advantages + values, rtol=1e-5)


def test_a_boundary_goes_on_in_the_value_of_its_own_next_state():
  """The episode above, cut before its last turn: V there is 3, and nothing after the cut is looked at."""
  cut, _ = run([[-1, -1]], [[1, 2]], last=[3])
  by_hand = [-0.2 + 0.45 * -0.3, -0.3]
  np.testing.assert_allclose(cut[0], by_hand, rtol=1e-5)


def random_grid(seed=0, episodes=4, length=6):
  random = np.random.default_rng(seed)
  normal = lambda *shape: random.normal(size=shape).astype(np.float32)
  return normal(episodes, length), normal(episodes, length), normal(episodes)


@pytest.mark.parametrize("part", range(3))
def test_nothing_leaks_from_an_episode_to_another(part):
  grid = random_grid()
  before, _ = run(*grid)
  moved = [x.copy() for x in grid]
  moved[part][1] = 100.0
  after, _ = run(*moved)
  np.testing.assert_array_equal(np.delete(before, 1, axis=0), np.delete(after, 1, axis=0))
  assert (before[1] != after[1]).any()


def spread(columns, width, live_at, fill):
  grid = np.full((columns.shape[0], width), fill, np.float32)
  grid[:, live_at] = columns
  return grid


@pytest.mark.parametrize("fill", [0.0, 1e3, np.nan])
@pytest.mark.parametrize("live_at", [[0, 1, 2, 3, 4, 5], [2, 3, 5, 6, 8, 9], [0, 3, 4, 5, 8, 10]], ids=str)
def test_what_an_environment_says_changes_no_advantage(live_at, fill):
  """Columns that are not live may come, go and hold anything."""
  rewards, values, last = random_grid()
  discounts = np.random.default_rng(1).uniform(0.5, 1, rewards.shape).astype(np.float32)
  want, returns = run(rewards, values, last, discounts)
  inside = functools.partial(spread, width=11, live_at=live_at, fill=fill)
  live = np.isin(np.arange(11), live_at)[None].repeat(4, axis=0)
  got, more = run(inside(rewards), inside(values), last, inside(discounts), live=live)
  np.testing.assert_allclose(got[:, live_at], want, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(more[:, live_at], returns, rtol=1e-5, atol=1e-6)
  assert not got[~live].any() and not more[~live].any()


def test_an_episode_without_a_live_step_is_zero():
  advantages, returns = run([[1, 2]], [[3, 4]], [5], live=[[0, 0]])
  assert not advantages.any() and not returns.any()


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_with_lambda_one_it_is_the_discounted_return_minus_the_value(gamma):
  rewards, values, last = random_grid()
  advantages, returns = run(rewards, values, last, gamma, gae_lambda=1.0)
  powers = gamma ** np.arange(7)
  follow = np.concatenate([rewards, last[:, None]], axis=1)
  want = np.stack([(follow[:, t:] * powers[: 7 - t]).sum(1) for t in range(6)], axis=1)
  np.testing.assert_allclose(returns, want, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(advantages, want - values, rtol=1e-4, atol=1e-5)


def test_with_lambda_zero_it_looks_one_step_ahead():
  rewards, values, last = random_grid()
  advantages, _ = run(rewards, values, last, 0.9, gae_lambda=0.0)
  after = np.concatenate([values[:, 1:], last[:, None]], axis=1)
  np.testing.assert_allclose(advantages, rewards + 0.9 * after - values, rtol=1e-4, atol=1e-5)


def test_true_values_leave_no_advantage():
  rewards = np.float32([[0, 0, 4, 0, 2]])
  values = np.float32([[0.81 * 4 + 0.9 ** 4 * 2, 0.9 * 4 + 0.9 ** 3 * 2, 4 + 0.81 * 2, 0.9 * 2, 2]])
  np.testing.assert_allclose(run(rewards, values, [0], 0.9, 0.7)[0], 0, atol=1e-5)


def test_a_discount_stands_between_its_own_step_and_the_next():
  """Two turns of two tokens, gamma 1 inside, 0.5 between them: a reward at the end is halved in the first turn only."""
  _, returns = run([[0, 0, 0, 8]], np.zeros((1, 4)), [0], discount=[[1, 0.5, 1, 0.5]], gae_lambda=1.0)
  np.testing.assert_allclose(returns, [[4, 4, 8, 8]])
  _, returns = run([[0, 0, 0, 0]], np.zeros((1, 4)), [8], discount=[[1, 0.5, 1, 0.5]], gae_lambda=1.0)
  np.testing.assert_allclose(returns, [[2, 2, 4, 4]])


def test_grids_that_do_not_fit_are_refused():
  grid = jnp.zeros((2, 3))
  with pytest.raises(ValueError, match="last_values_E has E=3 where E=2"):
    gae(grid, grid, grid, grid, jnp.zeros(3), 1.0)


@pytest.mark.parametrize("fill", [0.0, 7.0, np.nan])
def test_whitened_advantages_have_mean_zero_and_variance_one(fill):
  random = np.random.default_rng(0)
  mask = random.random((5, 6)) < 0.6
  advantages = np.where(mask, random.normal(3, 4, (5, 6)), fill).astype(np.float32)
  white = np.asarray(whiten(advantages, mask))
  np.testing.assert_allclose([white[mask].mean(), white[mask].var()], [0, 1], atol=1e-4)
  assert not white[~mask].any()
  assert (np.argsort(white[mask]) == np.argsort(advantages[mask])).all()


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_advantages_are_whitened_to_zero(count):
  mask = np.arange(4) < count
  np.testing.assert_array_equal(whiten(np.float32([5, 6, 7, 8]), mask), np.zeros(4))


def test_equal_advantages_are_whitened_to_zero():
  np.testing.assert_allclose(whiten(np.full(4, 3.0, np.float32), np.ones(4)), 0, atol=1e-6)


def test_advantages_within_a_group_by_hand():
  """Groups (1, 0, 0, 1) and (3, 1, -1, 1); deviations with n - 1: sqrt(1/3) and sqrt(8/3)."""
  rewards = np.float32([1, 0, 0, 1, 3, 1, -1, 1])
  centred = np.float32([0.5, -0.5, -0.5, 0.5, 2, 0, -2, 0])
  np.testing.assert_allclose(group_relative(rewards, 4, scale=False), centred, rtol=1e-6)
  deviations = np.repeat(np.sqrt([1 / 3, 8 / 3]), 4)
  np.testing.assert_allclose(group_relative(rewards, 4), centred / (deviations + 1e-4), rtol=1e-5)
  others = np.float32([1 / 3, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 1, 5 / 3, 1])
  np.testing.assert_allclose(leave_one_out(rewards, 4), rewards - others, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("advantages", [group_relative, leave_one_out])
@pytest.mark.parametrize("reward", [0.0, 0.1, -0.6, 1e6])
def test_a_group_of_equals_has_exactly_no_advantage(advantages, reward):
  """Whatever the mean of thirds is rounded to."""
  rewards = np.float32([reward] * 3 + [1, 2, 3])
  found = np.asarray(advantages(rewards, 3))
  assert not found[:3].any() and found[3] < 0 < found[5]


@pytest.mark.parametrize("advantages", [group_relative, leave_one_out])
def test_a_group_is_judged_by_itself_and_adds_up_to_nothing(advantages):
  rewards = np.random.default_rng(0).normal(size=12).astype(np.float32)
  before = np.asarray(advantages(rewards, 4))
  after = np.asarray(advantages(np.concatenate([rewards[:4] + 100, rewards[4:]]), 4))
  np.testing.assert_array_equal(before[4:], after[4:])
  np.testing.assert_allclose(before.reshape(3, 4).sum(1), 0, atol=1e-5)
  np.testing.assert_allclose(before[:4], after[:4], atol=1e-3)   # a better hand for all changes nothing


def test_episodes_that_are_left_out_have_no_part_in_their_group():
  rewards = np.float32([1, 1e9, 0, 3, 5, 7, -1, -2, 2, 2, 9, 9])
  present = np.float32([1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0])
  for method in (functools.partial(group_relative, scale=False), group_relative, leave_one_out):
    got = np.asarray(method(rewards, group=4, present_E=present))
    assert not got[present == 0].any()
    np.testing.assert_allclose(got[[0, 2, 3]], method(rewards[[0, 2, 3]], group=3), rtol=1e-6)
    assert got[5] == 0.0 and not got[8:10].any()   # alone; alike
    whole = np.asarray(method(rewards, group=4, present_E=np.ones(12, np.float32)))
    np.testing.assert_array_equal(whole, method(rewards, group=4))


@pytest.mark.parametrize("rewards, live, differ", [
  ([[-1, -1], [-1, -1]], [[1, 1], [1, 1]], False),           # nothing is ever right
  ([[0, 0], [0, 0]], [[1, 0], [1, 1]], False),
  ([[-1, -1], [-1, 9]], [[1, 1], [1, 0]], True),             # one more turn costs something
  ([[-1, -1], [-1.9, 0]], [[1, 1], [1, 0]], False),          # but not if both come to the same
  ([[0.3, 0], [0.1 + 0.2, 0]], [[1, 1], [1, 1]], False),
  ([[1e6, 0], [1e6 + 0.06, 0]], [[1, 1], [1, 1]], False),    # the next number in f32
  ([[1e-7, 0], [2e-7, 0]], [[1, 1], [1, 1]], True),
  ([[0, 0], [0, 1]], [[1, 1], [1, 1]], True)])
def test_rewards_differ_if_they_prefer_one_episode(rewards, live, differ):
  discounts = jnp.full((2, 2), 0.9)
  assert bool(rewards_differ(jnp.float32(rewards), discounts, jnp.float32(live))) == differ


def test_penalties_are_not_blown_up_where_the_rewards_of_a_group_are_alike():
  """Four that are right, and whose KL differs: without the rule, a thousandth was worth 0.96, 0.33, -1.23, -0.06."""
  rewards, penalties = np.float32([1, 1, 1, 1, 1, 0, 0, 1]), 1e-3 * np.float32([0.2, 1, 3, 1.5, 0.2, 1, 3, 1.5])
  found = np.asarray(group_relative(rewards, 4, penalties_E=penalties))
  centred = np.float32([1.225e-3, 0.425e-3, -1.575e-3, -0.075e-3])
  np.testing.assert_allclose(found[:4], centred, atol=1e-7)
  np.testing.assert_allclose(found[4:], group_relative(rewards, 4)[4:] + centred, atol=1e-7)
  unscaled = group_relative(rewards - penalties, 4, scale=False)
  np.testing.assert_allclose(group_relative(rewards, 4, scale=False, penalties_E=penalties), unscaled, atol=1e-6)
  np.testing.assert_array_equal(leave_one_out(rewards, 4, penalties_E=penalties), leave_one_out(rewards - penalties, 4))
