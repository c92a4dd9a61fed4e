"""Llama-3.2-Vision says what transformers says: with no, one and two pictures, padded, cached, packed, exported.

transformers lets text before the first picture attend to it, see mllama/spans.py; where that text is, transformers is
made to leave it out.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sftrl_jax import inputs, models
from sftrl_jax.checkpoints import hf
from sftrl_jax.models import cache, lora
from sftrl_jax.pictures.processors.mllama import MllamaProcessor, shapes

VOCAB, IMAGE, TILE, TILES = 48, 48, 10, 4   # a tile has 2 x 2 patches of 4 pixels, and 2 pixels are left over
STEPS, PROMPT, LENGTH = 3, 10, 20


@pytest.fixture(scope="module")
def mllama(by_torch, text_fields):
  """The model with weights of transformers, rows with their pictures, and transformers' logits of each row alone."""
  transformers = pytest.importorskip("transformers")
  config = transformers.MllamaConfig(
      text_config={**text_fields, "num_hidden_layers": 4, "cross_attention_layers": [1, 3],
                   "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
      vision_config=dict(hidden_size=16, num_hidden_layers=3, num_global_layers=1, attention_heads=2,
                         intermediate_size=24, vision_output_dim=48, image_size=TILE, patch_size=4,
                         intermediate_layers_indices=[0, 2]),
      image_token_index=IMAGE, attn_implementation="eager")
  case = by_torch(transformers.MllamaForConditionalGeneration(config))
  leave_out_text_before_pictures(case.torch)
  case.model = models.build(dataclasses.replace(case.config, images=2))
  case.logits, case.decoding = jax.jit(case.model.logits), jax.jit(case.model.decoding)(case.params)
  case.prefill, case.extend = jax.jit(case.model.prefill), jax.jit(case.model.extend)
  case.left = lambda rows, shown: inputs.left_pad(rows, PROMPT).replace(images_BIYXC=np.stack(list(map(read, shown))))
  case.rows = rows()
  case.expected = [torch_logits(case.torch, ids, pictures) for ids, pictures in case.rows]
  return case


def leave_out_text_before_pictures(model):
  """Multiplies what cross-attention adds by transformers' own mask of rows, as Meta's code does."""
  for layer in model.model.language_model.layers:
    if hasattr(layer, "cross_attn"):
      masks = []
      layer.register_forward_pre_hook(
          lambda module, args, kwargs, masks=masks: masks.append(kwargs["full_text_row_masked_out_mask"]),
          with_kwargs=True)
      layer.cross_attn.register_forward_hook(
          lambda module, args, out, masks=masks: (out[0] * masks[-1][:, 0], *out[1:]))


def rows():
  """[(ids, pictures)] with no, one, two adjacent, two parted pictures, and text before one and two."""
  random = np.random.default_rng(0)
  text = lambda length: random.integers(3, VOCAB, length).tolist()
  draw = lambda height, width: random.integers(0, 256, (height, width, 3)).astype(np.uint8)
  one = [IMAGE]
  return [(text(9), []), ([*one, *text(8)], [draw(9, 30)]), ([*one, *one, *text(6)], [draw(20, 20), draw(40, 9)]),
          ([*one, *text(4), *one, *text(5)], [draw(3, 4), draw(25, 11)]), ([*text(4), *one, *text(5)], [draw(12, 12)]),
          ([*text(2), *one, *text(1), *one, *text(5)], [draw(9, 30), draw(10, 10)])]


def read(pictures, most=2):
  """images_IYXC of a row."""
  processor, images = MllamaProcessor(TILE, TILES, "bilinear"), np.zeros((most, TILES * TILE + 1, TILE, 3), np.uint8)
  for place, picture in enumerate(pictures):
    images[place] = processor.tiles(picture)[0]
  return images


def torch_logits(model, ids, pictures):
  import torch
  from transformers.models.mllama import processing_mllama

  row = torch.from_numpy(np.asarray([ids]))
  if not pictures:
    with torch.no_grad():
      return model(input_ids=row).logits[0].numpy()
  images = read(pictures, len(pictures))
  kinds = images[:, -1, 0, 0].astype(np.int64)
  counts = [int(np.prod(shapes(TILES)[kind - 1])) for kind in kinds]
  pixels = (images[:, :-1].reshape(len(pictures), TILES, TILE, TILE, 3).astype(np.float32) / 255 - 0.5) / 0.5
  there = np.arange(TILES)[None, :] < np.asarray(counts)[:, None]
  pixels = np.where(there[..., None, None, None], pixels, 0).transpose(0, 1, 4, 2, 3)
  spans = processing_mllama.get_cross_attention_token_mask(ids, IMAGE)
  mask = processing_mllama.convert_sparse_cross_attention_mask_to_dense([spans], [counts], TILES, len(ids))
  with torch.no_grad():
    return model(input_ids=row, pixel_values=torch.from_numpy(pixels[None]),
                 aspect_ratio_ids=torch.from_numpy(kinds[None]),
                 aspect_ratio_mask=torch.from_numpy(there[None].astype(np.int64)),
                 cross_attention_mask=torch.from_numpy(mask)).logits[0].numpy()


def close(ours, theirs, tolerance=1e-4):
  assert theirs.std() > 0.5   # a silent model would agree with anything
  np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=0)


