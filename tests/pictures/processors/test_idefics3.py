"""Tiles and placeholders are those of transformers' processor with Pillow."""

import numpy as np
import pytest
from PIL import Image

from sftrl_jax.pictures.processors.idefics3 import AROUND, PLACEHOLDER, WHOLE, Idefics3Processor
from sftrl_jax.text.images import expanded

SIZES = [(1, 1), (386, 386), (512, 2048), (640, 333), (40, 30), (31, 400)]
TILE, LONGEST, TOKENS = 48, 192, 4


def picture(height, width):
  return np.random.default_rng(height * width).integers(0, 256, (height, width, 3)).astype(np.uint8)


def theirs(splitting, **more):
  """transformers' image processor."""
  module = pytest.importorskip("transformers.models.idefics3.image_processing_pil_idefics3")
  return module.Idefics3ImageProcessorPil(size={"longest_edge": LONGEST}, max_image_size={"longest_edge": TILE},
                                          do_image_splitting=splitting, **more)


@pytest.mark.parametrize("splitting", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_tiles_are_transformers(size, splitting):
  ours = Idefics3Processor(TILE, LONGEST, splitting, "lanczos", TOKENS)
  # transformers takes an array of 1 x 1 pixels for one of three rows; Pillow's pictures are not ambiguous.
  expected = theirs(splitting)(Image.fromarray(picture(*size)), return_tensors="np", return_row_col_info=True)
  tiles = ours.tiles(picture(*size))
  assert tiles.dtype == np.uint8
  normalised = ((tiles.astype(np.float32) / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2)
  np.testing.assert_allclose(normalised, expected["pixel_values"][0], atol=1e-5)
  layout = ours.layout(*size)
  assert layout == (expected["rows"][0][0], expected["cols"][0][0]) and len(tiles) <= ours.most_tiles()
  assert len(tiles) == layout[0] * layout[1] + 1 and expected["pixel_attention_mask"].all()


@pytest.fixture(scope="module")
def processor():
  """(transformers' processor with a byte-level tokenizer that merges two line ends, its image processor apart)."""
  tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  vocab = {letter: number for number, letter in enumerate(alphabet)}
  line = "\u010a"   # a line end in the alphabet of bytes
  bpe = tokenizers.Tokenizer(tokenizers.models.BPE({**vocab, line + line: len(vocab)}, [(line, line)]))
  bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  bpe.decoder = tokenizers.decoders.ByteLevel()
  marks = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
  bpe.add_special_tokens([AROUND, PLACEHOLDER, WHOLE, "<end_of_utterance>", *marks])
  fast = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<end_of_utterance>")
  return lambda splitting: transformers.Idefics3Processor(theirs(splitting), fast, image_seq_len=TOKENS)


@pytest.mark.parametrize("splitting", [True, False])
def test_expanded_ids_are_transformers_and_expanding_again_changes_nothing(processor, splitting):
  ours, text = Idefics3Processor(TILE, LONGEST, splitting, "lanczos", TOKENS), "a\n<image>\nand <image><image>."
  pictures = [picture(640, 333), picture(31, 400), picture(1, 1)]
  transformers = processor(splitting)
  expected = transformers(images=[list(map(Image.fromarray, pictures))], text=[text])["input_ids"][0]
  tokenizer = transformers.tokenizer
  id_of = tokenizer.backend_tokenizer.token_to_id
  encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
  image_id = id_of(PLACEHOLDER)
  blocks = [ours.ids(*ours.layout(*each.shape[:2]), image_id, id_of, encode) for each in pictures]
  short = encode(text)
  ids, written = expanded(short, [True] * len(short), image_id, blocks)
  assert ids == expected and written.count(True) == len(short) - len(pictures)
  assert expanded(ids, written, image_id, blocks) == (ids, written)
  tiles = sum(len(ours.tiles(each)) for each in pictures)
  assert ids.count(image_id) == tiles * TOKENS


def test_a_tokenizer_without_a_mark_is_refused_with_its_name():
  ours = Idefics3Processor(TILE, LONGEST, True, "lanczos", TOKENS)
  with pytest.raises(ValueError, match="<row_1_col_1>"):
    ours.ids(2, 2, 2, {AROUND: 1}.get, lambda text: [3])
  assert ours.ids(2, 2, 7) == [7] * (5 * TOKENS)   # a tokenizer of our own knows no marks


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture_is_refused(wrong):
  with pytest.raises(ValueError, match="uint8"):
    Idefics3Processor(TILE, LONGEST, True, "lanczos", TOKENS).tiles(wrong)
