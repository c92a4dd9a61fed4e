"""Rows of pairs: the columns of TRL, one prompt for both sides, and a reason for every row that is no pair."""

import json

import pytest

from sftrl_jax.data.pairs.rows import AGAINST, PAIR_A_ROW, PairsConfig, margin_of
from sftrl_jax.data.rows import load
from sftrl_jax.text.tokenizer import byte

TOKENIZER = byte()
ASKS, RIGHT, WRONG = ({"role": role, "content": content} for role, content in (
    ("user", "2+2?"), ("assistant", "4"), ("assistant", "5")))


def corpus(tmp_path, *rows, **changes):
  path = tmp_path / "pairs.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return load(PairsConfig(str(path), **{"length": 64, "max_dropped": 1.0, **changes}), TOKENIZER, PAIR_A_ROW)


def shown(corpus):
  """(text up to the response, response with its end) of every side."""
  sides = []
  for index in range(corpus.count):
    ids, learned = corpus.example(index)
    first = learned.tolist().index(True)
    assert learned[first:].all()
    sides.append((TOKENIZER.decode(ids[:first]), TOKENIZER.decode(ids[first:])))
  return sides


@pytest.mark.parametrize("row", [
    {"prompt": [ASKS], "chosen": [RIGHT], "rejected": [WRONG]},
    {"chosen": [ASKS, RIGHT], "rejected": [ASKS, WRONG]},
    {"prompt": [ASKS], "chosen": [ASKS, RIGHT], "rejected": [ASKS, WRONG]},
    {"prompt": "2+2?", "chosen": [ASKS, RIGHT], "rejected": [ASKS, WRONG]},
    {"prompt": "2+2?", "chosen": [RIGHT], "rejected": [WRONG]},
    {"prompt": [ASKS], "chosen": "4", "rejected": "5"},
    {"chosen": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}],
     "rejected": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "5"}]}])
def test_a_chat_is_read_from_any_of_its_columns(row, tmp_path):
  (prompt, better), (same, worse) = shown(corpus(tmp_path, row))
  assert prompt == same and "2+2?" in prompt
  assert better.startswith("4") and worse.startswith("5") and better[1:] == worse[1:] != ""   # and an end


def test_texts_have_a_prompt_or_what_they_begin_with(tmp_path):
  explicit = shown(corpus(tmp_path, {"prompt": "Q: 2+2? A:", "chosen": " 46", "rejected": " 45"}))
  implicit = shown(corpus(tmp_path, {"chosen": "Q: 2+2? A: 46", "rejected": "Q: 2+2? A: 45"}))
  assert explicit == implicit and explicit[0][0].endswith("Q: 2+2? A:") and explicit[0][1].startswith(" 46")


def test_margins_are_said_or_differences_of_scores():
  assert margin_of({}) == (0.0, ()) and margin_of({"margin": 2}) == (2.0, ())
  assert margin_of({"score_chosen": 7.5, "score_rejected": 6}) == (1.5, ())
  assert margin_of({"score_chosen": 5, "score_rejected": 6}) == (0.0, ((AGAINST, "5.0 and 6.0"),))


@pytest.mark.parametrize("row, message", [
    ({"prompt": "p", "chosen": "a"}, "column rejected: is missing"),
    ({"prompt": "p", "chosen": None, "rejected": "b"}, "column chosen: is null"),
    ({"prompt": "p", "chosen": "a", "rejected": [WRONG]}, "chosen is text and rejected a list"),
    ({"prompt": "p", "chosen": "", "rejected": "b"}, "column chosen: is empty"),
    ({"prompt": "p", "chosen": "a", "rejected": ""}, "column rejected: is empty"),
    ({"prompt": 3, "chosen": [RIGHT], "rejected": [WRONG]}, "column prompt: is a number"),
    ({"prompt": [RIGHT], "chosen": [ASKS, RIGHT], "rejected": [ASKS, WRONG]}, "column prompt: is not what both sides"),
    ({"chosen": [ASKS, RIGHT], "rejected": [{"role": "user", "content": "1+1?"}, WRONG]}, "there is no prompt"),
    ({"chosen": [ASKS], "rejected": [ASKS, WRONG]}, "column chosen: "),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": float("nan")}, "column margin: is 'nan'"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": -1}, "column margin: is -1"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": "7", "score_rejected": 1}, "score_chosen: is '7'"),
    ({"prompt": [ASKS], "chosen": [{"role": "robot", "content": "4"}], "rejected": [WRONG]}, r"chosen\[0\].role"),
    ([1], "begins with")])
