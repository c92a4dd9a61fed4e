"""Advantages by hand, and where they come to stand."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.objectives.batches import GroupBatch, PolicyBatch, Scores
from sftrl_jax.objectives.grpo import GRPOConfig
from sftrl_jax.objectives.ppo import PPOConfig
from sftrl_jax.objectives.reinforce_plus_plus import ReinforcePlusPlusConfig
from sftrl_jax.objectives.returns import group_relative, leave_one_out
from sftrl_jax.rollout.collect import grid, outcomes, rows
from sftrl_jax.rollout.episodes import Episode
from sftrl_jax.training import advantages as of_rows
from sftrl_jax.training.advantages import NOT_SCORED, make_advantages, make_group_advantages, make_score_rows, take
from sftrl_jax.training.updates.lengths import by_length, lengths_of

module = importlib.util.spec_from_file_location("by_hand", pathlib.Path(__file__).parents[1] / "chats_by_hand.py")
by_hand = importlib.util.module_from_spec(module)
module.loader.exec_module(by_hand)
turn, EPISODES, CHATS, ENDS = by_hand.turn, by_hand.EPISODES, by_hand.CHATS, by_hand.ENDS
SLOTS, CHAT_TURNS, TURNS, TOKENS, LENGTH = 3, 4, 2, 3, 10


def score(params, inputs, targets_BT):
  blank = jnp.zeros(targets_BT.shape)
  return Scores(-params["model"] * targets_BT / 10.0, blank, inputs.tokens_BT / 100.0, blank > 0)


@functools.cache
def jitted(ppo, pieces):
  return jax.jit(make_score_rows(score, pieces)), jax.jit(make_advantages(ppo))


def prepared(ppo, ref=None, closing=((), ()), pieces=1, model=1.0, episodes=EPISODES):
  laid, steps = rows(episodes, LENGTH, closing), grid(episodes, ppo.level, TURNS, TOKENS, closing)
  score_rows, advantages = jitted(ppo, pieces)
  batch, metrics = advantages(score_rows({"model": model}, ref, laid), laid, steps)
  return jax.device_get(batch), jax.device_get(metrics), laid


def test_a_token_is_an_action():
  ppo = PPOConfig(level="token", gamma=0.5, turn_gamma=0.8, gae_lambda=0.9, whiten=False)
  batch, _, _ = prepared(ppo)
  # Episode 0: V = .4 (read 40), .1 (read 10), .3 (read 30). Ends of turns discount by turn_gamma.
  c = 1.0 - 0.3
  b = -0.5 + 0.8 * 0.3 - 0.1 + 0.8 * 0.9 * c
  a = 0.0 + 0.5 * 0.1 - 0.4 + 0.5 * 0.9 * b
  # Episode 1: V = .6, .7, .8, nothing after the end.
  z = -0.2 - 0.8
  y = 0.5 * 0.8 - 0.7 + 0.5 * 0.9 * z
  x = 0.5 * 0.7 - 0.6 + 0.5 * 0.9 * y
  np.testing.assert_allclose(batch.advantages_BT[0], [0, a, b, 0, c, 0, 0, 0, 0, 0], atol=1e-6)
  np.testing.assert_allclose(batch.advantages_BT[1], [0, x, y, z, 0, 0, 0, 0, 0, 0], atol=1e-6)
  np.testing.assert_allclose(batch.returns_BT[0, [1, 2, 4]], [a + 0.4, b + 0.1, c + 0.3], atol=1e-6)
  np.testing.assert_allclose(batch.old_logprobs_BT[1], [0, -7, -8, -9, 0, 0, 0, 0, 0, 0], atol=1e-6)


def test_a_turn_is_an_action():
  ppo = PPOConfig(level="turn", gamma=0.5, turn_gamma=0.8, gae_lambda=0.9, whiten=False)
  batch, _, _ = prepared(ppo)
  second = 1.0 - 0.3
  first = -0.5 + 0.8 * 0.3 - 0.4 + 0.8 * 0.9 * second
  alone = -0.2 - 0.6
  np.testing.assert_allclose(batch.advantages_BT[0], [0, first, first, 0, second, 0, 0, 0, 0, 0], atol=1e-6)
  np.testing.assert_allclose(batch.advantages_BT[1], [0, alone, alone, alone, 0, 0, 0, 0, 0, 0], atol=1e-6)
  np.testing.assert_allclose(batch.returns_BT[0, [1, 2, 4]], [first + 0.4, first + 0.4, second + 0.3], atol=1e-6)


@pytest.mark.parametrize("level", ["token", "turn"])
def test_what_the_environment_says_carries_nothing(level):
  batch, _, arrays = prepared(PPOConfig(level=level), closing=((), (2, 55)))
  off = arrays.mask_BT == 0
  for name in ("advantages_BT", "returns_BT", "old_logprobs_BT"):
    assert not getattr(batch, name)[off].any()
  assert (batch.advantages_BT[~off] != 0).all()


@pytest.mark.parametrize("level, before", [("token", 0.8), ("turn", 0.6)])
def test_a_truncated_episode_goes_on_in_the_value_of_what_was_read_last(level, before):
  ppo = PPOConfig(level=level, gamma=0.5, turn_gamma=0.8, gae_lambda=0.9, whiten=False)
  batch, _, _ = prepared(ppo, closing=((), (2, 55)))
  np.testing.assert_allclose(batch.advantages_BT[1, 3], -0.2 + 0.8 * 0.55 - before, atol=1e-6)
  ended, _, _ = prepared(ppo)
  np.testing.assert_allclose(ended.advantages_BT[1, 3], -0.2 - before, atol=1e-6)
  np.testing.assert_allclose(batch.advantages_BT[0], ended.advantages_BT[0], atol=1e-6)


@pytest.mark.parametrize("level", ["token", "turn"])
def test_kl_to_the_start_lowers_the_rewards_by_k1(level):
  settings = dict(level=level, gamma=1.0, turn_gamma=1.0, gae_lambda=1.0, whiten=False)
  plain, none, arrays = prepared(PPOConfig(**settings))
  batch, metrics, _ = prepared(PPOConfig(kl_coef=0.5, **settings), ref={"model": 1.5})
  # log pi - log ref = (1.5 - 1) * id / 10; undiscounted, a step loses the penalties of itself and all that follow.
  k1 = 0.05 * arrays.targets_BT * arrays.mask_BT
  lost = np.cumsum(k1[:, ::-1], axis=1)[:, ::-1] * arrays.mask_BT
  if level == "turn":
    lost[0, 2], lost[1, 2:4] = lost[0, 1], lost[1, 1]
  np.testing.assert_allclose(batch.advantages_BT, plain.advantages_BT - 0.5 * lost, atol=1e-5)
  np.testing.assert_allclose(metrics["objective/kl"], k1.sum() / 2, rtol=1e-6)
  assert "objective/kl" not in none


@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_rows_scored_at_their_length_come_back_in_their_order(pieces):
  """A length is of a piece; which rows share one is decided by an order, and what is not computed is 0."""
  episodes, sizes = (*EPISODES, Episode(2, (), (), False), EPISODES[1]), (5, 8, LENGTH)   # 6, 5, 0 and 5 tokens
  laid = rows(episodes, LENGTH, ((),) * 4)
  order = by_length(np.arange(4), lengths_of(laid.inputs), pieces)
  by_sizes = jax.jit(make_score_rows(score, pieces, sizes))
  whole, scored = (jax.device_get(run({"model": 1.0}, {"model": 1.5}, laid, *more))
                   for run, more in ((jitted(PPOConfig(), pieces)[0], ()), (by_sizes, (order,))))
  there = laid.inputs.segments_BT > 0
  for name in ("logprobs_BT", "values_BT", "ref_logprobs_BT"):
    np.testing.assert_array_equal(getattr(scored, name)[there], getattr(whole, name)[there])
    assert not getattr(scored, name)[:, 8:].any() and np.abs(getattr(scored, name)[there]).max() > 0
  assert whole.counts is None
  assert scored.counts.tolist() == {1: [0, 0, 1, 0], 2: [0, 1, 1, 0], 4: [1, 2, 1, 0]}[pieces]


def test_a_group_that_was_not_scored_has_no_old_logprobs():
  section = GRPOConfig(group=2)
  compare = make_group_advantages(section, functools.partial(group_relative, group=2), False)
  laid, numbers = rows(EPISODES, LENGTH, ((), ())), outcomes(EPISODES)
  batch, metrics = jax.jit(compare)(NOT_SCORED, laid, numbers)
  scored, _, _ = grouped()
  assert batch.old_logprobs_BT is None and not metrics
  np.testing.assert_array_equal(batch.advantages_B, scored.advantages_B)


def test_whitened_advantages_have_mean_0_and_variance_1_over_actions():
  batch, _, arrays = prepared(PPOConfig(level="token"))
  on = batch.advantages_BT[arrays.mask_BT > 0]
  np.testing.assert_allclose([on.mean(), on.std()], [0.0, 1.0], atol=1e-4)


def constant(reward, attempts=1):
  """Two episodes of different lengths that are paid alike."""
  return tuple(Episode(number, tuple(turn([1, 40 + 5 * number], tokens, reward) for _ in range(attempts)), (), False)
               for number, tokens in enumerate(([10, 20], [70, 80, 90])))


@pytest.mark.parametrize("settings", [{}, {"level": "turn"}, {"whiten": False}, {"gamma": 0.9, "gae_lambda": 0.5}])
@pytest.mark.parametrize("reward, attempts", [(0.0, 1), (-1.0, 1), (5.0, 1), (-1.0, 2)])
def test_rewards_that_are_all_alike_give_no_advantage_whatever_the_value_head_says(settings, reward, attempts):
  ppo = PPOConfig(kl_coef=0.5, **settings)
  batch, metrics, arrays = prepared(ppo, ref={"model": 1.5}, episodes=constant(reward, attempts))
  assert not batch.advantages_BT.any() and metrics["objective/signal"] == 0 and metrics["objective/kl"] > 0
  assert batch.returns_BT[arrays.mask_BT > 0].any()   # which the value head still learns


def test_values_are_measured_against_what_the_rewards_can_give():
  closing = ((), (2, 55))   # V of it is 0.55, after the one turn of episode 1
  _, ended, _ = prepared(PPOConfig(turn_gamma=0.5))
  np.testing.assert_allclose([ended["critic/values/max"], ended["critic/values/bound"]], [0.8, 0.5 + 0.5 * 1.0])
  _, metrics, _ = prepared(PPOConfig(turn_gamma=0.5, truncation="bootstrap"), closing=closing)
  np.testing.assert_allclose(metrics["critic/values/bound"], 0.2 + 0.5 * 2.0)
  _, endless, _ = prepared(PPOConfig(turn_gamma=1.0, truncation="bootstrap"), closing=closing)
  np.testing.assert_allclose(endless["critic/values/bound"], 0.2 + 100.0)
  assert ended["objective/signal"] == 1


def test_a_minibatch_is_the_chosen_rows():
  batch, _, _ = prepared(PPOConfig())
  chosen = jax.device_get(take(batch, np.array([1, 0, 1])))
  assert isinstance(chosen, PolicyBatch)
  jax.tree.map(lambda new, old: np.testing.assert_array_equal(new, old[[1, 0, 1]]), chosen, batch)


def score_alone(*given):
  return score(*given)._replace(values_BT=None)


def grouped(advantages=group_relative, ref=None, in_reward=False, pieces=1, **how):
  """(batch, metrics, rows) of the two episodes as one group, whose rewards are 0.5 and -0.2."""
  compare = make_group_advantages(GRPOConfig(kl_coef=0.5), functools.partial(advantages, group=2), in_reward)
  laid = rows(EPISODES, LENGTH, ((), ()))
  scored = jax.jit(make_score_rows(score_alone, pieces))({"model": 1.0}, ref, laid)
  batch, metrics = jax.jit(compare)(scored, laid, outcomes(EPISODES, **how))
  return jax.device_get(batch), jax.device_get(metrics), laid


def test_an_episode_of_a_group_has_one_advantage_and_no_values():
  batch, metrics, arrays = grouped(leave_one_out)
  assert isinstance(batch, GroupBatch) and batch.ref_logprobs_BT is None and not metrics
  np.testing.assert_allclose(batch.advantages_B, [0.5 + 0.2, -0.2 - 0.5], rtol=1e-5)
  np.testing.assert_array_equal(batch.mask_BT, arrays.mask_BT)
  np.testing.assert_allclose(batch.old_logprobs_BT, -arrays.targets_BT / 10.0 * arrays.mask_BT, rtol=1e-6)
  discounted, *_ = grouped(leave_one_out, turn_gamma=0.5)   # -0.5 + 0.5 * 1.0
  np.testing.assert_allclose(discounted.advantages_B, [0.2, -0.2], atol=1e-6)


def test_the_kl_of_a_group_lowers_rewards_or_is_left_to_the_loss():
  batch, metrics, arrays = grouped(leave_one_out, ref={"model": 1.5}, in_reward=True)
  k1_E = (0.05 * arrays.targets_BT * arrays.mask_BT).sum(1)
  rewards = np.asarray([0.5, -0.2]) - 0.5 * k1_E
  np.testing.assert_allclose(batch.advantages_B, [rewards[0] - rewards[1], rewards[1] - rewards[0]], rtol=1e-5)
  np.testing.assert_allclose(metrics["objective/kl"], k1_E.mean(), rtol=1e-6)
  assert batch.ref_logprobs_BT is None
  batch, group_metrics, arrays = grouped(leave_one_out, ref={"model": 1.5})
  np.testing.assert_allclose(batch.advantages_B, [0.7, -0.7], rtol=1e-5)
  np.testing.assert_allclose(batch.ref_logprobs_BT, -0.15 * arrays.targets_BT * arrays.mask_BT, rtol=1e-6)
  assert group_metrics["objective/kl"] == metrics["objective/kl"]


@pytest.mark.parametrize("in_reward", [False, True])
def test_an_adapted_coefficient_of_a_group_is_that_of_a_fixed_one(in_reward):
  laid, numbers = rows(EPISODES, LENGTH, ((), ())), outcomes(EPISODES)
  scored = jax.jit(make_score_rows(score_alone, 1))({"model": 1.0}, {"model": 1.5}, laid)
  compare = lambda **fields: jax.jit(make_group_advantages(
      GRPOConfig(**fields), functools.partial(leave_one_out, group=2), in_reward))
  fixed, _ = compare(kl_coef=0.5)(scored, laid, numbers)
  adapted, metrics = compare(kl_coef=0.1, kl_target=1.0)(scored, laid, numbers, np.float32(0.5))
  np.testing.assert_allclose(adapted.advantages_B, fixed.advantages_B, rtol=1e-6)
  assert fixed.kl_coef_B is None and (adapted.kl_coef_B is None) == in_reward
  if not in_reward:
    np.testing.assert_array_equal(adapted.kl_coef_B, [0.5, 0.5])
  np.testing.assert_allclose(metrics["objective/kl_response"], metrics["objective/kl"] * 2 / 3, rtol=1e-6)


def test_what_is_not_learned_from_leaves_the_loss_and_fillers_have_no_advantage():
  batch, _, arrays = grouped(leave_one_out, mask=True)   # the second episode was ended because its chat did not fit
  np.testing.assert_array_equal(batch.mask_BT[0], arrays.mask_BT[0])
  assert not batch.mask_BT[1].any() and not batch.old_logprobs_BT[1].any()
  np.testing.assert_allclose(batch.advantages_B, [0.7, -0.7], rtol=1e-5)   # it still counts in its group's mean
  filled, _, arrays = grouped(padding_episodes=2)
  assert not filled.advantages_B.any()
  np.testing.assert_array_equal(filled.mask_BT, arrays.mask_BT)


def test_pieces_change_nothing():
  for batch in (functools.partial(prepared, PPOConfig(level="turn")), functools.partial(grouped, ref={"model": 1.5})):
    jax.tree.map(np.testing.assert_array_equal, *(batch(pieces=pieces)[0] for pieces in (1, 2)))


def of_chats(ppo, slots=SLOTS, ref=None, episodes=CHATS, closing=ENDS):
  laid, steps = rows(episodes, LENGTH, closing, slots), grid(episodes, ppo.level, CHAT_TURNS, TOKENS, closing)
  score_rows, advantages = jitted(ppo, 1)
  batch, metrics = advantages(score_rows({"model": 1.0}, ref, laid), laid, steps)
  return *jax.device_get((batch, metrics)), laid


@pytest.mark.parametrize("level", ["token", "turn"])
@pytest.mark.parametrize("ref", [None, {"model": 1.5}])
def test_advantages_run_over_all_chats_of_an_episode(level, ref):
  """By hand: values are of what was read last in the step's own row, and the next step may stand in the next row."""
  ppo = PPOConfig(level=level, gamma=0.5, turn_gamma=0.8, gae_lambda=0.9, whiten=False, kl_coef=0.5 if ref else 0.0)
  batch, metrics, _ = of_chats(ppo, ref=ref)
  count, kls = len(CHATS), []
  for e, episode in enumerate(CHATS):
    steps = []   # (row, columns, reward, V, discount to the next step) in the order of play
    at = row = 0
    for number, played in enumerate(episode.turns):
      if number and played.response.begins_row:
        row, at = row + 1, 0
      before, tokens = [*played.response.context][-1], played.response.tokens
      start = at + len(played.response.context)
      at = start + len(tokens)
      kl = [0.5 * token / 10.0 if ref else 0.0 for token in tokens]   # -(1 - 1.5) token / 10
      kls.append(sum(kl))
      if level == "turn":
        reward = played.verdict.reward - ppo.kl_coef * sum(kl)
        steps.append((row, range(start - 1, at - 1), reward, before / 100, 0.8))
        continue
      for place, value in enumerate((before, *tokens[:-1])):
        last = place == len(tokens) - 1
        reward = played.verdict.reward * last - ppo.kl_coef * kl[place]
        steps.append((row, [start - 1 + place], reward, value / 100, 0.8 if last else 0.5))
    after, advantage = (0.55 if e == 1 else 0.0), 0.0
    for row, columns, reward, value, discount in reversed(steps):
      advantage = reward + discount * after - value + discount * 0.9 * advantage
      after = value
      for column in columns:
        np.testing.assert_allclose(batch.advantages_BT[row * count + e, column], advantage, atol=1e-5)
        np.testing.assert_allclose(batch.returns_BT[row * count + e, column], advantage + value, atol=1e-5)
  off = batch.mask_BT == 0
  assert not batch.advantages_BT[off].any() and (batch.advantages_BT[~off] != 0).all()
  if ref:
    np.testing.assert_allclose(metrics["objective/kl"], sum(kls) / 3, rtol=1e-5)   # of three episodes with a turn


