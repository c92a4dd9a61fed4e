"""Every key of a message is used, refused or named."""

import pytest

from sftrl_jax.chat import Message
from sftrl_jax.data.lines import BadRow
from sftrl_jax.data.messages import FLAGS, SHAREGPT, listed

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def test_text_parts_are_joined():
  parts = [{"type": "text", "text": "a", "image": None}, {"type": "text", "text": "b", "cache_control": {}}, "c"]
  answer = {**ANSWER, "content": [{"type": "output_text", "text": "d"}]}
  read = listed([{"role": "user", "content": parts}, answer], "m")
  assert read.chat == (Message("user", "abc"), Message("assistant", "d"))
  assert read.ignored == ("messages[].content[].cache_control",)


@pytest.mark.parametrize("part", [
    {"type": "image"}, {"type": "image_url", "image_url": {"url": "x"}}, {"type": "video"}, {"type": "input_audio"},
    {"type": "thinking", "thinking": "x"}, {"text": None}, {}, 3])
def test_other_parts_are_refused_by_name(part):
  with pytest.raises(BadRow) as error:
    listed([{"role": "user", "content": [{"type": "text", "text": "a"}, part]}], "messages")
  assert error.value.column == "messages[0].content[1]"


@pytest.mark.parametrize("key", FLAGS)
def test_flags_say_which_answers_are_learned(key):
  chat = [USER, {**ANSWER, key: 0}, {**USER, key: False},
          *({**ANSWER, key: value} for value in (True, None, 1.0))]
  read = listed(chat, "messages")
  assert read.silent == {1} and not read.ignored and all(message.fields is None for message in read.chat)
  assert listed([{**USER, key: 1}, ANSWER], "messages").ignored == (f"messages[].{key} of user",)
  for value in (0.5, 2, -1, "true", float("inf"), 10**400, [1]):
    with pytest.raises(BadRow, match="should be true or false, 1 or 0"):
      listed([USER, {**ANSWER, key: value}], "messages")


def test_keys_of_both_kinds_are_read_by_those_that_are_not_null():
  both = [{"role": None, "content": None, "from": "human", "value": "q"},
          {"role": "assistant", "content": "a", "from": None, "value": None}]
  assert listed(both, "m").chat == (Message("user", "q"), Message("assistant", "a"))
  tool = {"role": "tool", "content": "5", "tool_call_id": "1", "name": None, "list": [], "map": {}}
  message, = listed([tool], "m").chat
  assert message.fields == {"role": "tool", "content": "5", "tool_call_id": "1"} and SHAREGPT["observation"] == "tool"


def test_an_answer_may_say_other_things_than_content():
  calls = [{"type": "function", "function": {"name": "f", "arguments": {"x": None}}}]
  for content in ({"content": None}, {}, {"content": ""}):
    message, = listed([{"role": "assistant", "tool_calls": calls, **content}], "m").chat
    assert message.text == "" and message.fields == {"role": "assistant", **content, "tool_calls": calls}
  for more in ({}, {"tool_calls": []}, {"name": "x"}):
    with pytest.raises(BadRow, match="is missing|is empty"):
      listed([USER, {"role": "assistant", **more, **({"content": ""} if "name" in more else {})}], "m")