def test_a_row_that_is_no_pair_is_named_with_its_column(row, message, tmp_path):
  with pytest.raises(ValueError, match=f"pairs.jsonl, row 1.*{message}"):
    corpus(tmp_path, row)


def test_pairs_that_nobody_can_learn_from_are_dropped_and_counted(tmp_path):
  good = {"prompt": "p", "chosen": "a", "rejected": "b"}
  read = corpus(tmp_path, good, {**good, "rejected": "a"}, {**good, "chosen": "a" * 60}, good)
  assert read.count == 4 and read.report.read == 4 and read.report.kept == 2 and read.report.duplicates == 1
  assert {each.reason: each.first for each in read.report.dropped} == {
      "pairs whose sides are the same ids": ("pairs.jsonl:2",), "longer than data.length": ("pairs.jsonl:3",)}
  with pytest.raises(ValueError, match="none of 1 rows can be trained on: 1 pairs whose sides are the same ids"):
    corpus(tmp_path, {**good, "rejected": "a"})


def test_a_prompt_beyond_the_limit_is_counted_and_never_cut(tmp_path):
  good = {"prompt": "p", "chosen": "a", "rejected": "b"}
  read = corpus(tmp_path, good, {**good, "prompt": "p" * 70}, {**good, "prompt": "p" * 30}, length=64)
  counts = {each.reason: each.count for each in read.report.dropped}
  assert read.count == 2 and counts == {"longer than data.length": 2}


def test_a_response_is_scored_with_its_end_and_nothing_else(tmp_path):
  """A prompt of 5 tokens, responses of 2 and 3: 3 and 4 tokens are learned, after one <bos> and before one <eos>."""
  read = corpus(tmp_path, {"prompt": "12345", "chosen": "ab", "rejected": "abc"})
  sides = [read.example(index) for index in (0, 1)]
  assert [int(learned.sum()) for _, learned in sides] == [3, 4]
  for ids, learned in sides:
    assert learned.tolist() == [False] * 6 + [True] * (len(ids) - 6)   # <bos> and the prompt
    assert [ids.tolist().count(token) for token in (TOKENIZER.bos, TOKENIZER.eos)] == [1, 1]
    assert (ids[0], ids[-1]) == (TOKENIZER.bos, TOKENIZER.eos)


def test_a_pair_just_fits_with_both_ends(tmp_path):
  row = {"prompt": "p" * 10, "chosen": "xxxxA", "rejected": "xxxxB"}
  size = 2 * (len(TOKENIZER.encode("p" * 10 + "xxxxA")) + 1 + (TOKENIZER.bos is not None))
  assert corpus(tmp_path, row, length=size).count == 2
  with pytest.raises(ValueError, match="longer than data.length"):
    corpus(tmp_path, row, length=size - 1)


def test_columns_that_nothing_reads_are_counted(tmp_path):
  row = {"prompt": "p", "chosen": "a", "rejected": "b", "source": "x", "margin": 1, "score_chosen": 2}
  assert dict(corpus(tmp_path, row).report.ignored) == {"source": 1, "score_chosen": 1}


@pytest.mark.parametrize("wrong, message", [({}, "path is ''"), ({"path": "x", "length": 3}, "length is 3"),
                                            ({"path": "x", "validation": 1.0}, "validation is 1.0")])
def test_a_wrong_field_is_named_with_its_rule(wrong, message):
  with pytest.raises(ValueError, match=message):
    PairsConfig(**wrong)
