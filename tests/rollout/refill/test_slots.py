"""A request keeps its slot until its response ends, and a slot holds one request."""

import dataclasses
import random

import jax
import numpy as np
import pytest

from sftrl_jax.rollout.episodes import play
from sftrl_jax.rollout.policy import policy
from sftrl_jax.rollout.refill import queue
from sftrl_jax.rollout.refill.slots import Decoding, Request, Slots

SETTINGS = dict(turns=1, prompt_tokens=5, max_new_tokens=16, shrink=(0.5,))
REFILL = dict(segment=4, refill=True, group=4)   # rings of 4 and of 16 tokens; four are read together
LENGTHS = (1, 2, 5, 2, 16, 6)
COUNT = 44


@pytest.fixture(scope="module")
def decoding(make_actor, params):
  actor = make_actor(**SETTINGS, **REFILL)
  return Decoding(actor, actor.compiled.to_decoding(params), jax.random.key(0), 1.0, [],
                  lambda episode, turn: LENGTHS[episode])


@pytest.mark.parametrize("lengths", [[1 + number % 16 for number in range(COUNT)],
                                     random.Random(1).choices((2, 3, 4, 16), k=COUNT)], ids=["all", "few"])
def test_scripted_responses_are_those_of_whole_turns_and_cost_what_was_computed(guess, make_actor, decoding, lengths):
  env, actor, script = guess(attempts=1), decoding.actor, lambda episode, turn: lengths[episode]
  scripted = dataclasses.replace(decoding, lengths=script, rollout_costs=[])
  episodes, _ = queue.begin(env, scripted, range(COUNT), range(COUNT))()
  whole = make_actor(**SETTINGS, segment=0)
  expected = [episode for rows in (range(16), range(16, 32), range(32, COUNT)) for episode in play(
      env, policy(whole, decoding.params, decoding.key, 1.0, rows, lengths=script), rows)[0]]
  for episode, usual, length in zip(episodes, expected, lengths, strict=True):
    response, wanted = episode.turns[0].response, usual.turns[0].response
    assert (response.tokens, response.stopped, len(response.tokens)) == (wanted.tokens, True, length)
    np.testing.assert_allclose(response.logprobs, wanted.logprobs, atol=1e-5)
  costs, read = scripted.rollout_costs, actor.flops(0, actor.newcomers, 1, cache_len=actor.read_len(0))
  assert sum(cost.live for cost in costs) == sum(lengths)
  assert sum(cost.flops == read for cost in costs) == -(-COUNT // actor.newcomers)
  for cost in costs:
    decoded = {actor.segment_flops(1, cost.computed, ring.cache_len) for ring in actor.rings}
    assert cost.flops == read or cost.flops in decoded


def requests_of(*episodes):
  return [Request(episode, episode, 0, (1, 2, 3, 4, 5)) for episode in episodes]


def test_slots_are_taken_and_free_again(decoding):
  slots, old = (Slots(decoding, ring) for ring in decoding.actor.rings)
  first, more = requests_of(2), requests_of(3)
  for requests in (first, more):
    newer = decoding.read(requests, 0, 1)
    assert [decoding.has_ended(request) for request in requests] == [False]
    slots.enter(requests, newer)
  assert slots.taken == [0, 1] and slots.free == 14 and slots.old == [] and slots.most == 4
  assert slots.decode(16, slots.most) == more   # of two tokens, the first of which was sampled as it was read
  assert slots.taken == slots.old == [0] and slots.free == 15   # the other one is too long for this ring
  assert slots.most == slots.ring.slack == 1
  requests, cache = slots.leave([slots.old])
  assert requests == first and slots.taken == []
  old.enter(requests, cache)
  old.shrink(2, [old.taken])
  while old.taken:
    ended = old.decode(2, old.most)
  assert ended == first and len(first[0].sampled.tokens) == 5 and first[0].sampled.stopped


def test_a_segment_ends_once_enough_slots_are_free(decoding):
  _, old = (Slots(decoding, ring) for ring in decoding.actor.rings)
  for request in requests_of(4, 5, 2):   # one at a time
    old.enter([request], decoding.read([request], 0, 1))
  ended = []
  while not ended:
    ended = old.decode(2, old.most)   # of four
  assert [request.episode for request in ended] == [2] and old.free == 2


def test_an_old_response_is_whole_until_it_goes_on_in_another_ring(decoding):
  def finished(request, old):
    while old.taken:
      old.decode(4, old.most)
    return request.sampled.tokens, request.sampled.logprobs

  (young, old), (request, later, alone) = (Slots(decoding, ring) for ring in decoding.actor.rings), requests_of(4, 5, 4)
  young.enter([request], decoding.read([request], 0, 1))
  young.decode(16, 2)
  young.enter([later], decoding.read([later], 0, 1))
  young.decode(16, young.most)   # in which the older one waits for the other: all rows are written in every step
  assert (young.old, request.first, later.first) == ([0], 4, 3)
  old.enter(*young.leave([young.old]))
  tokens, logprobs = finished(request, old)
  old.enter([alone], decoding.read([alone], 0, 1))
  expected, theirs = finished(alone, old)
  assert tokens == expected
  np.testing.assert_allclose(logprobs, theirs, atol=1e-5)


def test_a_response_that_is_cut_has_not_stopped(decoding):
  request, = requests_of(4)
  request.sampled.tokens += [1] * 16
  assert decoding.has_ended(request) and request.sampled.stopped   # the script ends it there
  plain = dataclasses.replace(decoding, lengths=None)
  assert plain.has_ended(request) and not request.sampled.stopped
  request.sampled.tokens[-1] = decoding.actor.tokenizer.eos
  assert plain.has_ended(request) and request.sampled.stopped
