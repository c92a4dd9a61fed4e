"""A corpus read from a file: every row is in it or accounted for, and nothing unusable is trained on."""

import dataclasses
import json

import numpy as np
import pytest

from sftrl_jax.data import formats
from sftrl_jax.data.rows import RowsConfig, load
from sftrl_jax.text.tokenizer import byte

TOKENIZER = byte()


def chat(question, answer):
  return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def corpus_of(tmp_path):
  """corpus_of(*rows, **settings): rows written as lines (bytes as they are) and loaded."""
  def make(*rows, **settings):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return load(RowsConfig(str(path), **settings), TOKENIZER)
  return make


def test_every_example_is_there_as_it_was_rendered(corpus_of):
  rows = [chat("q" * number, "answer" + "a" * number) for number in range(20)]
  corpus = corpus_of(*rows)
  assert corpus.count == 20 and corpus.report.kept == corpus.report.read == 20
  for index, row in enumerate(rows):
    example, = formats.examples([("messages", row)], TOKENIZER)
    assert [part.tolist() for part in corpus.example(index)] == [example.ids, example.learned]
    assert corpus.sizes[index] == len(example.ids) - 1
  assert (corpus.tokens.dtype, corpus.learned.dtype) == (np.int32, bool)
  assert corpus.report.label_tokens == corpus.learned.sum() == sum(7 + number for number in range(20))
  assert corpus.report.ends == 20 and sum(count for _, count in corpus.report.lengths) == 20


def test_what_is_too_long_is_cut_and_what_then_teaches_nothing_is_dropped(corpus_of):
  rows = [chat("q", "a"), chat("q", "a" * 50), chat("q" * 50, "a")]
  corpus = corpus_of(*rows, length=20, max_dropped=0.5)
  report = corpus.report
  assert (report.read, report.kept, report.truncated) == (3, 2, 1)
  assert corpus.sizes.tolist() == [5 - 1, 20]   # a row of 20 places reads 20 tokens and has the 21st for a target
  assert [(each.reason, each.count, each.first) for each in report.dropped] == [
      ("nothing to learn within data.length", 1, ("rows.jsonl:3",))]
  whole = corpus_of(*rows, length=20, max_dropped=0.7, truncate=False)
  assert (whole.report.kept, whole.report.truncated) == (1, 0)
  assert [(each.reason, each.count) for each in whole.report.dropped] == [("longer than data.length", 2)]


def test_the_first_target_is_the_second_token(corpus_of):
  """A label that only the first token could have is none: an example of it alone has nothing to learn."""
  with pytest.raises(ValueError, match="none of 1 rows can be trained on: 1 nothing to learn within data.length"):
    corpus_of({"prompt": "p" * 30, "completion": "c"}, length=20)


def test_without_bos_the_first_token_of_a_text_is_no_label(tmp_path):
  path = tmp_path / "rows.jsonl"
  path.write_text('{"text": "abc"}')
  corpus = load(RowsConfig(str(path)), dataclasses.replace(TOKENIZER, bos=None))
  assert corpus.learned.tolist() == [False, True, True, True] and corpus.report.label_tokens == 3


def test_a_bad_row_stops_or_is_counted_with_its_number(corpus_of, tmp_path):
  rows = [chat("q", "a"), b'{"messages": ', {"messages": [{"role": "user", "content": 3}]}, *[chat("q", "a")] * 7]
  with pytest.raises(ValueError) as error:
    corpus_of(*rows)
  assert str(error.value).startswith(f"{tmp_path / 'rows.jsonl'}, row 2: the line is no JSON: Expecting value")
  assert "--config.data.on_bad_row=skip" in str(error.value)
  with pytest.raises(ValueError, match=r"rows.jsonl, row 2, column messages\[0\].content: is a number, but should be"):
    corpus_of(rows[0], rows[2])
  with pytest.raises(ValueError, match=r"config.data.max_dropped is 0.05, but 2 of 10 rows \(20.0%\) .*1 no JSON "
                                       r"\(rows.jsonl:2\); 1 no text \(rows.jsonl:3\).*max_dropped=0.2 or more"):
    corpus_of(*rows, on_bad_row="skip")
  report = corpus_of(*rows, on_bad_row="skip", max_dropped=0.2).report
  assert (report.read, report.kept) == (10, 8) and sum(each.count for each in report.dropped) == 2


