"""Messages are immutable values."""

import dataclasses

import numpy as np
import pytest

from sftrl_jax.chat import Message, continues, whole_chat


def test_a_message_is_immutable():
  message = Message("user", "hello")
  assert message.image is None
  with pytest.raises(dataclasses.FrozenInstanceError):
    message.text = "bye"


def test_messages_are_equal_by_content_and_usable_as_keys():
  picture = np.zeros((2, 3, 3), np.uint8)
  assert Message("user", "a") == Message("user", "a") != Message("assistant", "a")
  assert Message("user", "a", picture) == Message("user", "a", picture.copy())
  assert Message("user", "a", picture) != Message("user", "a", picture + 1)
  assert Message("user", "a", picture) != Message("user", "a", picture[:1])
  assert Message("user", "a", picture) != Message("user", "a")
  assert Message("user", "a") != "a"
  assert len({Message("user", "a", picture), Message("user", "a", picture.copy())}) == 1


@pytest.mark.parametrize("role", ["", "User", "human", None])
def test_an_unknown_role_is_refused(role):
  with pytest.raises(ValueError, match="assistant"):
    Message(role, "hello")


def test_text_must_be_text():
  with pytest.raises(TypeError, match="str"):
    Message("user", b"hello")


def test_a_chat_continues_the_one_that_was_answered():
  before = (Message("system", "s"), Message("user", "q"))
  grown = (*before, Message("assistant", "a"), Message("user", "f"))
  assert continues(before, "a", grown) and continues(before, "a", grown[:3])
  for chat in (before, (), grown[1:], (*before, Message("user", "a"))):
    assert not continues(before, "a", chat)
  assert not continues(before, "b", grown)
  thought = Message("assistant", "a", fields={"reasoning_content": "because"})
  assert continues(before, "a", (*before, thought, Message("user", "f")))


def test_the_whole_chat_ends_with_what_was_said_last():
  chat = (Message("user", "q"),)
  assert whole_chat(chat, "r", "f") == (*chat, Message("assistant", "r"), Message("user", "f"))
  assert whole_chat(chat, "r", "") == (*chat, Message("assistant", "r"))
