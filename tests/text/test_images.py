"""Pictures among ids: as many placeholders as features, and no text that spells one."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from sftrl_jax.chat import Message
from sftrl_jax.inputs import right_pad
from sftrl_jax.pictures.processors.idefics3 import AROUND, PLACEHOLDER, WHOLE, Idefics3Processor
from sftrl_jax.text.images import ImageReader, TiledReader, expanded, with_pictures
from sftrl_jax.text.pretrained import Pretrained
from sftrl_jax.text.render import continued, pictures, render, renderings
from sftrl_jax.text.tokenizer import byte, words

RED, BLUE = (np.full((2, 3, 3), value, np.uint8) for value in (10, 200))
PLAIN = {"words": words(("a", "b", "c")), "bytes": byte()}


def reading(kind, images=2):
  tokenizer = words(("a", "b", "c"), image=True) if kind == "words" else byte(image=True)
  return dataclasses.replace(tokenizer, reader=ImageReader(tokenizer.image, 2, 2, 3, images))


@pytest.fixture(params=["words", "bytes"])
def kind(request):
  return request.param


def test_a_picture_is_a_block_before_its_text(kind):
  tokenizer = reading(kind)
  chat = (Message("user", "a", RED), Message("assistant", "b"), Message("user", "c", BLUE))
  ids, written = render(tokenizer, chat)
  texts = tuple(Message(message.role, message.text) for message in chat)
  plain, flags = render(PLAIN[kind], texts)
  block = [tokenizer.image] * 2
  assert ids == [plain[0], *block, *plain[1:len(plain) - 1 - len(tokenizer.after_user)], *block,
                 *plain[len(plain) - 1 - len(tokenizer.after_user):]]
  assert sum(written) == sum(flags) and not any(np.asarray(written)[np.asarray(ids) == tokenizer.image])
  assert continued(tokenizer, chat) == block + continued(PLAIN[kind], texts)
  assert renderings(tokenizer, [chat])[0].ids == ids
  assert [image is own for image, own in zip(pictures(tokenizer, chat), (RED, BLUE), strict=True)] == [True, True]


def test_another_picture_changes_no_id_and_no_label(kind):
  one, two = (render(reading(kind), (Message("user", "a", image), Message("assistant", "b"))) for image in (RED, BLUE))
  assert one == two


def test_no_text_gives_the_id_of_pictures(kind):
  tokenizer = reading(kind)
  if kind == "bytes":
    assert tokenizer.image not in tokenizer.encode("<image> \u2020 " + "".join(map(chr, range(300))))
  else:
    with pytest.raises(ValueError, match="'<image>' is no word"):
      tokenizer.encode("a <image>")
  assert tokenizer.decode([tokenizer.image]) == "<image>" and tokenizer.size == PLAIN[kind].size + 1


@pytest.mark.parametrize("chat, message", [
    ((Message("user", "a", RED[:1]),), r"A picture is uint8 \(1, 3, 3\), but config.model reads uint8 \(2, 3, 3\)"),
    ((Message("user", "a", RED.astype(np.float32)),), "A picture is float32"),
    ((Message("user", "a"), Message("assistant", "b", RED)), "a response is text")])
def test_a_picture_that_cannot_be_read_is_named(chat, message):
  with pytest.raises(ValueError, match=message):
    render(reading("words"), chat)


def test_a_tokenizer_without_a_reader_refuses_pictures(kind):
  chat = (Message("user", "a"), Message("assistant", "b"), Message("user", "c", RED))
  for read in (render, continued):
    with pytest.raises(ValueError, match="use a vision-language model"):
      read(PLAIN[kind], chat)


def test_pictures_come_to_their_rows_and_other_rows_have_none():
  reader = ImageReader(9, 2, 2, 3, 2)
  inputs = reader.add(right_pad([[1, 9, 9], [4], [9, 9, 1, 9, 9]], 6, 4), [(RED,), (), (BLUE, RED)])
  images = inputs.images_BIYXC
  assert images.shape == (4, 2, 2, 3, 3) and images.dtype == np.uint8
  wanted = [[RED, 0 * RED], [0 * RED] * 2, [BLUE, RED], [0 * RED] * 2]
  np.testing.assert_array_equal(images, np.asarray(wanted))
  blank = right_pad([], 6, 4)
  assert not reader.add(blank, ()).images_BIYXC.any() and with_pictures(None, blank, [(), ()]) is blank


@pytest.mark.parametrize("row, own, message", [
    ([1, 9, 9, 9], (RED,), r"Row 1 has 1 pictures and 3 placeholders, but 2 stand for a picture"),
    ([1, 9, 9], (), "Row 1 has 0 pictures and 2 placeholders"),
    ([1], (RED,), "Row 1 has 1 pictures and 0 placeholders"),
    ([9] * 6, (RED, RED, RED), r"Row 1 has 3 pictures, but config.model.images is 2: use --config.model.images=3")])
def test_pictures_and_placeholders_must_match(row, own, message):
  with pytest.raises(ValueError, match=message):
    ImageReader(9, 2, 2, 3, 2).add(right_pad([[1], row], 8), [(), own])


def test_pictures_that_nothing_reads_are_an_error():
  with pytest.raises(ValueError, match="Row 2 has 1 pictures, but the model reads text only"):
    with_pictures(None, right_pad([[1]] * 3, 4), [(), (), (RED,)])


def test_a_template_writes_one_placeholder_a_picture():
  assert expanded([1, 9, 2, 9], [False, False, True, False], 9, [[7, 9, 9], [9]]) == (
      [1, 7, 9, 9, 2, 9], [False] * 4 + [True, False])
  with pytest.raises(ValueError, match="A chat has 2 pictures, but its template writes 1 placeholders"):
    expanded([1, 9], [False, False], 9, [[9], [9]])
  again = [1, 7, 9, 9, 2, 9], [False] * 4 + [True, False]
  assert expanded(*again, 9, [[7, 9, 9], [9]]) == again


# As SmolVLM's, of which a content is a list of parts.
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] =="
    " 'image' %}{{':'}}{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}"
    "{{line['text']}}{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}")


@pytest.mark.parametrize("splitting", [True, False])
def test_tiles_of_a_pretrained_model_stand_as_its_processor_writes_them(splitting):
  tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
  vocab = {letter: number for number, letter in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))}
  bpe = tokenizers.Tokenizer(tokenizers.models.BPE({**vocab, "\u010a\u010a": len(vocab)}, [("\u010a", "\u010a")]))
  bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  bpe.decoder = tokenizers.decoders.ByteLevel()
  marks = [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
  bpe.add_special_tokens(["<|im_start|>", AROUND, PLACEHOLDER, WHOLE, "<end_of_utterance>", *marks])
  fast = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end_of_utterance>",
                                              pad_token="<|im_start|>", chat_template=TEMPLATE)
  ours = Pretrained.of(fast)
  image_id = bpe.token_to_id(PLACEHOLDER)
  processor = Idefics3Processor(16, 48, splitting, "lanczos", 4)
  ours = dataclasses.replace(ours, reader=TiledReader(image_id, 4, 16, 16, 20, processor, *ours.marks))
  draw = lambda height, width: np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)
  chat = (Message("user", "What is \n\n<image> here?", draw(9, 30)), Message("assistant", "A card."),
          Message("user", "And here?", draw(20, 20)))
  rendering, = renderings(ours, [chat])
  module = pytest.importorskip("transformers.models.idefics3.image_processing_pil_idefics3")
  sizes = dict(size={"longest_edge": 48}, max_image_size={"longest_edge": 16}, do_image_splitting=splitting)
  theirs = transformers.Idefics3Processor(module.Idefics3ImageProcessorPil(**sizes), fast, image_seq_len=4)
  plain = tuple(Message(message.role, message.text.replace("<image>", "it"), message.image) for message in chat)
  text = fast.apply_chat_template([{"role": message.role, "content": [
      *([{"type": "image"}] if message.image is not None else []), {"type": "text", "text": message.text}]}
      for message in plain], tokenize=False, add_generation_prompt=True)
  shown = [message.image for message in plain if message.image is not None]
  expected = theirs(images=[list(map(Image.fromarray, shown))], text=[text])
  assert renderings(ours, [plain])[0].ids == expected["input_ids"][0]
  tiles = pictures(ours, chat)
  pixels = (np.stack(tiles).astype(np.float32) / 255 - 0.5) / 0.5
  np.testing.assert_allclose(pixels.transpose(0, 3, 1, 2), expected["pixel_values"][0], atol=1e-5)
  # A name of the placeholder in a message stays text, and counts agree.
  batch = with_pictures(ours.reader, right_pad([rendering.ids], len(rendering.ids)), [tiles])
  assert rendering.ids.count(image_id) == 4 * len(tiles) and batch.images_BIYXC.shape[1] == 20
  assert not any(np.asarray(rendering.written)[np.asarray(rendering.ids) == image_id])


def test_tiles_with_a_tokenizer_of_our_own_are_placeholders_alone():
  tokenizer = byte(image=True)
  reader = TiledReader(tokenizer.image, 4, 16, 16, 20, Idefics3Processor(16, 48, True, "lanczos", 4))
  chat = (Message("user", "a", np.zeros((20, 20, 3), np.uint8)),)
  ids, _ = render(dataclasses.replace(tokenizer, reader=reader), chat)
  assert ids.count(tokenizer.image) == 4 * 10
