"""Rewards of RLHF against plain numpy in float64, on random ragged episodes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.envs.env import Verdict
from sftrl_jax.objectives.batches import Scores
from sftrl_jax.objectives.ppo import PPOConfig
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.parallel.mesh import MeshConfig, shard_rows
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.episodes import Episode, Response, Turn
from sftrl_jax.training.advantages import ScoredRows, make_advantages
from sftrl_jax.training.response_scores import make_response_score, make_score_responses
from sftrl_jax.training.updates.lengths import by_length, lengths_of

TURNS, TOKENS, LENGTH, SLOTS, SIZES = 2, 5, 20, 2, (8, 16, 20)


def ragged(seed, count=8):
  """Episodes of 0 to 3 turns, in one chat or two, of 1 to 5 tokens each, some without a reward of their own."""
  random = np.random.default_rng(seed)
  ids = lambda count: tuple(random.integers(1, 11, count).tolist())
  episodes = []
  for number in range(count):
    turns = []
    for place in range(int(random.integers(0, 4)) if number else 3):
      size = int(random.integers(1, TOKENS + 1))
      response = Response("", ids(int(random.integers(1, 4))), ids(size), tuple(random.normal(size=size)),
                          begins_row=place == 2)
      turns.append(Turn(response, Verdict(float(random.normal()), False, True, False, False, "", None, "value")))
    episodes.append(Episode(number, tuple(turns), (), True))
  return episodes


def table(params, inputs, targets_BT):
  """Values that depend on the token and on its place."""
  del targets_BT
  values = jnp.sin(params["model"] * inputs.tokens_BT.astype(jnp.float32) + 0.3 * inputs.positions_BT)
  return Scores(None, None, values, None)


@functools.cache
def scoring(pieces, sizes):
  return jax.jit(make_score_responses(table, pieces, sizes))


def scores_of(laid, pieces=1, sizes=()):
  order = (by_length(np.arange(len(laid.ends_BU), dtype=np.int32), lengths_of(laid.inputs), pieces),) if sizes else ()
  return jax.device_get(scoring(pieces, sizes)({"model": 0.7}, laid, *order))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_score_of_a_response_is_that_of_its_last_token(seed):
  episodes = ragged(seed)
  laid = collect.response_rows(episodes, LENGTH, TURNS, SLOTS)
  want = []
  for episode in episodes:
    at, scores = 0, []
    for turn in episode.turns:
      at = (0 if turn.response.begins_row else at) + len(turn.response.context) + len(turn.response.tokens)
      scores.append(np.sin(np.float64(0.7) * turn.response.tokens[-1] + 0.3 * (at - 1)))
    want.append(scores)
  whole, counts = scores_of(laid)
  assert counts is None
  for got, wanted in zip(collect.by_turn(whole, episodes), want, strict=True):
    np.testing.assert_allclose(got, wanted, atol=1e-6)
  by_pieces, counts = scores_of(laid, 4, SIZES)
  live_BU = laid.ends_BU > 0
  np.testing.assert_allclose(by_pieces[live_BU], whole[live_BU], atol=1e-6)
  assert counts.sum() == 4 and counts[0] + counts[1] > 0   # some microbatches were short


def test_what_follows_a_response_or_fills_its_row_changes_nothing():
  episodes, random = ragged(0), np.random.default_rng(5)
  laid = collect.response_rows(episodes, LENGTH, TURNS, SLOTS)
  padded = laid.inputs.segments_BT == 0
  changed = laid.inputs.replace(tokens_BT=np.where(padded, random.integers(1, 11, padded.shape), laid.inputs.tokens_BT
                                                   ).astype(np.int32))
  first = laid.ends_BU[:, 0]
  after = np.arange(LENGTH)[None] > first[:, None]   # the next turn, which the first one's score does not read
  later = laid.inputs.replace(tokens_BT=np.where(after, 7, laid.inputs.tokens_BT).astype(np.int32))
  want = collect.by_turn(scores_of(laid)[0], episodes)
  assert collect.by_turn(scores_of(laid.replace(inputs=changed))[0], episodes) == want
  got = collect.by_turn(scores_of(laid.replace(inputs=later))[0], episodes)
  assert [scores[:1] for scores in got] == [scores[:1] for scores in want]
  assert got != want


@pytest.mark.parametrize("level", ["token", "turn"])
def test_the_reward_is_the_scaled_score_less_the_kl(level):
  """With values of 0 and no discount, a return is the sum of what is still to come: scores, less beta (lp - lp_ref)."""
  episodes, (mean, sd, beta) = ragged(2), (0.4, 1.7, 0.3)
  laid = collect.response_rows(episodes, LENGTH, TURNS, SLOTS)
  raw = collect.by_turn(scores_of(laid)[0], episodes)
  closing = [()] * len(episodes)
  rows = collect.rows(episodes, LENGTH - 1, closing, SLOTS)
  grid = collect.grid(episodes, level, 3, TOKENS, closing)
  scaled = [[(score - mean) / sd for score in scores] for scores in raw]
  ends_EL = np.argwhere(grid.ends_EL > 0)
  flat = [reward for rewards in scaled for reward in rewards]
  grid.rewards_EL[tuple(ends_EL.T)] = flat
  random = np.random.default_rng(3)
  logs_BT, ref_BT = (random.normal(-1, 0.3, rows.mask_BT.shape).astype(np.float32) for _ in range(2))
  ppo = PPOConfig(level=level, kl_coef=beta, kl_target=1.0, turn_gamma=1.0, whiten=False)
  advantages = jax.jit(make_advantages(ppo))
  scored = ScoredRows(logs_BT, np.zeros_like(logs_BT), ref_BT)
  batch, metrics = jax.device_get(advantages(scored, rows, grid, np.float32(beta)))
  fixed, _ = jax.device_get(advantages(scored, rows, grid))
  np.testing.assert_allclose(batch.returns_BT, fixed.returns_BT, atol=1e-6)
  kl_BT, count = np.where(rows.mask_BT > 0, logs_BT.astype(np.float64) - ref_BT, 0.0), len(episodes)
  for e, (episode, rewards) in enumerate(zip(episodes, scaled, strict=True)):
    steps = []   # (row, columns, reward) in the order of play
    row = 0
    for turn in range(len(episode.turns)):
      row += turn and episode.turns[turn].response.begins_row
      within = turn - 2 if turn == 2 else turn
      columns = np.flatnonzero(rows.turns_BT[row * count + e] == within)
      kl = kl_BT[row * count + e, columns]
      if level == "turn":
        steps.append((row, columns, rewards[turn] - beta * kl.sum()))
      else:
        steps += [(row, [column], rewards[turn] * (place == len(columns) - 1) - beta * kl[place])
                  for place, column in enumerate(columns)]
    rest = np.cumsum([reward for *_, reward in reversed(steps)])[::-1]
    for (row, columns, _), value in zip(steps, rest, strict=True):
      np.testing.assert_allclose(batch.returns_BT[row * count + e, columns], value, atol=1e-5)
  np.testing.assert_allclose(metrics["objective/kl_response"], kl_BT.sum() / len(flat), rtol=1e-5)


def test_a_reward_model_on_many_devices_gives_the_scores_of_one(model, params):
  episodes = [Episode(e.seed, e.turns[:2], e.chat, e.truncated) for e in ragged(4)]
  scored = []
  for devices, config in ((1, MeshConfig()), (8, MeshConfig(data=2, fsdp=2, tensor=2))):
    mesh = meshes.make(config, jax.devices()[:devices])
    laid = collect.response_rows(episodes, LENGTH, TURNS)
    with jax.set_mesh(mesh), rules.applied():
      placed = jax.device_put(params, rules.shardings(params, mesh))
      score = jax.jit(make_score_responses(make_response_score(model), 2, (12, LENGTH)))
      order = by_length(np.arange(len(episodes), dtype=np.int32), lengths_of(laid.inputs), 2)
      scored.append(collect.by_turn(jax.device_get(score(placed, shard_rows(mesh, laid), order)[0]), episodes))
  for single, many in zip(*scored, strict=True):
    np.testing.assert_allclose(many, single, atol=1e-5)
  assert max(map(len, scored[0])) == 2
