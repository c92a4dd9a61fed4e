"""One model, many layouts: pictures say the same cached, packed, padded and beside rows of text."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import inputs, models, trees
from sftrl_jax.inputs import Inputs, Slot
from sftrl_jax.models import cache, lora
from sftrl_jax.models.vision.model import places, splice
from sftrl_jax.objectives.logprobs import logprobs
from sftrl_jax.readout import PLAIN
from sftrl_jax.rollout.sample import ResponseEnd, Sampling, TurnInputs, respond

LENGTH = 12


def full(vision, batch):
  return np.asarray(vision.logits(vision.params, *jax.tree.leaves(batch)))


def apart(vision, shown, with_images):
  """logits of right-padded rows, one a row of the batch."""
  batch = inputs.right_pad([row.ids for row in shown], LENGTH)
  return full(vision, with_images(batch, [row.pictures for row in shown]))


def test_decoding_over_a_cache_is_the_full_forward_pass(vision, shown, with_images, same):
  """Prompts with 0, 1 and 2 pictures are read at once, later tokens one by one without the tower."""
  want = apart(vision, shown, with_images)
  prompts = [row.ids[:-2] for row in shown]
  batch = with_images(inputs.left_pad(prompts, 8), [row.pictures for row in shown])
  for read in (vision.prefill, vision.extend):
    hidden, past = read(cache.empty(vision.model.config, len(shown), LENGTH), batch)
    for step in range(2):
      got = np.asarray(vision.model.unembed(vision.params, hidden[:, -1]))
      for row, prompt in enumerate(prompts):
        same(got[row], want[row, len(prompt) - 1 + step])
      tokens, positions = (np.asarray(x, np.int32)[:, None] for x in (
          [row.ids[step - 2] for row in shown], [len(prompt) + step for prompt in prompts]))
      hidden, past = vision.extend(past, Inputs(tokens, positions, np.ones_like(tokens)))


def test_packed_rows_say_what_separate_rows_say(vision, shown, with_images, same):
  """Two sequences with a picture each, and text between them, share a row whose pictures are in their order."""
  want, text, pictured = apart(vision, shown, with_images), shown[0], shown[1]
  slots = [Slot(0, 0, 1), Slot(0, 6, 2), Slot(1, 0, 1)]
  rows = [pictured, dataclasses.replace(pictured, pictures=shown[2].pictures[:1]), text]
  batch = inputs.pack([row.ids for row in rows], slots, 2, LENGTH)
  got = full(vision, with_images(batch, [[*rows[0].pictures, *rows[1].pictures], []]))
  same(got[0, :6], want[1, :6])
  same(got[1, :5], want[0, :5])
  alone = full(vision, with_images(inputs.right_pad([rows[1].ids] * 3, LENGTH), [rows[1].pictures] * 3))
  same(got[0, 6:12], alone[0, :6])


def test_a_row_of_text_beside_pictures_is_that_of_the_text_model(vision, text, shown, with_images, same):
  model, params = text
  batch = inputs.right_pad([row.ids for row in shown], LENGTH)
  want = np.array(model.logits(params, batch.tokens_BT[:1], batch.positions_BT[:1], batch.segments_BT[:1]))
  got = apart(vision, shown, with_images)[:1]
  barred = vision.model.config.image_id
  assert (got[..., barred] == -1e9).all() and (want[..., barred] > -1e9).all()
  same(np.delete(got, barred, -1)[:, :5], np.delete(want, barred, -1)[:, :5])


def test_what_is_seen_matters_and_only_behind_it(vision, shown, with_images):
  """Features are causal: another second picture changes nothing before it."""
  batch = inputs.right_pad([row.ids for row in shown], LENGTH)
  swapped = [shown[0].pictures, shown[1].pictures, [shown[2].pictures[0], shown[1].pictures[0]]]
  one, two = apart(vision, shown, with_images), full(vision, with_images(batch, swapped))
  np.testing.assert_array_equal(one[:2], two[:2])
  np.testing.assert_allclose(one[2, :4], two[2, :4], atol=1e-5)
  assert np.abs(one[2, 4:8] - two[2, 4:8]).max() > 1e-2


def test_gradients_reach_the_tower_through_pictures_alone(vision, shown, with_images):
  batch = inputs.right_pad([row.ids for row in shown], LENGTH)

  @jax.jit
  def gradient(params, batch):
    return jax.grad(lambda p: jnp.sum(jnp.square(vision.model.hidden(p, batch)) * batch.segments_BT[..., None]))(params)

  with_pictures = gradient(vision.params, with_images(batch, [row.pictures for row in shown]))
  norms = {path: float(jnp.linalg.norm(leaf)) for path, leaf in trees.leaves(with_pictures["vision"]).items()}
  assert all(0 < norm < np.inf for norm in norms.values()), norms
  texts = with_images(inputs.right_pad([shown[0].ids] * 3, LENGTH), [[]] * 3)
  assert not any(float(jnp.abs(leaf).max()) for leaf in trees.leaves(gradient(vision.params, texts)["vision"]).values())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_id_of_pictures_is_never_sampled(vision, shown, with_images, temperature):
  """Even a head that prefers it by far gives it no probability, in sampling and in training alike."""
  image_id, model = vision.model.config.image_id, vision.model
  biased = {**vision.decoding, "unembed": vision.decoding["unembed"].at[:, image_id].set(50.0)}
  biased["final_norm"] = {"scale": jnp.abs(vision.decoding["final_norm"]["scale"])}
  batch = with_images(inputs.left_pad([row.ids for row in shown], 8), [row.pictures for row in shown])
  rows = len(shown)
  turn = TurnInputs(batch, jnp.asarray([len(row.ids) for row in shown], jnp.int32), jnp.ones(rows, bool),
                    jnp.arange(rows, dtype=jnp.uint32), jax.random.key(0), jnp.int32(0), jnp.float32(temperature))
  sample = jax.jit(lambda params, past, turn: respond(model, Sampling(50), ResponseEnd((0,), 0), params, past, turn))
  _, sampled = sample(biased, cache.empty(model.config, rows, 60), turn)
  assert int(sampled.count) > 0 and not (np.asarray(sampled.tokens_BR) == image_id).any()
  hidden_BTD = jax.random.normal(jax.random.key(1), (1, 4, 16))
  score = lambda kernel_DV, readout: logprobs(hidden_BTD, kernel_DV, jnp.asarray([[1, 2, 3, 4]]), readout=readout)[0]
  others = jnp.delete(biased["unembed"], image_id, axis=1)
  np.testing.assert_allclose(score(biased["unembed"], model.readout), score(others, PLAIN), rtol=1e-5)


def test_the_kth_placeholder_of_a_row_takes_the_kth_feature():
  tokens_BT = jnp.asarray([[9, 1, 9, 9], [1, 1, 9, 1], [1, 1, 1, 1]])
  places_BT = places(tokens_BT, 9)
  np.testing.assert_array_equal(places_BT, [[1, 0, 2, 3], [0, 0, 1, 0], [0, 0, 0, 0]])
  features_BFD, x_BTD = jnp.arange(12.0).reshape(3, 4, 1) + 100, jnp.zeros((3, 4, 1))
  got = splice(features_BFD, places_BT, x_BTD)[..., 0]
  np.testing.assert_array_equal(got, [[100, 0, 101, 102], [0, 0, 104, 0], [0, 0, 0, 0]])


def test_a_model_of_text_refuses_pictures(text, shown, with_images):
  model, params = text
  batch = with_images(inputs.right_pad([shown[0].ids], LENGTH), [[]])
  with pytest.raises(ValueError, match="DecoderConfig of config.model.name reads text only"):
    model.hidden(params, batch)
  with pytest.raises(ValueError, match="reads text only"):
    model.logits(params, batch.tokens_BT, images=batch.images_BIYXC)


def test_what_agrees_to_the_bit_is_our_decoder_without_pictures(vision):
  with pytest.raises(ValueError, match="VisionModel|TinyVision"):
    models.exactly(vision.model, "cpu", 1, "", 32)


@pytest.mark.parametrize("targets, paths", [
    (("vision/*",), {*(f"tower/conv/{number}" for number in range(3)), "connector/up", "connector/down"}),
    (("vision/connector/d*",), {"connector/down"})])
def test_adapters_reach_the_tower_and_the_connector_where_they_are_named(vision, shown, with_images, same, adapted,
                                                                          targets, paths):
  """They add nothing at first, and merged ones say what they say beside their kernels; gradients reach all of them."""
  batch = jax.tree.leaves(with_images(inputs.right_pad([row.ids for row in shown], LENGTH),
                                      [row.pictures for row in shown]))
  born, loud, there = adapted(vision.params, *targets)
  assert there == {f"vision/{path}" for path in paths}
  base = vision.logits(vision.params, *batch)
  np.testing.assert_array_equal(vision.logits(born, *batch), base)
  of_loud, merged = vision.logits(loud, *batch), jax.jit(lora.merge)(loud)
  assert jax.tree.structure(merged) == jax.tree.structure(vision.params)
  same(vision.logits(merged, *batch), of_loud, 1e-5)
  changed = np.abs(of_loud - base).max(axis=(1, 2))
  assert changed[0] == 0 and changed[1:].min() > 1e-2   # the first row has no picture
  decoding = jax.jit(vision.model.decoding)
  jax.tree.map(np.testing.assert_array_equal, decoding(loud), decoding(merged))
  gradient = jax.jit(jax.grad(lambda tree: jnp.sum(jnp.square(vision.model.logits(tree, *batch)[..., 0]))))(loud)
  factors = {path: leaf for path, leaf in trees.leaves(gradient).items() if path.endswith(("/a", "/b"))}
  assert len(factors) == 2 * len(paths) and all(np.isfinite(leaf).all() and leaf.any() for leaf in factors.values())


def test_adapters_of_the_decoder_leave_alone_what_reads_pictures(vision):
  there = lora.chosen(lora.LoraConfig(rank=2), vision.params)
  assert there and all(path.startswith("layers/block/") for path in there)
  assert not lora.reads_pictures(lora.LoraConfig(rank=2), vision.params)
  assert lora.reads_pictures(lora.LoraConfig(rank=2, targets=("vision/tower/*", "*attn/q")), vision.params)
