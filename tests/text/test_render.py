"""What the policy wrote is decided once, and a longer chat begins like a shorter one."""

import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.text.render import message_ids, render
from sftrl_jax.text.tokenizer import byte, words

TOKENIZERS = [words(("deal", "1", "+", "2", "wrong")), byte()]
CHAT = (Message("system", "deal"), Message("user", "1 2"), Message("assistant", "1 + 2"),
        Message("user", "wrong"), Message("assistant", "2"))

both = pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda t: t.kind)


@both
def test_a_longer_chat_begins_with_the_shorter_one(tokenizer):
  whole, written = render(tokenizer, CHAT)
  for length in range(len(CHAT) + 1):
    ids, mask = render(tokenizer, CHAT[:length])
    assert whole[: len(ids)] == ids and written[: len(mask)] == mask


@both
def test_only_responses_and_the_ends_of_responses_are_written(tokenizer):
  ids, written = render(tokenizer, CHAT)
  assert len(ids) == len(written) and ids[0] == tokenizer.bos
  runs, run = [], []
  for token, mine in [*zip(ids, written, strict=True), (0, False)]:
    if mine:
      run.append(token)
    elif run:
      runs.append(run)
      run = []
  responses = [message.text for message in CHAT if message.role == "assistant"]
  assert runs == [[*tokenizer.encode(text), tokenizer.eos] for text in responses]
  assert sum(token == tokenizer.eos for token in ids) == len(responses)


@both
def test_a_chat_is_its_messages_one_after_another(tokenizer):
  pieces = [message_ids(tokenizer, message) for message in CHAT]
  assert render(tokenizer, CHAT)[0] == [tokenizer.bos, *(token for piece in pieces for token in piece)]


@both
def test_an_empty_response_is_its_end(tokenizer):
  ids, written = render(tokenizer, (Message("assistant", ""),))
  assert ids == [tokenizer.bos, tokenizer.eos] and written == [False, True]


@both
def test_a_picture_is_refused(tokenizer):
  with pytest.raises(ValueError, match="image"):
    render(tokenizer, (Message("user", "1", np.zeros((2, 2, 3), np.uint8)),))
