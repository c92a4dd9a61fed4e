"""Text to ids and back, and any ids to some text."""

import numpy as np
import pytest

from sftrl_jax.text import tokenizer

WORDS = ("1", "2", "+", "*", "=", "24", "formula")
RANGES = ((32, 127), (160, 0x250), (0x4E00, 0x4F00), (0x1F600, 0x1F640))


def random_text(random):
  starts = [RANGES[i] for i in random.integers(len(RANGES), size=random.integers(0, 20))]
  return "".join(chr(random.integers(*bounds)) for bounds in starts)


@pytest.mark.parametrize("seed", range(10))
def test_bytes_round_trip_any_text(seed):
  text, byte = random_text(np.random.default_rng(seed)), tokenizer.byte()
  ids = byte.encode(text)
  assert byte.decode(ids) == text
  assert len(ids) == len(text.encode()) and all(4 <= i < byte.size for i in ids)


def test_words_round_trip_texts_and_ids():
  words, random = tokenizer.words(WORDS), np.random.default_rng(0)
  for length in range(8):
    text = " ".join(random.choice(WORDS, length))
    assert words.decode(words.encode(text)) == text
    ids = random.integers(0, words.size, length).tolist()
    assert words.encode(words.decode(ids)) == ids


@pytest.mark.parametrize("which", [tokenizer.words(WORDS), tokenizer.byte()], ids=lambda t: t.kind)
def test_a_policy_may_write_any_ids(which):
  random = np.random.default_rng(0)
  for _ in range(50):
    assert isinstance(which.decode(random.integers(0, which.size, 12)), str)
  for each in range(which.size):
    assert isinstance(which.decode([each]), str)


@pytest.mark.parametrize("which", [tokenizer.words(WORDS), tokenizer.byte()], ids=lambda t: t.kind)
def test_special_ids_are_different_and_no_text_is_made_of_them(which):
  special = {which.pad, which.bos, which.eos, *which.after_user}
  assert len(special) == 3 + len(which.after_user)
  assert not special & set(which.encode(" ".join(WORDS)))


def test_bytes_can_spell_the_name_of_a_special_id_without_meaning_it():
  byte = tokenizer.byte()
  assert byte.eos not in byte.encode("<eos>")


def test_an_unknown_word_is_named():
  words = tokenizer.words(WORDS)
  for text in ("1 + x", "1  + 2", "1 "):
    with pytest.raises(ValueError, match="is no word of this tokenizer"):
      words.encode(text)
  with pytest.raises(ValueError, match="'x' is no word"):
    words.encode("1 + x")


@pytest.mark.parametrize("vocabulary", [("a", "a"), ("a", "<eos>"), ("<pad>",)])
def test_a_vocabulary_names_a_word_once(vocabulary):
  with pytest.raises(ValueError, match="twice"):
    tokenizer.words(vocabulary)


def test_tokenizers_of_one_vocabulary_are_equal():
  assert tokenizer.words(WORDS) == tokenizer.words(WORDS) != tokenizer.words(WORDS[1:])
  assert hash(tokenizer.byte()) == hash(tokenizer.byte())
