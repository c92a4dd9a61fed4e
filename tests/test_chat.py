"""Messages are immutable values."""

import dataclasses

import numpy as np
import pytest

from sftrl_jax.chat import Message


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
