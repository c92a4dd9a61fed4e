"""Labels on disk: each is there once it is given, whatever ends the process."""

import json

import pytest

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.label.label_file import UNUSABLE, Answer, LabelFile

SETTINGS = {"from": "x", "seed": 0}
ANSWERS = [Answer(0, "1", 0, {"chosen": "a", "rejected": "b"}, True), Answer(1, "tie", 1), Answer(2, UNUSABLE),
           Answer(3, "2", 1, {"chosen": "c", "rejected": "d"}, False)]


def rows(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def labels(tmp_path):
  labels = LabelFile(tmp_path / "new" / "labels.jsonl", SETTINGS)
  for answer in ANSWERS:
    labels.add(answer)
  return labels


def test_pairs_alone_are_in_the_file_and_every_answer_in_its_record(labels):
  assert rows(labels.out) == [{"chosen": "a", "rejected": "b"}, {"chosen": "c", "rejected": "d"}]
  again = LabelFile(labels.out, SETTINGS)
  assert again.answers == ANSWERS and again.next_item == 4


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_whatever_a_killed_process_has_not_written_is_mended(labels, cut):
  whole = labels.out.read_bytes()
  labels.out.write_bytes(whole[:cut])   # the record is written first
  assert LabelFile(labels.out, SETTINGS).answers == ANSWERS and labels.out.read_bytes() == whole


def test_half_a_last_line_of_the_record_is_no_answer(labels):
  text = labels.session.read_text()
  labels.session.write_text(text + '{"item": 4, "pi')
  assert LabelFile(labels.out, SETTINGS).answers == ANSWERS and labels.session.read_text() == text


def test_the_last_answer_of_a_person_is_taken_back(labels):
  assert labels.undo() and rows(labels.out) == [{"chosen": "a", "rejected": "b"}] and labels.next_item == 3
  assert labels.undo() and labels.next_item == 1   # the tie, and the item behind it that nobody was asked about
  assert labels.undo() and not labels.undo() and labels.out.read_text() == ""
  assert LabelFile(labels.out, SETTINGS).answers == []


def test_a_file_of_another_session_or_of_nobodys_is_refused(labels, tmp_path):
  with pytest.raises(ConfigError, match="begun with other settings .seed."):
    LabelFile(labels.out, {**SETTINGS, "seed": 1})
  labels.out.write_text("edited\n")
  with pytest.raises(ConfigError, match="so it was changed"):
    LabelFile(labels.out, SETTINGS)
  labels.session.write_text('{"settings": {"from": "x", "seed": 0}}\n{"item": 1, "pick": "both"}\n')
  with pytest.raises(ConfigError, match="is damaged"):
    LabelFile(labels.out, SETTINGS)
  (tmp_path / "mine.jsonl").write_text("precious\n")
  with pytest.raises(ConfigError, match="mine.jsonl is there already"):
    LabelFile(tmp_path / "mine.jsonl", SETTINGS)
  assert (tmp_path / "mine.jsonl").read_text() == "precious\n"
