"""What a person sees: all of a hostile text as letters, and no line beyond the terminal."""

import pytest

from sftrl_jax.programs.label import screen


def test_what_cannot_be_seen_is_shown_as_its_number():
  hostile = "a\x1b[2J\r\x07\u202eb\u200b\x00\x9b\ud800\U000e0001é漢\tc\nd"
  shown = screen.visible(hostile)
  assert shown == "a\\x1b[2J\\x0d\\x07\\u202eb\\u200b\\x00\\x9b\\ud800\\U000e0001é漢  c\nd"
  assert not any(character in shown for character in "\x1b\r\x07\u202e\u200b\x00\x9b\ud800")


@pytest.mark.parametrize("width", [80, 101, 200])
def test_two_responses_stand_side_by_side_within_the_terminal(width):
  responses = "left " * 40 + "x" * 300, "漢字" * 90
  page = screen.question("7/20", "What?", responses, width)
  lines = page.split("\n")
  assert lines[0] == "--- 7/20 ---" and "[1]" in page and "[2]" in page and max(map(screen.cells, lines)) <= width
  rows = [line for line in lines if screen.GAP.rstrip() in line]
  gaps = {screen.cells(line[: line.index(screen.GAP.rstrip())]) for line in rows}
  assert len(gaps) == 1   # one column, wide letters or not
  right = [line[line.index(screen.GAP.rstrip()) + len(screen.GAP):] for line in rows]
  assert "".join(right) == "[2]" + responses[1]


def test_without_a_terminal_they_stand_one_after_the_other():
  page = screen.question("1/2", "What?", ("first answer", "second answer"), 0)
  assert page.index("[1]\nfirst answer") < page.index("[2]\nsecond answer")


@pytest.mark.parametrize("text", ["", "a b c", "word " * 30, "x" * 99, "e\u0301" * 50, "漢" * 33])
def test_nothing_is_lost_where_lines_break(text):
  pieces = screen.wrapped(text, 10)
  assert "".join(pieces).replace(" ", "") == text.replace(" ", "") and max(map(screen.cells, pieces)) <= 10