def batch_of(mllama, changes=()):
  """(rows right-padded to LENGTH, their pictures); changes: {row: (ids, pictures)}"""
  rows = [dict(changes).get(row, pair) for row, pair in enumerate(mllama.rows)]
  return (inputs.right_pad([ids for ids, _ in rows], LENGTH), np.stack([read(pictures) for _, pictures in rows]))


def logits_of(mllama, batch, images):
  return np.asarray(mllama.logits(mllama.params, batch.tokens_BT, batch.positions_BT, batch.segments_BT, images))


def test_padded_rows_have_torchs_logits(mllama):
  logits = logits_of(mllama, *batch_of(mllama))
  assert logits.shape[-1] == VOCAB   # placeholders are read and never written
  for row, expected in enumerate(mllama.expected):
    close(logits[row, : len(expected)], expected)


def test_a_row_without_pictures_and_text_before_them_are_the_text_models(mllama):
  batch, images = batch_of(mllama)
  shown, text = (logits_of(mllama, batch, each) for each in (images, None))
  np.testing.assert_allclose(shown[0, :9], text[0, :9], atol=2e-6)
  np.testing.assert_allclose(shown[4, :4], text[4, :4], atol=2e-6)
  assert np.abs(shown[4, 4:10] - text[4, 4:10]).max() > 0.01
  other = images.copy()
  other[4, 0, :TILE] = 255 - other[4, 0, :TILE]
  changed = np.abs(logits_of(mllama, batch, other) - shown)
  assert not changed[4, :4].any() and changed[4, 4:10].max() > 1e-3 and not np.delete(changed, 4, axis=0).any()


def test_packed_rows_are_the_rows_apart(mllama):
  """Rows 1 and 4 share a row: the text before the second picture does not see the first."""
  (first, shown), (second, later) = mllama.rows[1], mllama.rows[4]
  _, images = batch_of(mllama, {0: ([], [*shown, *later])})
  packed = inputs.pack([first, second], [inputs.Slot(0, 0, 1), inputs.Slot(0, len(first), 2)], len(images), LENGTH)
  logits = logits_of(mllama, packed, images)[0]
  close(logits[: len(first)], mllama.expected[1])
  close(logits[len(first) : len(first) + len(second)], mllama.expected[4])


def test_decoding_over_a_cache_has_torchs_logits(mllama):
  """Left-padded prompts with their pictures; then tokens one by one, which read what the cache kept of them."""
  model, decoding = mllama.model, mllama.decoding
  prompts = [ids[:-STEPS] for ids, _ in mllama.rows]
  hidden, past = mllama.prefill(decoding, cache.empty(model.config, len(prompts), 2 * PROMPT), mllama.left(
      prompts, [shown for _, shown in mllama.rows]))
  logits = [model.unembed(decoding, hidden[:, -1])]
  for step in range(STEPS - 1):
    token = np.asarray([ids[-STEPS + step] for ids, _ in mllama.rows], np.int32)[:, None]
    place = np.asarray([len(row) + step for row in prompts], np.int32)[:, None]
    hidden, past = mllama.extend(decoding, past, inputs.Inputs(token, place, np.ones_like(token)))
    logits.append(model.unembed(decoding, hidden[:, 0]))
  for row, expected in enumerate(mllama.expected):
    close(np.stack(logits, axis=1)[row], expected[-STEPS - 1 : -1])


