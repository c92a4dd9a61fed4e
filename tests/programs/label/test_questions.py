"""A session: every answer is written at once, and goes on where it was left."""

import json

import pytest

from sftrl_jax.programs.label import questions
from sftrl_jax.programs.label.items import Item
from sftrl_jax.programs.label.label_file import LabelFile

ITEMS = [Item(f"q{n}", (f"good {n}", f"bad {n}"), {}, 0) for n in range(6)]
ITEMS[2] = Item("q2", ("same", "same"))
ITEMS[3] = Item("q3", (" ", "not empty"))


SEED = 1   # by which either response is shown first


def session(out, lines, count=0, seed=SEED):
  """(the text that is shown, the labels) of a person who types these lines, and then ends."""
  shown, given = [], iter(lines)

  def ask(text):
    line = next(given, None)
    if line is None:
      raise EOFError
    if line == "^C":
      raise KeyboardInterrupt
    return line

  labels = LabelFile(out, {})
  questions.ask_all(lambda number: ITEMS[number] if number < len(ITEMS) else None, labels, count, seed, ask,
                    shown.append)
  return "".join(shown), labels


def rows(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def better(labels):
  """Types the number of the response that the items prefer."""
  return [str(1 + questions.first_shown(SEED, number)) for number in (0, 1, 4, 5)]


def test_what_is_picked_is_chosen_whichever_side_it_stood_on(tmp_path):
  text, labels = session(tmp_path / "labels.jsonl", better(None))
  assert [row["chosen"] for row in rows(labels.out)] == ["good 0", "good 1", "good 4", "good 5"]
  assert all(row["rejected"].startswith("bad") for row in rows(labels.out)) and "--- 4 ---" in text
  assert {answer.first for answer in labels.answers if answer.asked} == {0, 1}
  assert questions.summary(labels).splitlines()[1] == "They prefer what the file prefers in 4 of 4."
  assert "2 items had equal or empty responses" in questions.summary(labels)


def test_a_session_of_parts_is_that_of_one_sitting(tmp_path):
  whole = session(tmp_path / "whole.jsonl", ["1", "t", "2", "s"])[1]
  for lines in (["1"], ["TIE ", "q"], ["nonsense", "2"]):
    text, labels = session(tmp_path / "parts.jsonl", lines, count=4)
  assert "'nonsense' is no answer" in text and "--- 3/4 ---" in text
  with pytest.raises(KeyboardInterrupt):
    session(tmp_path / "parts.jsonl", ["^C"], count=4)
  _, labels = session(tmp_path / "parts.jsonl", ["skip"], count=4)
  assert labels.answers == whole.answers and rows(labels.out) == rows(whole.out)
  assert session(tmp_path / "parts.jsonl", ["1"], count=4)[0] == ""   # all are answered


def test_an_answer_can_be_taken_back_also_one_of_an_earlier_sitting(tmp_path):
  session(tmp_path / "labels.jsonl", ["1", "2"])
  text, labels = session(tmp_path / "labels.jsonl", ["u", "u", "u", "2"])
  assert "There is nothing to take back." in text and [answer.pick for answer in labels.answers] == ["2"]


def test_either_side_is_shown_first_and_the_seed_says_which():
  order = [questions.first_shown(3, number) for number in range(400)]
  assert 150 < sum(order) < 250 and order == [questions.first_shown(3, number) for number in range(400)]
  assert order != [questions.first_shown(4, number) for number in range(400)]
