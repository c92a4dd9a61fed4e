"""Every shape that a rollout may need is listed, and no other."""

import dataclasses
import functools

import jax
import pytest

from sftrl_jax.envs.env import Rewriting
from sftrl_jax.models import flops

CUT = dict(max_new_tokens=16, segment=2, shrink=(0.5,))


def test_sizes_are_multiples_of_what_the_mesh_splits(make_actor):
  assert make_actor(shrink=(0.75, 0.5)).sizes == (16, 12, 8)
  assert make_actor(devices=8, shrink=(0.75, 0.5)).sizes == (16, 8)
  assert make_actor(shrink=()).sizes == (16,)


def test_in_segments_rows_shrink_by_halves_to_an_eighth(make_actor):
  assert make_actor(**CUT).sizes == (16, 8, 4, 2)
  assert make_actor(**{**CUT, "shrink": (0.75,)}).sizes == (16, 12, 6, 3)
  assert make_actor(**{**CUT, "shrink": (0.75, 0.5)}).sizes == (16, 8, 4, 2)
  assert make_actor(**{**CUT, "shrink": ()}).sizes == (16,)


@pytest.mark.parametrize("segment", [0, 16, 99])
def test_a_response_of_one_segment_is_one_program_a_turn(make_actor, segment):
  actor = make_actor(**{**CUT, "segment": segment})
  assert not actor.in_segments and actor.segment == 16 and actor.sizes == (16, 8)
  assert [(shape.turn, shape.rows, shape.cache_len) for shape in actor.shapes()] == [
      (0, 16, actor.cache_len(0)), (1, 16, actor.cache_len(1)), (1, 8, actor.cache_len(1))]
  assert all(shape.begins for shape in actor.shapes())


def test_a_response_begins_with_one_token_and_goes_on_by_segments(make_actor):
  assert make_actor(**CUT).ends == (1, 2, 4, 6, 8, 10, 12, 14, 16)
  assert make_actor(**{**CUT, "segment": 1}).ends == tuple(range(1, 17))
  assert make_actor(**{**CUT, "segment": 5}).ends == (1, 5, 10, 15, 16)
  assert make_actor(**{**CUT, "segment": 0}).ends == (16,)


REFILL = dict(max_new_tokens=32, segment=4, shrink=(0.5,), refill=True)


def test_refilled_slots_have_a_ring_for_short_responses_and_one_for_long_ones(make_actor):
  actor = make_actor(turns=1, **REFILL)
  young, old = actor.rings
  assert (young.sizes, young.tokens, young.cache_len) == ((16, 8, 4, 2), 8, 5 + 7 + young.slack) and young.slack == 2
  assert (old.sizes, old.tokens, old.cache_len, old.slack) == ((4, 2), 32, 5 + 31 + 2, 0)
  assert len(make_actor(turns=1, **{**REFILL, "segment": 0}).rings) == 1   # every response is short
  for listed in (actor.shapes(), actor.moves()):
    assert len({*listed}) == len(listed)
  assert [shape[:4] for shape in actor.shapes() if shape.begins] == [(0, actor.newcomers, 1, 5)]
  assert {(shape.rows, shape.cache_len) for shape in actor.shapes() if not shape.begins} == {
      (size, ring.cache_len) for ring in actor.rings for size in ring.sizes}


def test_newcomers_are_whole_groups_on_every_part_of_the_mesh(make_actor):
  rows = lambda **settings: make_actor(**{**REFILL, "turns": 1, **settings}).newcomers
  assert (rows(), rows(rows=64), rows(group=4), rows(devices=2, group=4), rows(devices=8)) == (1, 4, 4, 8, 8)


def test_a_cache_that_is_carried_has_no_slots_to_refill(make_actor):
  with pytest.raises(ValueError, match="(?s)config.rollout.refill is True.*3 turns.*--config.rollout.carry=False"):
    make_actor(**REFILL)
  again = make_actor(carry=False, **REFILL)
  assert again.rings[1].cache_len == again.cache_len(1) + again.rings[0].slack


