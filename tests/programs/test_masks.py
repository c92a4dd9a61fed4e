"""Exactly the responses are trained, and a row says so."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from sftrl_jax.programs import masks
from sftrl_jax.programs.course import Wrong
from sftrl_jax.programs.setup import assemble
from sftrl_jax.text import tokenizer as tokenizers


@pytest.fixture(scope="module")
def parts(tiny):
  return {verb: assemble(tiny(verb), verb) for verb in ("sft", "rl")}


def test_what_sft_trains_are_the_last_responses(parts, monkeypatch):
  told = masks.of_demonstrations(parts["sft"])
  assert "unbroken rows; in double brackets what is trained: <bos> RULE 10 10 10 TARGET" in told
  assert told.endswith(" <eos>]]") and told.count("[[") == told.count("]]") == 1
  whole = masks.next_batch

  def shifted(*arguments):
    batch, cursor = whole(*arguments)
    return dataclasses.replace(batch, weights_BT=np.roll(batch.weights_BT, 1, axis=1)), cursor
  monkeypatch.setattr(masks, "next_batch", shifted)
  with pytest.raises(Wrong, match=r"trained spans are no response, for example "):
    masks.of_demonstrations(parts["sft"])


def test_what_rl_trains_are_the_sampled_responses(parts, monkeypatch):
  spoken = [masks.spoken(parts["rl"], seed) for seed in range(4)]
  assert all(episode.success for episode in spoken)
  assert "are 8 responses, 8 with their <eos>, of 8 chats" in masks.of_episodes(parts["rl"], spoken)
  reply = dataclasses.replace(spoken[0].turns[0].reply, text="NUMBERS 1")
  other = dataclasses.replace(spoken[0], turns=(dataclasses.replace(spoken[0].turns[0], reply=reply),))
  with pytest.raises(Wrong, match="the environment judged 'NUMBERS 1', but 'NUMBERS .*' is trained"):
    masks.of_episodes(parts["rl"], [other])


def test_what_is_told_of_spans():
  words = tokenizers.words(("a", "b"))
  good, shown = Counter({(3, 2): 2}), ([1, 3, 4, 2], [0.0, 0.0, 1.0, 1.0])
  assert masks.told(words, good, good, 2, 2, shown).endswith("<bos> a [[b <eos>]]")
  endless = Counter({(3,): 2})
  for trained, wanted, found, told in ((endless, good, 2, "2 of 2 trained spans"), (good, good, 1, "1 unbroken rows"),
                                       (endless, endless, 2, "ends in <eos>")):
    with pytest.raises(Wrong, match=told):
      masks.told(words, trained, wanted, found, 2, shown)


def test_bytes_are_marked_without_spaces_between():
  assert masks.marked(tokenizers.byte(), [1, 101, 102, 103, 2], [0, 0, 1, 1, 1]) == "<bos>a[[bc<eos>]]"
