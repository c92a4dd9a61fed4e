"""Idefics3 and SmolVLM say what transformers says: with no, one and two pictures, padded, cached, and exported."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sftrl_jax import inputs
from sftrl_jax.checkpoints import hf
from sftrl_jax.models import cache, lora
from sftrl_jax.models.vision.idefics3 import Idefics3Config, pixel_shuffle

IMAGE, TOKENS, SIDE = 40, 4, 18   # a tile has 4 x 4 patches of 4 pixels, 2 pixels are left over; 2 x 2 features
LENGTH, STEPS = 22, 4


@pytest.fixture(scope="module")
def smolvlm(by_torch, text_fields):
  """SmolVLM with weights of transformers, and the logits that it gives to three rows of no, one and two pictures."""
  transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
  vision = dict(hidden_size=24, intermediate_size=28, num_hidden_layers=2, num_attention_heads=3, image_size=SIDE,
                patch_size=4)
  config = transformers.SmolVLMConfig(
      text_config={"model_type": "llama", **text_fields}, vision_config=vision, image_token_id=IMAGE, scale_factor=2,
      pad_token_id=0, attn_implementation="eager")
  case = by_torch(transformers.SmolVLMForConditionalGeneration(config))
  case.batch, case.images = rows()
  case.expected = torch_logits(torch, case.torch, case.batch, case.images)
  return case


def rows():
  """(right-padded rows with no, one and two pictures, pictures in their places)."""
  random = np.random.default_rng(0)
  text = lambda length: random.integers(3, IMAGE, length).tolist()
  picture = [IMAGE] * TOKENS
  sequences = [text(9), [*text(3), *picture, *text(5)], [*picture, *text(4), *picture, *text(6)]]
  images = np.zeros((3, 2, SIDE, SIDE, 3), np.uint8)
  images[1, 0], images[2] = random.integers(0, 256, (SIDE, SIDE, 3)), random.integers(0, 256, (2, SIDE, SIDE, 3))
  return inputs.right_pad(sequences, LENGTH), images


def torch_logits(torch, model, batch, images):
  pixels = (images.astype(np.float32) / 255 - 0.5) / 0.5
  pixels[0], pixels[1, 1] = 0.0, 0.0   # what transformers leaves out
  ids, mask = (torch.from_numpy(x).long() for x in (batch.tokens_BT, batch.segments_BT))
  with torch.no_grad():
    return model(input_ids=ids, attention_mask=mask,
                 pixel_values=torch.from_numpy(pixels.transpose(0, 1, 4, 2, 3))).logits.numpy()


def close(ours, theirs, segments_BT, tolerance=1e-4):
  """Equal wherever there is a token, but for the id of placeholders, which ours never says."""
  there = np.asarray(segments_BT) > 0
  ours, theirs = (np.delete(np.asarray(x)[there], IMAGE, axis=-1) for x in (ours, theirs))
  assert theirs.std() > 0.5   # a silent model would agree with anything
  np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=0)


def test_padded_rows_have_torchs_logits(smolvlm):
  batch = smolvlm.batch
  logits = smolvlm.logits(smolvlm.params, batch.tokens_BT, batch.positions_BT, batch.segments_BT, smolvlm.images)
  close(logits, smolvlm.expected, batch.segments_BT)
  assert np.all(np.asarray(logits)[..., IMAGE] < -1e8)


def test_a_row_without_pictures_is_the_text_models(smolvlm):
  batch = smolvlm.batch
  text = smolvlm.logits(smolvlm.params, batch.tokens_BT[:1], batch.positions_BT[:1], batch.segments_BT[:1])
  close(text, smolvlm.expected[:1], batch.segments_BT[:1])


def test_decoding_over_a_cache_has_torchs_logits(smolvlm):
  """Prompts are left-padded and read with their pictures; tokens that follow are read one by one without any."""
  lengths = smolvlm.batch.segments_BT.sum(axis=1)
  sequences = [row[:length].tolist() for row, length in zip(smolvlm.batch.tokens_BT, lengths, strict=True)]
  longest = max(lengths) - STEPS
  prompt = inputs.left_pad([row[:-STEPS] for row in sequences], longest).replace(images_BIYXC=smolvlm.images)
  model, decoding = smolvlm.model, smolvlm.decoding
  hidden, past = jax.jit(model.prefill)(decoding, cache.empty(model.config, 3, longest + STEPS), prompt)
  found = [model.unembed(decoding, hidden[:, -1])]
  extend = jax.jit(model.extend)
  for step in range(STEPS - 1):
    place = np.asarray([len(row) - STEPS + step for row in sequences], np.int32)[:, None]
    token = np.asarray([row[-STEPS + step] for row in sequences], np.int32)[:, None]
    hidden, past = extend(decoding, past, inputs.Inputs(token, place, np.ones((3, 1), np.int32)))
    found.append(model.unembed(decoding, hidden[:, 0]))
  theirs = np.stack([smolvlm.expected[row, length - STEPS - 1 : length - 1] for row, length in enumerate(lengths)])
  close(np.stack(found, axis=1), theirs, np.ones(theirs.shape[:2]))


def test_another_picture_changes_what_follows_and_reaches_the_whole_tower(smolvlm):
  batch, images = smolvlm.batch, smolvlm.images.copy()
  images[2, 1] = 255 - images[2, 1]
  arguments = batch.tokens_BT, batch.positions_BT, batch.segments_BT
  changed = np.asarray(smolvlm.logits(smolvlm.params, *arguments, images)) != np.asarray(
      smolvlm.logits(smolvlm.params, *arguments, smolvlm.images))
  assert not changed[:2].any() and not changed[2, : TOKENS + 4].any() and changed[2, TOKENS + 4 : LENGTH - 4].any()

  def loss(vision, tokens, images):
    logits = smolvlm.model.logits({**smolvlm.params, "vision": vision}, tokens, images=images)
    return jnp.sum(jnp.square(logits[..., 0]))

  gradient = jax.jit(jax.grad(loss))(smolvlm.params["vision"], batch.tokens_BT[1:], smolvlm.images[1:])
  assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_an_export_opens_in_transformers_with_equal_logits(smolvlm, tmp_path):
  import torch
  import transformers

  hf.save(tmp_path / "export", smolvlm.config, smolvlm.params)
  model, report = transformers.AutoModelForImageTextToText.from_pretrained(
      tmp_path / "export", attn_implementation="eager", output_loading_info=True)
  assert type(model).__name__ == "SmolVLMForConditionalGeneration"
  assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
  np.testing.assert_array_equal(torch_logits(torch, model.eval(), smolvlm.batch, smolvlm.images), smolvlm.expected)
  assert hf.describe(tmp_path / "export") == smolvlm.config
  picture = np.random.default_rng(1).integers(0, 256, (31, 50, 3)).astype(np.uint8)
  processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "export")
  pixels = processor(Image.fromarray(picture), return_tensors="np")["pixel_values"][0].transpose(0, 2, 3, 1)
  np.testing.assert_allclose((smolvlm.config.processor().tiles(picture) / 255 - 0.5) / 0.5, pixels, atol=1e-5)


def test_adapters_of_the_tower_and_the_connector_are_exported_merged(smolvlm, adapted, tmp_path):
  """transformers gives of the export the logits that adapters give beside their kernels."""
  import torch
  import transformers

  _, loud, there = adapted(smolvlm.params, "vision/*", "*attn/q")
  assert {"vision/connector/proj", "vision/tower/layers/block/mlp/up", "layers/block/attn/q"} < there
  batch = smolvlm.batch
  ours = smolvlm.logits(loud, batch.tokens_BT, batch.positions_BT, batch.segments_BT, smolvlm.images)
  assert np.abs(np.asarray(ours)[..., :IMAGE] - smolvlm.expected[..., :IMAGE]).max() > 0.1
  hf.save(tmp_path / "export", smolvlm.config, jax.device_get(jax.jit(lora.merge)(loud)))
  model = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "export", attn_implementation="eager")
  close(ours, torch_logits(torch, model.eval(), batch, smolvlm.images), batch.segments_BT)


def test_pixel_shuffle_joins_neighbours_row_by_row():
  places = np.arange(16).reshape(1, 16, 1)
  np.testing.assert_array_equal(pixel_shuffle(places, (4, 4), 2)[0],
                                [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]])


@pytest.mark.parametrize(("change", "name"), [
    (dict(image_width=32), "image_width"), (dict(shuffle=3), "shuffle"), (dict(layout="llava"), "layout"),
    (dict(image_resample="box"), "image_resample"), (dict(image_longest=-1), "image_longest")])
def test_a_config_that_cannot_be_is_refused_by_name(change, name):
  with pytest.raises(ValueError, match=name):
    dataclasses.replace(Idefics3Config(vocab=48, image_id=IMAGE), **change)


def test_flops_are_those_of_the_matmuls():
  """Of one block over one patch, by hand; and everything grows with the layers."""
  config = Idefics3Config(vocab=48, image_id=IMAGE, tower_layers=1)
  deeper = dataclasses.replace(config, tower_layers=3)
  patches, width, mlp = 16, config.tower_width, config.tower_mlp_dim
  block = 2 * patches * (4 * width**2 + 2 * width * mlp + 2 * patches * width)
  assert deeper.tower_flops() - config.tower_flops() == 2 * block