@pytest.mark.parametrize("ref", [None, {"model": 1.5}])
def test_reinforce_plus_plus_is_ppo_whose_values_are_0(ref):
  """On several chats an episode, with the KL of every token in its reward."""
  coef, ppo = 0.5 if ref else 0.0, PPOConfig(turn_gamma=0.8, kl_coef=0.5 if ref else 0.0)
  laid, steps = rows(CHATS, LENGTH, ((),) * 4, SLOTS), grid(CHATS, "token", CHAT_TURNS, TOKENS, ((),) * 4)
  scored = jitted(ppo, 1)[0]({"model": 1.0}, ref, laid)
  want, metrics = jitted(ppo, 1)[1](scored.replace(values_BT=jnp.zeros_like(scored.values_BT)), laid, steps)
  own = jax.jit(of_rows.make_return_advantages(ReinforcePlusPlusConfig(turn_gamma=0.8, kl_coef=coef)))
  batch, same = own(scored.replace(values_BT=None), laid, steps)
  for name in ("advantages_BT", "old_logprobs_BT", "mask_BT"):
    np.testing.assert_allclose(getattr(batch, name), getattr(want, name), atol=1e-6)
  assert same == {name: pytest.approx(float(metrics[name]), rel=1e-5) for name in same}
  alike, flat = own(scored.replace(values_BT=None), laid, steps.replace(rewards_EL=0 * steps.rewards_EL))
  assert not alike.advantages_BT.any() and flat["objective/signal"] == 0   # whatever the KL is


