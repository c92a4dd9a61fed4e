"""How a turn is cut into segments changes no token: not the rows that leave, not the cache that grows."""

import dataclasses
import threading
import time

import jax
import numpy as np
import pytest

from sftrl_jax.envs.env import Rewriting
from sftrl_jax.envs.verdict_pool import VerdictPool
from sftrl_jax.models import flops
from sftrl_jax.rollout.episodes import Judging, play
from sftrl_jax.rollout.policy import policy
from sftrl_jax.rollout.segments import compile_all
from sftrl_jax.training import compile_count

LONGEST = 7
HOT = 1.5   # at this temperature responses end early and late
CUT = dict(max_new_tokens=LONGEST, shrink=(0.25,))   # sizes of 16, 4 and 2 rows: each one costs programs
WAYS = {"carried": dict(), "recomputed": dict(carry=False), "all rows": dict(shrink=()),
        "one turn": dict(turns=1), "groups on 2 devices": dict(devices=2, group=4)}
WALKS = dict(turns=6, rewriting=Rewriting(3, 2))


def settings(way):
  return {**CUT, **WAYS[way]}


def seeds_of(actor):
  return [number // actor.group for number in range(16)]


# The first test of this file: nothing of these actors has been compiled before it.
@pytest.mark.parametrize("way", WAYS)
def test_nothing_compiles_after_compile_all(guess, make_actor, params, way):
  actor = make_actor(segment=2, **settings(way))
  env, decoding = guess(attempts=actor.turns), actor.compiled.to_decoding(params)
  compile_all(actor, decoding)
  keys = [jax.random.key(key) for key in range(3)]
  before = compile_count.count()
  for key, count, temperature in zip(keys, (16, 7, 12), (0.7, 0.0, 1.5), strict=True):
    play(env, policy(actor, decoding, key, temperature, range(count)), range(count))
    if actor.group > 1:
      play(env, policy(actor, decoding, key, temperature, range(8), group=4), [number // 4 for number in range(8)])
  assert compile_count.count() == before


def test_nor_where_the_environment_rewrites_its_prompt(walk, make_actor, decoding):
  actor = make_actor(segment=2, **CUT, **WALKS)
  compile_all(actor, decoding)
  key, before = jax.random.key(1), compile_count.count()
  play(walk(), policy(actor, decoding, key, 0.7, range(16)), range(16))
  assert compile_count.count() == before


@pytest.fixture(scope="module")
def whole(guess, make_actor, decoding, talk):
  """{way: episodes of responses that are sampled at once}."""
  actors = {way: make_actor(segment=0, **settings(way)) for way in WAYS}
  return {way: talk(guess(attempts=actor.turns), actor, decoding, HOT, seeds_of(actor), range(16), group=actor.group)
          for way, actor in actors.items()}


def same(ours, theirs, ids_of):
  for episode, expected in zip(ours, theirs, strict=True):
    assert (episode.chat, episode.truncated, ids_of(episode)[:2]) == (
        expected.chat, expected.truncated, ids_of(expected)[:2])
    np.testing.assert_allclose(ids_of(episode)[2], ids_of(expected)[2], atol=1e-5)


@pytest.mark.parametrize("segment", [1, 2, 3])
@pytest.mark.parametrize("way", WAYS)
def test_segments_change_no_token(guess, make_actor, decoding, whole, way, segment, talk, ids_of):
  actor = make_actor(segment=segment, **settings(way))
  episodes = talk(guess(attempts=actor.turns), actor, decoding, HOT, seeds_of(actor), range(16), group=actor.group)
  same(episodes, whole[way], ids_of)


def test_the_responses_of_these_tests_end_in_every_segment(whole):
  lengths = {len(turn.response.tokens) for episode in whole["carried"] for turn in episode.turns}
  assert {2, 5, 6, LONGEST} <= lengths   # of the first, third and fourth segment of two tokens
  assert {len(episode.turns) for episode in whole["carried"]} == {1, 2, 3}


def test_an_episode_is_the_same_in_any_batch_and_row(guess, make_actor, decoding, whole, talk, ids_of):
  actor = make_actor(segment=2, **CUT)
  for seeds in ((9,), (3, 9, 14, 1), tuple(reversed(range(16)))):
    same(talk(guess(), actor, decoding, HOT, seeds), [whole["carried"][seed] for seed in seeds], ids_of)


def test_segments_of_chats_that_begin_anew(walk, make_actor, decoding, talk, ids_of):
  whole, cut = (talk(walk(), make_actor(segment=segment, **CUT, **WALKS), decoding, HOT) for segment in (0, 2))
  for episode, expected in zip(cut, whole, strict=True):
    assert (episode.earlier, episode.chat, ids_of(episode)[:2]) == (
        expected.earlier, expected.chat, ids_of(expected)[:2])
  assert max(len(episode.rows) for episode in whole) == 3


def test_greedy_responses_are_the_argmax_of_the_full_forward(guess, make_actor, decoding, full_logits, talk, ids_of):
  rows = [ids_of(episode) for episode in talk(guess(), make_actor(segment=2, **CUT), decoding, 0.0)]
  logits = full_logits([ids for ids, _, _ in rows])
  for row, (ids, places, logprobs) in enumerate(rows):
    assert [int(logits[row, place - 1].argmax()) for place in places] == [ids[place] for place in places]
    assert not any(logprobs)


SCRIPT = dict(turns=1, prompt_tokens=5, max_new_tokens=16, shrink=(0.5,), segment=2)
LENGTHS = (16, *[1] * 3, *[2] * 4, *[3] * 4, *[7] * 4)   # 8 rows after 2 tokens, 4 (of 5) or 8 after 4, 1 after 8


def scripted(guess, actor, decoding, lengths=LENGTHS):
  costs = []
  answer = policy(actor, decoding, jax.random.key(1), 1.0, range(16), costs,
                  lengths=lambda episode, turn: lengths[episode])
  return play(guess(attempts=1), answer, range(16))[0], costs


@pytest.mark.parametrize("segment", [0, 2, 5])
def test_scripted_responses_have_their_lengths(guess, make_actor, decoding, segment):
  episodes, _ = scripted(guess, make_actor(**{**SCRIPT, "segment": segment}), decoding)
  assert [len(episode.turns[0].response.tokens) for episode in episodes] == list(LENGTHS)
  whole, _ = scripted(guess, make_actor(**{**SCRIPT, "segment": 0}), decoding)
  for episode, expected in zip(episodes, whole, strict=True):
    assert episode.turns[0].response.tokens == expected.turns[0].response.tokens


def test_a_cost_is_that_of_the_rows_and_columns_that_were_computed(guess, make_actor, decoding):
  actor = make_actor(**SCRIPT)
  assert actor.cache_lens(0) == (6, 8, 12, 20) and actor.sizes == (16, 8, 4, 2)
  alive = [sum(length > first for length in LENGTHS) for first in range(2, 16, 2)]
  assert alive == [9, 5, 5, 1, 1, 1, 1]
  assert actor.ends == (1, 2, 4, 6, 8, 10, 12, 14, 16)
  segments = [(16, 1, 6), (16, 2, 8), *[(8, 2, 12)] * 2, *[(2, 2, 20)] * 4]   # (rows, tokens, columns)
  _, (cost,) = scripted(guess, actor, decoding)
  assert cost.flops == actor.flops(0, 16, 1, cache_len=6) + sum(actor.segment_flops(*part) for part in segments)
  read = lambda rows, tokens, columns: tokens * flops.decode_bytes(actor.decoder.config, decoding, rows, columns)
  assert cost.bytes == read(16, 1, 6) + sum(read(*part) for part in segments)
  _, (whole,) = scripted(guess, make_actor(**{**SCRIPT, "segment": 0}), decoding)
  assert cost.flops < 0.6 * whole.flops


def test_responses_are_handed_on_as_soon_as_they_have_ended(guess, make_actor, decoding):
  actor, handed = make_actor(**SCRIPT), []
  answer = policy(actor, decoding, jax.random.key(1), 1.0, range(16), lengths=lambda episode, turn: LENGTHS[episode])
  chats = [guess(attempts=1).reset(seed)[1] for seed in range(16)]
  responses, _ = answer(chats, None, None, lambda places, some: handed.append((list(places), list(some))))
  assert [places for places, _ in handed] == [[1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
  assert all(responses[place] == response for each in handed for place, response in zip(*each, strict=True))


@pytest.mark.parametrize("workers", [1, 4])
def test_verdicts_on_them_come_while_others_are_decoded(guess, make_actor, decoding, workers):
  """In a pool; else none is asked for before the turn ends, and in no other order."""
  actor, judged, pool = make_actor(**SCRIPT), threading.Event(), VerdictPool(workers)
  pool.start("step", [lambda: time.sleep(0.01)] * 2)()   # shows that verdicts are slow
  answer = policy(actor, decoding, jax.random.key(1), 1.0, range(16), lengths=lambda episode, turn: LENGTHS[episode])

  class Server(guess):
    thread_safe = True

    def step(self, state, response):
      judged.set()
      return super().step(state, response)

  def watched(chats, kept, memory, ended):
    def end(places, responses):
      ended(places, responses)
      assert judged.wait(20 if workers > 1 else 0) == (workers > 1)
    return answer(chats, kept, memory, end)

  assert play(Server(attempts=1), watched, range(16), judging=Judging(pool=pool))[0] == scripted(
      guess, actor, decoding)[0]


def test_a_turn_ends_with_its_last_response(guess, make_actor, decoding):
  actor = make_actor(**SCRIPT)
  for length in (1, 2):
    _, (cost,) = scripted(guess, actor, decoding, [length] * 16)
    assert cost.flops == actor.flops(0, 16, 1, cache_len=6) + (length - 1) * actor.segment_flops(16, 1, 6)


def test_a_refused_conversation_never_goes_on(guess, make_actor, decoding, talk, ids_of):
  actor = make_actor(segment=2, **CUT)
  episodes, usual = talk(guess(long=9), actor, decoding, HOT), talk(guess(), actor, decoding, HOT)
  cut = [episode.truncated and len(episode.turns) == 1 for episode in episodes]
  assert any(cut)
  for episode, expected, ended in zip(episodes, usual, cut, strict=True):
    turns = 1 if ended else None
    assert ids_of(dataclasses.replace(episode, turns=episode.turns[:turns]))[0] == ids_of(
        dataclasses.replace(expected, turns=expected.turns[:turns]))[0]
