"""Drawing from a distribution: which tokens, how often, and what stops a response."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.inputs import Inputs
from sftrl_jax.models import cache as caches
from sftrl_jax.rollout.sample import (
  ResponseEnd,
  Sampling,
  SegmentInputs,
  TurnInputs,
  draw,
  go_on,
  respond,
  row_keys,
  truncate,
)

LOGITS = np.log(np.array([0.05, 0.30, 0.10, 0.20, 0.05, 0.25, 0.05]))
MANY = 4000


def frequencies(sampling, temperature=1.0, logits=LOGITS):
  """Shares of the tokens over a grid of uniforms, which meets every quantile, and their log-probabilities."""
  uniforms = (np.arange(MANY, dtype=np.float32) + 0.5) / MANY
  tokens, logprobs = draw(jnp.tile(jnp.asarray(logits, jnp.float32), (MANY, 1)), jnp.asarray(uniforms),
                          jnp.float32(temperature), sampling)
  return np.bincount(tokens, minlength=len(logits)) / MANY, np.asarray(tokens), np.asarray(logprobs)


@pytest.mark.parametrize("kept, sampling", [
    (range(7), Sampling(1)), ([1, 5], Sampling(1, top_k=2)), ([1, 3, 5], Sampling(1, top_p=0.7)),
    ([1, 5], Sampling(1, top_p=0.55)), ([1], Sampling(1, top_p=1e-6)), ([1], Sampling(1, top_k=1)),
    ([1, 5], Sampling(1, top_k=3, top_p=0.6)), (range(7), Sampling(1, top_k=99))])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_only_allowed_tokens_are_drawn_at_their_renormalised_rates(kept, sampling, temperature):
  weights = np.exp(LOGITS / temperature)
  if temperature != 1.0 and sampling.top_p < 1.0:   # nucleus of the tempered distribution
    order = np.argsort(-weights)
    before = np.cumsum(weights[order]) / weights.sum() - weights[order] / weights.sum()
    kept = order[before < sampling.top_p][: sampling.top_k or None]
  want = np.where(np.isin(np.arange(7), list(kept)), weights, 0.0)
  want /= want.sum()
  shares, tokens, logprobs = frequencies(sampling, temperature)
  assert np.abs(shares - want).max() <= 2 / MANY
  np.testing.assert_allclose(logprobs, np.log(want[tokens]), atol=1e-5)


def test_top_p_keeps_the_smallest_set_that_makes_up_the_probability():
  for p in np.linspace(0.05, 0.95, 19):
    kept = np.isfinite(np.asarray(truncate(jnp.asarray(LOGITS, jnp.float32)[None], 0, float(p)))[0])
    mass = np.sort(np.exp(LOGITS)[kept])
    assert mass.sum() >= p - 1e-6
    # Ties stay together; without the smallest kept value the mass would not do.
    assert mass[mass > mass[0]].sum() < p + 1e-6


def test_temperature_zero_is_the_argmax_with_logprob_zero():
  logits = jax.random.normal(jax.random.key(0), (64, 9))
  tokens, logprobs = draw(logits, jnp.linspace(0.0, 1.0, 64), jnp.float32(0.0), Sampling(1, top_k=4, top_p=0.9))
  np.testing.assert_array_equal(tokens, np.argmax(logits, -1))
  assert not np.any(logprobs)


@pytest.mark.parametrize("sampling", [Sampling(1), Sampling(1, top_k=40), Sampling(1, top_p=0.8)])
def test_a_wide_vocabulary_is_drawn_from_by_the_same_distribution_function(sampling):
  """Ids over 4096 are found in two steps: the id is still the one at which the distribution function passes u."""
  logits = 3 * jax.random.normal(jax.random.key(1), (512, 5003))
  uniforms = jnp.concatenate([jax.random.uniform(jax.random.key(2), (510,)), jnp.asarray([0.0, 1.0])])
  tokens, logprobs = draw(logits, uniforms, jnp.float32(0.7), sampling)
  log = np.asarray(jax.nn.log_softmax(truncate(logits / 0.7, sampling.top_k, sampling.top_p)), np.float64)
  upto, rows = np.cumsum(np.exp(log), axis=-1), np.arange(512)
  assert np.all(upto[rows, tokens] >= uniforms - 1e-5)
  assert np.all(upto[rows, tokens] - np.exp(log[rows, tokens]) <= uniforms + 1e-5)
  np.testing.assert_allclose(logprobs, log[rows, tokens], atol=1e-4)
  assert np.all(np.isfinite(logprobs))
  tokens, logprobs = draw(logits, uniforms, jnp.float32(0.0), sampling)
  np.testing.assert_array_equal(tokens, np.argmax(logits, -1))
  assert not np.any(logprobs)


@pytest.mark.parametrize("top", [Sampling(1), Sampling(1, top_k=3), Sampling(1, top_p=0.9)])
def test_no_uniform_ever_picks_a_token_without_probability(top):
  source = np.random.default_rng(0)
  logits = source.normal(size=(4096, 37)).astype(np.float32) * 4
  dead = source.random(logits.shape) < 0.5
  dead[:, 5] = False
  dead[:2048, -6:], dead[:2048, :3] = True, True   # nothing at either end
  logits[dead] = -np.inf
  below_one = np.nextafter(np.float32(1.0), np.float32(0.0))
  for uniform in (0.0, 1e-38, 0.5, below_one, 1.0):
    tokens, logprobs = draw(logits, jnp.full(4096, uniform, jnp.float32), jnp.float32(1.0), top)
    assert not dead[np.arange(4096), tokens].any()
    assert np.isfinite(logprobs).all()


def test_keys_differ_by_episode_and_turn_and_not_by_row():
  key = jax.random.key(7)
  data = lambda episodes, turn: np.asarray(jax.random.key_data(row_keys(key, jnp.asarray(episodes, jnp.uint32), turn)))
  every = np.concatenate([data([0, 1, 2, 3], turn) for turn in range(3)])
  assert len(np.unique(every, axis=0)) == 12
  np.testing.assert_array_equal(data([3, 1], 2), data([0, 1, 2, 3], 2)[[3, 1]])


@pytest.mark.parametrize("settings, key", [
    (dict(max_new_tokens=0), "max_new_tokens"), (dict(max_new_tokens=1, top_k=-1), "top_k"),
    (dict(max_new_tokens=1, top_p=0.0), "top_p"), (dict(max_new_tokens=1, top_p=1.5), "top_p")])
def test_wrong_settings_name_their_key(settings, key):
  with pytest.raises(ValueError, match=f"^{key} is"):
    Sampling(**settings)


@pytest.fixture(scope="module")
def answer(model, decoding):
  """answer(eos, temperature, live) -> SampledTokens of 12 rows of 6 tokens; logits are 0, so the argmax is id 0."""
  flat = {**decoding, "unembed": jnp.zeros_like(decoding["unembed"])}
  rows, longest = 12, 6

  @jax.jit
  def run(eos, temperature, live):
    tokens = jnp.ones((rows, 2), jnp.int32)
    positions = jnp.tile(jnp.arange(2), (rows, 1))
    turn = TurnInputs(Inputs(tokens, positions, tokens), jnp.full(rows, 2), live, jnp.arange(rows, dtype=jnp.uint32),
                      jax.random.key(0), 0, temperature)
    cache = caches.empty(model.config, rows, 2 + longest - 1)
    return respond(model, Sampling(longest), ResponseEnd(eos, 8), flat, cache, turn)[1]

  return lambda eos, temperature, live=(True,) * rows: run(np.asarray(eos), jnp.float32(temperature), np.array(live))


def test_decoding_ends_as_soon_as_every_live_row_has_stopped(answer):
  at_once = answer(0, 0.0)
  assert at_once.steps == 1 and (at_once.lengths_B == 1).all() and at_once.stopped_B.all()
  never = answer(5, 0.0)
  assert never.steps == 6 and (never.lengths_B == 6).all() and not never.stopped_B.any()
  assert (never.tokens_BR == 0).all()


def test_a_response_keeps_its_stop_token_and_nothing_after_it(answer):
  live = np.arange(12) % 4 > 0
  response = jax.device_get(answer(3, 1.0, live))
  assert response.steps == response.lengths_B.max()
  assert len(set(response.lengths_B[live].tolist())) > 1
  for row in range(12):
    length, tokens = response.lengths_B[row], response.tokens_BR[row]
    assert (tokens[length:] == 8).all() and not response.logprobs_BR[row, length:].any()
    if not live[row]:
      assert length == 0
      continue
    assert (tokens[: length - 1] != 3).all()
    assert (tokens[length - 1] == 3) == response.stopped_B[row] or length == 0
    np.testing.assert_allclose(response.logprobs_BR[row, :length], -np.log(9), atol=1e-6)
  spoken = response.tokens_BR[live]
  assert len(np.unique(spoken[:, 0])) > 2 and (spoken[:, 0] != spoken[:, 1]).any()   # keys differ by row and by token


def test_any_of_several_ids_ends_a_response(answer):
  response = jax.device_get(answer((3, 5), 1.0))
  last = response.tokens_BR[np.arange(12), response.lengths_B - 1]
  np.testing.assert_array_equal(np.isin(last, (3, 5)), response.stopped_B)
  assert {3, 5} <= set(last.tolist())
  for row in range(12):
    assert not np.isin(response.tokens_BR[row, : response.lengths_B[row] - 1], (3, 5)).any()


def test_a_response_in_segments_is_the_whole_response(model, decoding):
  """Whatever the first segment, and with rows that ended in it and rows that never lived."""
  rows, longest, live = 12, 6, np.arange(12) % 4 > 0
  tokens, end = np.ones((rows, 2), np.int32), ResponseEnd((4, 5, 6), 8)
  numbers, key, after = np.arange(rows, dtype=np.uint32), jax.random.key(0), np.full(rows, 2, np.int32)
  turn = TurnInputs(Inputs(tokens, np.tile(np.arange(2, dtype=np.int32), (rows, 1)), tokens), after, live, numbers, key,
                    np.int32(3), np.float32(1.5))
  begin = jax.jit(lambda longest: respond(model, Sampling(longest), end, decoding,
                                          caches.empty(model.config, rows, 9), turn), static_argnums=0)
  whole = begin(longest)[1]
  assert len({*whole.lengths_B[live].tolist()}) > 3
  for first in (1, 2, 4):
    cache, start = begin(first)
    segment = SegmentInputs(start.tokens_BR[:, -1], after + first, live & ~start.stopped_B, numbers, key, np.int32(3),
                            np.float32(1.5), np.int32(first), np.int32(longest - first))
    _, rest = jax.jit(lambda cache, segment: go_on(model, Sampling(9), end, decoding, cache, segment))(
        cache, segment)
    together = np.concatenate([start.tokens_BR, rest.tokens_BR[:, : longest - first]], axis=1)
    np.testing.assert_array_equal(together, whole.tokens_BR)
    np.testing.assert_array_equal(start.lengths_B + rest.lengths_B, whole.lengths_B)
    np.testing.assert_array_equal(rest.stopped_B, whole.stopped_B | (rest.lengths_B == 0))
    logprobs = np.concatenate([start.logprobs_BR, rest.logprobs_BR[:, : longest - first]], axis=1)
    np.testing.assert_allclose(logprobs, whole.logprobs_BR, atol=1e-6)
    assert (rest.tokens_BR[:, longest - first :] == 8).all()