def test_the_first_places_of_a_mistake_are_named(corpus_of):
  rows = [chat("q", "a"), *[{"messages": [{"role": "user", "content": "q"}]}] * 5]
  dropped, = corpus_of(*rows, on_bad_row="skip", max_dropped=1.0).report.dropped
  assert (dropped.reason, dropped.count) == ("no assistant message", 5)
  assert dropped.first == ("rows.jsonl:2", "rows.jsonl:3", "rows.jsonl:4")


@pytest.mark.parametrize(("rows", "settings", "message"), [
    ([], {}, "has no rows: it is empty"), ([b"", b"  "], {}, "has no rows"),
    ([b"{"] * 3, dict(on_bad_row="skip", max_dropped=1.0), "none of 3 rows can be trained on: 3 no JSON"),
    ([chat("q" * 99, "a")] * 2, dict(length=9, max_dropped=1.0), "none of 2 rows .* 2 nothing to learn within"),
    ([{"question": "a", "answer": "b"}], {}, "row 1: has the columns 'question', 'answer', but needs `messages`"),
    ([{"text": "a"}], dict(format="messages"), "row 1, column messages: is missing; the row has 'text'"),
    ([{"text": "a"}, chat("q", "a")], dict(format="text"), "row 2, column text: is missing; the row has 'messages'"),
    ([{**chat("q", "a"), "text": "a"}], {}, "choose with --config.data.format=messages or text")])
def test_nothing_to_train_on_is_an_error(rows, settings, message, corpus_of):
  with pytest.raises(ValueError, match=message):
    corpus_of(*rows, **settings)


def test_the_format_of_a_row_is_told_by_its_columns_that_are_not_null(corpus_of):
  none = dict.fromkeys(("messages", "prompt", "completion", "text"))
  rows = [{**none, "prompt": "q", "completion": "a"}, {**none, **chat("q", "a")}, {**none, "text": "a"},
          {**none, "prompt": [{"role": "user", "content": "q"}], "completion": chat("q", "a")["messages"][1:]},
          {"messages": [], "text": "a"}]
  report = corpus_of(*rows).report
  assert (report.kept, report.format, report.ignored) == (5, "prompt_completion, messages, text", (("messages", 1),))
  assert report.duplicates == 2   # a chat in two formats, and a text
  with pytest.raises(ValueError, match="row 1: has the columns .none., but needs .*; null are 'messages', 'prompt'"):
    corpus_of(none)


def test_the_format_is_told_by_the_first_row_that_can_be_read(corpus_of):
  report = corpus_of(b"\xff", {"a": 1}, chat("q", "a"), on_bad_row="skip", max_dropped=0.7).report
  assert report.format == "messages" and report.first == "rows.jsonl:3" and report.ignored == ()
  report = corpus_of({**chat("q", "a"), "a": 1}, chat("q", "a"), {**chat("r", "a"), "a": None}).report
  assert report.ignored == (("a", 1),) and report.duplicates == 1


def test_other_data_has_another_digest(corpus_of):
  rows = [chat("q", "a"), chat("r", "b")]
  digest = corpus_of(*rows).report.sha256
  assert corpus_of(*rows, validation=0.5, shuffle=False).report.sha256 == digest
  changes = [rows[::-1], rows[:1], [chat("qa", ""[:0] or "b"), rows[1]], [{"text": "q"}, {"text": "a"}]]
  assert len({digest, *(corpus_of(*change).report.sha256 for change in changes)}) == 5


@pytest.mark.parametrize(("settings", "key"), [
    (dict(length=1), "length"), (dict(max_dropped=1.1), "max_dropped"), (dict(max_dropped=-0.1), "max_dropped"),
    (dict(validation=1.0), "validation"), (dict(validation=-0.1), "validation")])
def test_wrong_settings_name_their_key(settings, key):
  with pytest.raises(ValueError, match=f"^{key} is"):
    RowsConfig("x.jsonl", **settings)