def test_pictures_of_a_later_turn_stand_behind_those_of_an_earlier_one(mllama):
  """Also of rows that were taken from the cache in another order, and where the second picture stands right behind the
  first, at the beginning of the turn."""
  model, decoding = mllama.model, mllama.decoding
  cuts, order = (3, 1, 1, 4, 2, 3), [2, 0, 3, 1, 5, 4]
  counts = [ids[:cut].count(IMAGE) for (ids, _), cut in zip(mllama.rows, cuts, strict=True)]
  heads = mllama.left([ids[:cut] for (ids, _), cut in zip(mllama.rows, cuts, strict=True)],
                      [shown[:count] for (_, shown), count in zip(mllama.rows, counts, strict=True)])
  _, past = mllama.prefill(decoding, cache.empty(model.config, len(order), 2 * PROMPT), heads)
  past = cache.take(past, jnp.asarray(order))
  rests = [mllama.rows[row][0][cuts[row]:] for row in order]
  tails = mllama.left(rests, [mllama.rows[row][1][counts[row]:] for row in order])
  begun = np.asarray([cuts[row] for row in order])[:, None]
  tails = tails.replace(positions_BT=np.where(tails.segments_BT > 0, tails.positions_BT + begun, 0).astype(np.int32))
  hidden, _ = mllama.extend(decoding, past, tails)
  logits = np.asarray(model.unembed(decoding, hidden))
  for place, (row, rest) in enumerate(zip(order, rests, strict=True)):
    close(logits[place, -len(rest):], mllama.expected[row][-len(rest):])


def test_gradients_are_finite_where_a_row_has_no_picture_and_reach_every_part(mllama):
  batch, images = batch_of(mllama)

  def loss(params, row):
    part = lambda x: x[row : row + 2]
    logits = mllama.model.logits(params, *map(part, (batch.tokens_BT, batch.positions_BT, batch.segments_BT, images)))
    return jnp.sum(jnp.square(logits[..., 0]) * part(batch.segments_BT))

  gradient = jax.jit(jax.grad(loss), static_argnums=1)(mllama.params, 0)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
  assert all(np.any(leaf) for leaf in jax.tree.leaves({**gradient, "embed": 1}))


def test_an_export_opens_in_transformers_with_equal_logits(mllama, tmp_path):
  import transformers

  hf.save(tmp_path / "export", mllama.config, mllama.params)
  model, report = transformers.AutoModelForImageTextToText.from_pretrained(
      tmp_path / "export", attn_implementation="eager", output_loading_info=True)
  assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
  leave_out_text_before_pictures(model.eval())
  for (ids, pictures), expected in zip(mllama.rows, mllama.expected, strict=True):
    np.testing.assert_array_equal(torch_logits(model, ids, pictures), expected)
  assert hf.describe(tmp_path / "export") == mllama.config
  picture = np.random.default_rng(1).integers(0, 256, (9, 25, 3)).astype(np.uint8)
  processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "export")
  pixels = processor(Image.fromarray(picture), return_tensors="np")["pixel_values"][0, 0].transpose(0, 2, 3, 1)
  tiles = mllama.config.processor().tiles(picture)[0, :-1].reshape(TILES, TILE, TILE, 3)[:3]
  np.testing.assert_allclose((tiles / 255 - 0.5) / 0.5, pixels[:3], atol=1e-5)


def test_adapters_of_every_stack_can_be_merged(mllama, adapted):
  """Of the decoder's two kinds of blocks, of both parts of the tower, and of the connector."""
  _, loud, there = adapted(mllama.params, "*attn/q", "cross_layers/*attn/k", "vision/*")
  assert {"layers/block/attn/q", "cross_layers/block/attn/k", "vision/connector/proj",
          "vision/tower/layers/block/attn/o", "vision/tower/global_layers/block/mlp/up"} < there
  batch, images = batch_of(mllama)
  of = lambda params: np.asarray(mllama.logits(params, batch.tokens_BT, batch.positions_BT, batch.segments_BT, images))
  ours, merged = of(loud), jax.jit(lora.merge)(loud)
  np.testing.assert_allclose(of(merged), ours, atol=2e-5)
  assert np.abs(ours - of(mllama.params)).max(axis=(1, 2)).min() > 0.1
  decoding = jax.jit(mllama.model.decoding)
  jax.tree.map(np.testing.assert_array_equal, decoding(loud), decoding(merged))
