"""In exact mode what decodes and what reads whole rows agree to the bit, and with the ordinary decoder to rounding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import inputs, models
from sftrl_jax.models import DecoderConfig, cache, exactly
from sftrl_jax.training.score import make_score

TEMPERATURE, PROMPT, ROOM = 0.7, 40, 80
LENGTHS = (50, 61, 37, 44)   # of rows: both sides of a block of keys
STEPS = 12


@pytest.fixture(scope="module")
def rows():
  """(right-padded rows, their targets, the prompt of each)."""
  random = np.random.default_rng(0)
  ids = [random.integers(0, 24, length).tolist() for length in LENGTHS]
  targets = np.zeros((len(ids), max(LENGTHS)), np.int32)
  for row, items in enumerate(ids):
    targets[row, : len(items) - 1] = items[1:]
  prompts = [items[: length - STEPS - 1] for items, length in zip(ids, (40, 52, 37, 30), strict=True)]
  return ids, inputs.right_pad(ids, max(LENGTHS)), targets, prompts


def scored(model, params, batch, targets):
  """(logprobs_BT, gradients of their sum), by one program, whose arguments all arrays are."""
  score = make_score(model, TEMPERATURE)

  def total(params, batch, targets):
    logprobs_BT = score({"model": params}, batch, targets).logprobs_BT
    return jnp.sum(jnp.where(batch.segments_BT > 0, logprobs_BT, 0.0)), logprobs_BT

  gradients, logprobs_BT = jax.jit(jax.grad(total, has_aux=True))(params, batch, targets)
  return np.asarray(logprobs_BT), gradients


def decoded(model, params, ids, prompts):
  """{(row, place): log-probabilities of the next token}: left-padded prompts, then a token at a time, while the cache
  grows and all rows but one leave."""

  def read(decoding, past, batch):
    hidden, past = model.extend(decoding, past, batch)
    return model.readout.exact_log_softmax(model.unembed(decoding, hidden), TEMPERATURE), past

  decoding, read = model.decoding(params), jax.jit(read)
  past = cache.empty(model.config, len(ids), model.columns(PROMPT))
  logs, past = read(decoding, past, inputs.left_pad(prompts, PROMPT))
  entries = {(row, place): np.asarray(logs)[row, PROMPT - len(prompt) + place]
             for row, prompt in enumerate(prompts) for place in range(len(prompt))}
  past, there = cache.grow(past, model.columns(ROOM)), [0, 1, 2, 3]
  for step in range(STEPS):
    if step == STEPS // 2:
      past, there = cache.take(past, jnp.asarray([1])), [1]
    places = [len(prompts[row]) + step for row in there]
    tokens, positions = ([[ids[row][place]] for row, place in zip(there, places, strict=True)],
                         [[place] for place in places])
    batch = inputs.Inputs(*(np.asarray(x, np.int32) for x in (tokens, positions, [[1]] * len(there))))
    logs, past = read(decoding, past, batch)
    entries |= {pair: np.asarray(logs)[index, 0] for index, pair in enumerate(zip(there, places, strict=True))}
  return entries


def test_decoding_has_the_bits_of_whole_rows_and_gradients_are_the_ordinary_ones(born_of, kinds, rows):
  ordinary = born_of(**{**dataclasses.asdict(kinds["everything"]), "layers": 2})
  model, params = exactly(ordinary.model, "cpu", 1, "", ROOM), ordinary.params
  ids, batch, targets, prompts = rows
  ours, gradients = scored(model, params, batch, targets)
  entries = decoded(model, params, ids, prompts)
  pairs = [(row, place) for row, place in entries if place + 1 < len(ids[row])]
  logs = [entries[row, place][ids[row][place + 1]] for row, place in pairs]
  assert len(pairs) > 100
  np.testing.assert_array_equal(ours[tuple(np.transpose(pairs))], np.asarray(logs))
  theirs, wanted = scored(ordinary.model, params, batch, targets)
  np.testing.assert_allclose(ours[batch.segments_BT > 0], theirs[batch.segments_BT > 0], atol=1e-3)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3 * np.abs(b).max()), gradients, wanted)


class Another(models.Model):
  def extend(self, decoding_params, past, inputs):
    return super().extend(decoding_params, past, inputs)


@pytest.mark.parametrize("change, message", [
    (dict(platform="gpu"), "was measured on cpu alone, but the devices are of kind gpu.*JAX_PLATFORMS=cpu"),
    (dict(devices=8), "is for one device, but config.mesh splits the batch over 8"),
    (dict(decoding_dtype="bfloat16"), "needs one dtype, but config.rollout.dtype is 'bfloat16' and config.model.dtype "
     "'float32'"),
    (dict(longest=9000), "has rotary tables of 8192 positions, but rows or caches have 9000 tokens"),
    (dict(model=Another(DecoderConfig(vocab=24))), "needs our own decoder, but Another of .* has another extend")])
def test_what_would_not_agree_is_refused_with_its_key_and_a_way_out(change, message):
  fine = dict(model=models.build(DecoderConfig(vocab=24)), platform="cpu", devices=1, decoding_dtype="", longest=ROOM)
  assert exactly(**fine).exact
  with pytest.raises(ValueError, match=f"config.compute.exact is True, which {message}.*--config.compute.exact=False"):
    exactly(**{**fine, **change})