@pytest.mark.parametrize("level", ["token", "turn"])
def test_blank_rows_change_nothing(level):
  """An environment that may rewrite its prompt and never does has the batch of one whose chat grows."""
  ppo = PPOConfig(level=level, gae_lambda=0.9, kl_coef=0.1)
  plain, want, _ = of_chats(ppo, 1, {"model": 1.5}, EPISODES, ((), (2, 55)))
  batch, metrics, _ = of_chats(ppo, 4, {"model": 1.5}, EPISODES, ((), (2, 55)))
  for name in ("advantages_BT", "returns_BT", "old_logprobs_BT", "mask_BT"):
    np.testing.assert_allclose(getattr(batch, name)[: len(EPISODES)], getattr(plain, name), atol=1e-6)
    assert not getattr(batch, name)[len(EPISODES) :].any()
  for name, value in want.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("kl_in_reward", [False, True])
def test_the_advantage_of_an_episode_is_that_of_all_its_rows(kl_in_reward):
  section = GRPOConfig(group=2, scale=False, kl_coef=0.5, truncated="mask")
  advantages = jax.jit(make_group_advantages(section, functools.partial(leave_one_out, group=2), kl_in_reward))
  laid, score_rows = rows(CHATS, LENGTH, ((),) * 4, SLOTS), jitted(PPOConfig(), 1)[0]
  numbers = outcomes(CHATS, mask=True)
  scored = score_rows({"model": 1.0}, {"model": 1.5}, laid)
  batch, metrics = jax.device_get(advantages(scored, laid, numbers))
  kl_E = np.asarray([0.5 * sum(sum(t.response.tokens) for t in episode.turns) / 10 for episode in CHATS])
  rewards_E = numbers.rewards_E - (0.5 * kl_E if kl_in_reward else 0.0)
  want_E = rewards_E - rewards_E[[1, 0, 3, 2]]
  np.testing.assert_allclose(batch.advantages_B, np.tile(want_E, SLOTS), rtol=1e-5)
  np.testing.assert_allclose(metrics["objective/kl"], kl_E.sum() / 3, rtol=1e-5)
  in_loss_B = np.tile(numbers.in_loss_E, SLOTS)
  np.testing.assert_array_equal(batch.mask_BT, laid.mask_BT * in_loss_B[:, None])
  assert numbers.in_loss_E.tolist() == [1, 0, 1, 1]   # a limit cut episode 1: none of its rows is learned from
