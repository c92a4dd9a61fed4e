"""Packing a stream: everything once, in order, and the weights where the answers are."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.data.batches import example, next_batch
from sftrl_jax.data.demonstrations import Demonstration, DemonstrationsConfig, demonstration
from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.text.images import ImageReader
from sftrl_jax.text.render import render
from sftrl_jax.text.tokenizer import words

ENV = GeneralPoints(target="any", cards=3, attempts=3, style="compact")
CHATS = functools.partial(demonstration, ENV, DemonstrationsConfig(attempts=(0.6, 0.3, 0.1)), 0)
TOKENIZER = words(ENV.words)
ROWS, LENGTH = 4, 80


@pytest.fixture(scope="module")
def batches():
  """(cursor before, batch, cursor after) of ten consecutive calls."""
  calls, cursor = [], 5
  for _ in range(10):
    batch, after = next_batch(CHATS, TOKENIZER, ROWS, LENGTH, cursor)
    calls.append((cursor, batch, after))
    cursor = after
  return calls


def segments(batch):
  """(ids read, targets, weights, positions) of every segment."""
  inputs = batch.inputs
  for row in range(ROWS):
    for segment in range(1, inputs.segments_BT[row].max() + 1):
      on = inputs.segments_BT[row] == segment
      yield tuple(x[row][on].tolist() for x in (inputs.tokens_BT, batch.targets_BT, batch.weights_BT,
                                                inputs.positions_BT))


def test_every_example_is_packed_exactly_once(batches):
  seen = 0
  for before, batch, after in batches:
    want = sorted(example(TOKENIZER, CHATS(index))[0] for index in range(before, after))
    assert sorted([read[0], *targets] for read, targets, _, _ in segments(batch)) == want
    seen += after - before
  assert seen == batches[-1][2] - 5 and seen > 10 * ROWS


def test_targets_are_the_next_ids_and_positions_count_from_0(batches):
  for _, batch, _ in batches:
    for read, targets, _, positions in segments(batch):
      assert read[1:] == targets[:-1] and targets[-1] == TOKENIZER.eos
      assert positions == list(range(len(read)))
    blank = batch.inputs.segments_BT == 0
    assert not batch.weights_BT[blank].any() and not batch.targets_BT[blank].any()


def test_weights_are_on_the_last_response_only(batches):
  last = {}
  for index in range(5, batches[-1][2]):
    chat = CHATS(index).chat
    last[tuple(render(TOKENIZER, chat)[0])] = TOKENIZER.encode(chat[-1].text) + [TOKENIZER.eos]
  for _, batch, _ in batches:
    for read, targets, weights, _ in segments(batch):
      learned = [target for target, weight in zip(targets, weights, strict=True) if weight]
      assert set(weights) <= {0.0, 1.0} and learned == last[(read[0], *targets)]
      assert weights[-len(learned):] == [1.0] * len(learned)


def test_a_cursor_goes_on_where_it_was(batches):
  before, batch, after = batches[4]
  again, cursor = next_batch(CHATS, TOKENIZER, ROWS, LENGTH, before)
  assert cursor == after
  np.testing.assert_array_equal(again.inputs.tokens_BT, batch.inputs.tokens_BT)
  np.testing.assert_array_equal(again.weights_BT, batch.weights_BT)


def test_the_rows_of_several_processes_are_those_of_one(batches):
  before, whole, after = batches[0]
  parts = [next_batch(CHATS, TOKENIZER, ROWS, LENGTH, before, mine) for mine in ({0, 2}, {1, 3})]
  assert [cursor for _, cursor in parts] == [after, after]
  for first, second, both in zip(*(jax.tree.leaves(batch) for batch in (parts[0][0], parts[1][0], whole)), strict=True):
    np.testing.assert_array_equal(first + second, both)
    assert not first[[1, 3]].any() and not second[[0, 2]].any()


def test_a_batch_ends_only_when_the_next_example_finds_no_room(batches):
  for _, batch, after in batches:
    free = LENGTH - (batch.inputs.segments_BT > 0).sum(1)
    assert len(example(TOKENIZER, CHATS(after))[0]) - 1 > free.max()


def test_a_row_that_is_too_short_names_its_key_and_the_size():
  chat = (Message("user", "RULE 10 10 10"), Message("assistant", "NUMBERS 1 2 3"))
  size = len(render(TOKENIZER, chat)[0])
  shown = Demonstration(chat, (0,))
  batch, cursor = next_batch(lambda index: shown, TOKENIZER, 1, size - 1, 0)   # the last id is only a target
  assert cursor == 1 and batch.weights_BT[0].tolist() == [0] * 4 + [1] * 5
  with pytest.raises(ValueError, match=rf"config.data.length is {size - 2}.*--config.data.length={size - 1}"):
    next_batch(lambda index: shown, TOKENIZER, 1, size - 2, 0)


def test_of_a_pretrained_chat_the_last_response_and_its_end_are_learned_and_what_follows_is_not():
  pytest.importorskip("transformers")
  from tokenizers import Tokenizer, models, pre_tokenizers
  from transformers import PreTrainedTokenizerFast

  from sftrl_jax.text.pretrained import Pretrained
  names = ["<unk>", "<|user|>", "<|assistant|>", "<|end|>", "1", "2", "3", "then"]
  backend = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
  backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  backend.add_special_tokens(names[:4])
  source = ("{% for m in messages %}{{ '<|' + m.role + '|> ' + m.content + '<|end|> then ' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|assistant|> ' }}{% endif %}")
  tokenizer = Pretrained.of(PreTrainedTokenizerFast(
      tokenizer_object=backend, unk_token="<unk>", eos_token="<|end|>", chat_template=source))
  chat = tuple(Message(role, text) for role, text in (
      ("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "1 2")))
  shown = Demonstration(chat, (1,))
  ids, weights = example(tokenizer, shown)
  assert [names[token] for token in ids][-5:] == ["<|assistant|>", "1", "2", "<|end|>", "then"]
  assert weights == [0.0] * (len(ids) - 4) + [1.0, 1.0, 1.0, 0.0]
  batch, _ = next_batch(lambda index: shown, tokenizer, 1, len(ids) - 1, 0)
  assert batch.targets_BT[0][batch.weights_BT[0] > 0].tolist() == [4, 5, 3]


def test_all_learned_responses_have_weights_and_the_others_have_none():
  chat = tuple(Message(role, text) for role, text in (
      ("user", "RULE 10 10 10"), ("assistant", "NUMBERS 1 2 3"), ("user", "RULE"), ("assistant", "NUMBERS 4"),
      ("user", "RULE"), ("assistant", "NUMBERS")))
  for learned in ((0, 1, 2), (0, 2), (1,)):
    ids, weights = example(TOKENIZER, Demonstration(chat, learned))
    taught = [token for token, weight in zip(ids, weights, strict=True) if weight]
    assert taught == [token for number in learned
                      for token in [*TOKENIZER.encode(chat[2 * number + 1].text), TOKENIZER.eos]]


def pictured(index, change=0):
  """Every third example has no picture, the others one or two; `change` is what they show."""
  count = index % 3
  picture = lambda number: np.full((2, 3, 3), (7 * index + number + change) % 256, np.uint8)
  chat = [Message("user", "RULE 10", picture(number) if number < count else None) for number in range(2)]
  return Demonstration((*chat, Message("assistant", "FORMULA 1")), (0,))


READING = dataclasses.replace(words(ENV.words, image=True), reader=ImageReader(TOKENIZER.size, 2, 2, 3, images=3))


def test_pictures_are_packed_with_their_sequences_and_change_no_label():
  """A row holds no more pictures than the model reads, in the order of their placeholders."""
  (one, end), (two, _) = (next_batch(functools.partial(pictured, change=change), READING, ROWS, LENGTH, 3)
                          for change in (0, 50))
  shown, placeholders = [], one.inputs.tokens_BT == READING.image
  for row in range(ROWS):
    count = placeholders[row].sum() // 2
    assert count <= 3 and not one.inputs.images_BIYXC[row, count:].any()
    shown += one.inputs.images_BIYXC[row, :count].tolist()
  wanted = [message.image.tolist() for index in range(3, end) for message in pictured(index).chat
            if message.image is not None]
  assert sorted(shown) == sorted(wanted) and len(wanted) > ROWS
  assert end - 3 < sum(1 for _ in segments(one)) + 1
  for left, right in zip(jax.tree.leaves(one.replace(inputs=one.inputs.replace(images_BIYXC=None))),
                         jax.tree.leaves(two.replace(inputs=two.inputs.replace(images_BIYXC=None))), strict=True):
    np.testing.assert_array_equal(left, right)
  assert (one.inputs.images_BIYXC != two.inputs.images_BIYXC).any()


def test_more_pictures_than_a_row_holds_are_named():
  few = dataclasses.replace(READING, reader=dataclasses.replace(READING.reader, images=1))
  with pytest.raises(ValueError, match="config.model.images is 1, but example 5 has 2 pictures"):
    next_batch(pictured, few, 1, LENGTH, 5)
