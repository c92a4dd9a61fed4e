"""The compiled functions of a rollout. Their shapes are in rollout/actor.py."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from sftrl_jax.models import Model
from sftrl_jax.models.cache import Cache, empty, enter, grow, put, take
from sftrl_jax.parallel.mesh import by_rows, replicated
from sftrl_jax.rollout.decoding import placement
from sftrl_jax.rollout.sample import ResponseEnd, SampledTokens, Sampling, SegmentInputs, TurnInputs, go_on, respond


class Compiled(NamedTuple):
  """The compiled functions of a rollout. `turn`, `segment` and `admit` take over the cache they are given. Those that
  move rows, but for `admit`, are called with a cache of one layer.

  turn: (params, cache or None, TurnInputs, cache_len, group) -> (cache, SampledTokens): a response a row; in segments
    its first token, so that reading, which differs by turn and group, has no copy of the loop
  segment: (params, cache, SegmentInputs) -> (cache, SampledTokens): up to a segment of tokens more
  regroup: (cache, rows_B or None, cache_len) -> the cache of these rows, or of all, with room for cache_len tokens
  put_back: (cache, rows_B, newer cache) -> the cache with these rows as they are in the newer one
  ring: (rows, cache_len) -> an empty cache
  admit: (ring, rows_B, newer cache) -> the ring with newcomers in these rows, rows_B being split as rows are
  to_decoding: training parameters of `model` -> decoding parameters, with the shardings of decoding
  """

  turn: Callable
  segment: Callable
  regroup: Callable
  put_back: Callable
  ring: Callable
  admit: Callable
  to_decoding: Callable


@functools.cache   # so that actors of one model share their traces
def compiled(decoder: Model, sampling: Sampling, tokens: int, end: ResponseEnd, mesh: Mesh, gather: bool,
             whole_turns: bool) -> Compiled:
  """tokens: that are sampled at once. whole_turns: whether `turn` samples so many, and not the first one alone."""
  begins = sampling if whole_turns else dataclasses.replace(sampling, max_new_tokens=1)
  goes_on = dataclasses.replace(sampling, max_new_tokens=tokens)
  split, rows, whole = placement.cache_shardings(decoder.config, mesh), by_rows(mesh), replicated(mesh)
  sampled = SampledTokens(rows, rows, rows, rows, whole, whole)  # so that each process can read those of its own rows
  traced = functools.partial(placement.with_decoding_rules, gather=gather)

  @functools.partial(jax.jit, static_argnames=("cache_len", "group"), donate_argnames="cache",
                     out_shardings=(split, sampled))
  @traced
  def turn(params: dict, cache: Cache | None, turn_inputs: TurnInputs, cache_len: int = 0, group: int = 1
           ) -> tuple[Cache, SampledTokens]:
    blank = cache is None
    if blank:
      cache = empty(decoder.config, turn_inputs.inputs.tokens_BT.shape[0], cache_len)
    return respond(decoder, begins, end, params, cache, turn_inputs, group, blank)

  @functools.partial(jax.jit, donate_argnames="cache", out_shardings=(split, sampled))
  @traced
  def segment(params: dict, cache: Cache, segment_inputs: SegmentInputs) -> tuple[Cache, SampledTokens]:
    return go_on(decoder, goes_on, end, params, cache, segment_inputs)

  @functools.partial(jax.jit, static_argnames=("cache_len",), out_shardings=split)
  @traced
  def regroup(cache: Cache, rows_B: jax.Array | None, cache_len: int) -> Cache:
    return grow(cache if rows_B is None else take(cache, rows_B), cache_len)

  @functools.partial(jax.jit, out_shardings=split)
  @traced
  def put_back(cache: Cache, rows_B: jax.Array, newer: Cache) -> Cache:
    return put(cache, rows_B, newer)

  @functools.partial(jax.jit, static_argnames=("rows", "cache_len"), out_shardings=split)
  @traced
  def ring(rows: int, cache_len: int) -> Cache:
    return empty(decoder.config, rows, cache_len)

  @functools.partial(jax.jit, donate_argnames="cache", out_shardings=split)
  @traced
  def admit(cache: Cache, rows_B: jax.Array, newer: Cache) -> Cache:
    return enter(cache, rows_B, newer)

  return Compiled(turn, segment, regroup, put_back, ring, admit, placement.to_decoding_fn(decoder, mesh, gather))
