"""Which conversations are decoded together, and when a slot is taken again, changes no token."""

import dataclasses
import random
import time

import jax
import numpy as np
import pytest

from sftrl_jax.envs.env import Rewriting
from sftrl_jax.envs.verdict_pool import VerdictPool
from sftrl_jax.rollout.actor import Cost
from sftrl_jax.rollout.episodes import Judging
from sftrl_jax.rollout.exchange import PlayContext, begun_together, play_together
from sftrl_jax.rollout.segments import compile_all
from sftrl_jax.training import compile_count

HOT = 1.5   # at this temperature responses end early and late
COUNT, LONGEST = 44, 7
WAYS = {"groups on 2 devices": dict(turns=1, devices=2, group=4, shrink=()),
        "chats that begin anew": dict(turns=6, rewriting=Rewriting(3, 2), shrink=(0.2,))}
REFILL = dict(max_new_tokens=LONGEST, segment=3, refill=True)   # two rings: of 3 tokens, and of 7


@pytest.fixture(scope="module")
def env_of(guess, walk):
  return lambda way: guess(attempts=1) if WAYS[way]["turns"] == 1 else walk()


def played(env, actor, params, places=None, judging=None, costs=None):
  """The episodes of these places of COUNT, as many together as the actor plays."""
  places, episodes = range(COUNT) if places is None else places, []
  context = PlayContext(env, actor, actor.compiled.to_decoding(params), jax.random.key(11), HOT, actor.group, costs,
                        judging=judging or Judging())
  for some in begun_together(actor, len(places)):
    numbers = [places[i] for i in some]
    episodes += play_together(context, numbers, [number // actor.group for number in numbers])[0]
  return episodes


# The first test of this file: nothing of these actors has been compiled before it.
@pytest.mark.parametrize("way", WAYS)
def test_nothing_compiles_after_compile_all(env_of, make_actor, params, way):
  actor = make_actor(**REFILL, **WAYS[way])
  compile_all(actor, actor.compiled.to_decoding(params))
  jax.random.key(11)
  before = compile_count.count()
  for count in (COUNT, 4):
    played(env_of(way), actor, params, range(count))
  assert compile_count.count() == before


def same(ours, theirs, ids_of):
  for episode, expected in zip(ours, theirs, strict=True):
    assert dataclasses.replace(episode, turns=()) == dataclasses.replace(expected, turns=())
    assert (ids_of(episode)[:2], [turn.verdict for turn in episode.turns]) == (
        ids_of(expected)[:2], [turn.verdict for turn in expected.turns])
    assert [turn.response.stopped for turn in episode.turns] == [turn.response.stopped for turn in expected.turns]
    np.testing.assert_allclose(ids_of(episode)[2], ids_of(expected)[2], atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_refilled_slots_change_no_token(env_of, make_actor, params, ids_of, way):
  costs, usual = [], []
  refilled = played(env_of(way), make_actor(**REFILL, **WAYS[way]), params, costs=costs)
  whole = played(env_of(way), make_actor(**{**REFILL, "segment": 0, "refill": False}, **WAYS[way]), params, costs=usual)
  same(refilled, whole, ids_of)
  lengths = {len(turn.response.tokens) for episode in whole for turn in episode.turns}
  assert {1, 2, 3, 6, LONGEST} <= lengths   # they end at once, in the first ring, at its last token, in the second
  ours, theirs = (sum(each, Cost(0.0, 0.0)) for each in (costs, usual))
  assert ours.live == theirs.live and ours.computed <= theirs.computed


def test_the_order_of_the_episodes_changes_none(env_of, make_actor, params, ids_of):
  actor = make_actor(**REFILL, **WAYS["chats that begin anew"])
  env, order = env_of("chats that begin anew"), random.Random(0).sample(range(COUNT), COUNT)
  usual = played(env, actor, params)
  same(played(env, actor, params, order), [usual[number] for number in order], ids_of)


def test_how_long_a_verdict_takes_changes_no_bit(walk, make_actor, params):
  """Nor does an episode wait for another one's: were verdicts collected as they come, other rows would be together."""
  class Server(walk):
    thread_safe, slow = True, False

    def step(self, state, response):
      time.sleep(random.random() / 100 if self.slow else 0.0)
      return super().step(state, response)

  class SlowServer(Server):
    slow = True

  actor = make_actor(**REFILL, **WAYS["chats that begin anew"])
  runs = [played(env(), actor, params, judging=Judging(pool=VerdictPool(4))) for env in (Server, SlowServer)]
  assert runs[0] == runs[1]


def test_an_episode_that_fails_is_missing_and_the_others_never_notice(guess, make_actor, params, ids_of):
  actor = make_actor(**REFILL, **WAYS["groups on 2 devices"])
  usual = played(guess(attempts=1), actor, params)

  @dataclasses.dataclass(frozen=True)
  class TooLong(guess):   # the prompt of one group does not fit
    def reset(self, seed):
      state, chat = super().reset(seed)
      return state, (dataclasses.replace(chat[0], text="a b c d e f"),) if seed == 2 else chat

  episodes = played(TooLong(attempts=1), actor, params)
  assert [episode.dropped for episode in episodes] == [number // 4 == 2 for number in range(COUNT)]
  kept = [number for number in range(COUNT) if number // 4 != 2]
  same([episodes[number] for number in kept], [usual[number] for number in kept], ids_of)
