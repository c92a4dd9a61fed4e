"""The functions of a rollout are traced once for all actors of a model."""

import dataclasses


def test_actors_that_differ_in_shapes_alone_share_their_functions(make_actor):
  actor = make_actor(turns=1)
  assert dataclasses.replace(actor, turns=2).compiled is actor.compiled
  assert make_actor(turns=1, max_new_tokens=5).compiled is not actor.compiled


def test_a_ring_is_an_empty_cache(make_actor):
  cache = make_actor(turns=1).compiled.ring(16, 9)
  assert cache.positions_BS.shape == (16, 9) and cache.index == 0 and not cache.segments_BS.any()
