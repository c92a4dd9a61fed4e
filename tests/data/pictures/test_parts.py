"""Every picture of a row comes to its place in the messages, and no picture or place is left over."""

import numpy as np
import pytest

from sftrl_jax.data.lines import BadRow
from sftrl_jax.data.pictures.parts import Shown, spread, with_own_pictures

FIRST, SECOND = (Shown(number, np.zeros((1, 1, 3), np.uint8)) for number in (0, 1))
PICTURE, ANSWER = {"type": "image"}, {"role": "assistant", "content": "a"}
text = lambda words: {"type": "text", "text": words}
shown = lambda picture: {"type": "image", "image": picture}


def user(*content):
  return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def test_the_ith_picture_stands_at_the_ith_place_over_all_messages():
  row = {"prompt": [user(text("x"), PICTURE), ANSWER, user("plain")], "completion": [user(PICTURE, text("y"))],
         "images": [FIRST, SECOND]}
  got = spread(row, ("prompt", "completion"))
  assert got["prompt"] == [user(text("x"), shown(FIRST)), ANSWER, user("plain")]
  assert got["completion"] == [user(shown(SECOND), text("y"))]


@pytest.mark.parametrize(("role", "key"), [("role", "content"), ("from", "value")])
def test_without_places_all_come_before_the_first_text_of_the_user(role, key):
  rows = [{role: name, key: words} for name, words in (("system", "s"), ("user", "q"), ("assistant", "a"))]
  got = spread({"messages": rows, "images": [FIRST, SECOND]}, ("messages",))["messages"]
  assert got == [rows[0], {role: "user", key: [shown(FIRST), shown(SECOND), text("q")]}, rows[2]]


@pytest.mark.parametrize(("images", "content", "message"), [
    ([FIRST], [PICTURE, PICTURE, text("q")], 'has 1 picture, but the messages have 2 parts {"type": "image"}'),
    ([FIRST, SECOND], [PICTURE, text("q")], "has 2 pictures, but the messages have 1 part "),
    ([], [PICTURE, text("q")], "has no pictures, but the messages have 1 part "),
    ([FIRST], [text("q")], "has 1 picture, but the messages have no parts "),
    ([FIRST], "see <image>", "message 1 spells <image>, which stays text")])
def test_counts_that_differ_are_an_error(images, content, message):
  with pytest.raises(BadRow, match=message):
    spread({"messages": [{"role": "user", "content": content}, ANSWER], "images": images}, ("messages",))


def test_a_part_that_names_its_own_picture_takes_no_other():
  sources = []
  own = with_own_pictures([user({"type": "image", "path": "a.png", "image": None}, PICTURE, text("q")), ANSWER, 3],
                          lambda source, where: sources.append((source, where)) or SECOND, "messages")
  assert sources == [("a.png", "messages[0].content[0]")]
  got = spread({"messages": own[:2], "images": [FIRST]}, ("messages",))["messages"]
  assert got == [user(shown(SECOND), shown(FIRST), text("q")), ANSWER]
  assert spread({"messages": got}, ("messages",)) == {"messages": got}