def test_before_the_first_segment_ends_all_rows_are_there(make_actor):
  actor = make_actor(turns=1, **CUT)
  shapes = [(shape.begins, shape.rows, shape.cache_len) for shape in actor.shapes()]
  assert {(True, 16, 6), (False, 16, 6)} <= {*shapes}
  assert {rows for begins, rows, length in shapes if length == 6} == {16}
  assert {(rows, length) for begins, rows, length in shapes if length > 6} == {
      (rows, length) for rows in (16, 8, 4, 2) for length in (8, 12, 20)}
  assert {move.rows for move in actor.moves() if move.cache_len == 6 and move.takes} == {16}


def test_the_cache_doubles_in_response_tokens_up_to_the_longest_chat(make_actor):
  actor = make_actor(turns=1, **CUT)
  assert actor.cache_lens(0) == (6, 8, 12, 20) == (*actor.cache_lens(0)[:-1], actor.cache_len(0))
  several = make_actor(**CUT)   # 5 + 15, and twice 4 + 15
  assert several.cache_lens(0) == several.cache_lens(2) == (6, 8, 12, 20, 58)
  assert [several.cache_len_for(1, columns) for columns in (1, 6, 7, 37, 58)] == [6, 6, 8, 58, 58]
  again = make_actor(**CUT, carry=False)
  assert again.cache_lens(0) == (6, 8, 12, 20) and again.cache_lens(1)[0] == again.read_len(1) + 1
  with pytest.raises(ValueError, match="Turn 2 needs 59 columns of a cache of 58, which has room for 3 turns"):
    several.cache_len_for(1, 59)


@pytest.mark.parametrize("way", [dict(), dict(turns=1), dict(carry=False), dict(segment=0), dict(group=4),
                                 dict(rewriting=Rewriting(3, 2))], ids=str)
def test_no_shape_and_no_move_is_listed_twice(make_actor, way):
  actor = make_actor(**{**CUT, **way})
  segments = [shape[1:] for shape in actor.shapes() if not shape.begins]
  for listed in (segments, actor.shapes(), actor.moves()):
    assert len({*listed}) == len(listed)
  assert all(move.to_rows >= move.rows if move.back else move.to_rows <= move.rows for move in actor.moves())
  assert all(move.to_len >= move.cache_len for move in actor.moves())


def test_one_turn_in_one_segment_moves_nothing(make_actor):
  assert make_actor(turns=1, shrink=(0.5,)).moves() == make_actor(carry=False, shrink=(0.5,)).moves() == []


def test_conversations_begin_without_a_group_only_where_something_plays_them_so(make_actor):
  actor = make_actor(turns=1, group=4)
  assert [shape.group for shape in actor.shapes()] == [1, 4]
  assert [shape.group for shape in dataclasses.replace(actor, ungrouped=False).shapes()] == [4]
  assert [shape.group for shape in make_actor(turns=1).shapes()] == [1]


def test_a_long_prompt_is_charged_for_its_own_tokens_and_a_short_one_for_the_cache(make_actor):
  count = functools.partial(flops.forward, make_actor().model.config)
  short, long = make_actor(turns=1), make_actor(turns=1, prompt_tokens=200)
  assert short.flops(0, 16, 3) == count(16 * (5 + 2), 8, unembedded=16 * 3)
  assert long.flops(0, 16, 3) == count(16 * 200, 200, unembedded=0) + count(16 * 2, 203, unembedded=16 * 3)
  assert long.flops(0, 16, 3, cache_len=300) - long.flops(0, 16, 3) == count(32, 300, 0) - count(32, 203, 0)
  assert long.segment_flops(8, 3, 300) == count(24, 300)


def test_a_blank_cache_is_that_of_a_turn(make_actor):
  actor = make_actor(devices=2, turns=1)
  blank = actor.blank_cache(16, 8)
  assert {x.shape[0] for x in jax.tree.leaves(blank) if x.ndim} == {16} and len(blank.keys_BKSC) == 2
  assert len(actor.blank_cache(16, 8, 1).keys_BKSC) == 1
  assert all(x.sharding.mesh == actor.mesh for x in jax.tree.leaves(blank))
