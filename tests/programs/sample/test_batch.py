"""Rows in, answers out: in order, once each, and none for a row that says nothing."""

import json
import re

import jax
import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.pictures.read import png
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.runtime.lock import only_output
from sftrl_jax.programs.sample import batch
from sftrl_jax.programs.sample.batch import ADDED, answer_all, digest_of_pictures, messages, read
from sftrl_jax.programs.sample.generate import ChatSettings, responses, start_conversation
from sftrl_jax.programs.sample.run import contexts
from sftrl_jax.programs.sample.stopping import StopConditions
from sftrl_jax.text.render import render

PROMPTS = ["a", "b c d", "e", "f g", "h"]
SETTINGS = {"from": "here", "temperature": 1.0}


def write(path, rows):
  path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
  return path


@pytest.fixture
def run(generator, tmp_path):
  """run(rows, settings) -> (lines of the answers, how many are new)."""
  path = write(tmp_path / "in.jsonl", [{"prompt": prompt, "id": number} for number, prompt in enumerate(PROMPTS)])
  rows, _ = read(path)
  chat_settings = ChatSettings(generator, StopConditions(6), 1.0, jax.random.key(0))
  contexts = [render(generator.tokenizer, row.chat)[0] for row in rows]

  def make(out="out.jsonl", count=5, settings=SETTINGS):
    out = tmp_path / out
    count = answer_all(chat_settings, rows[:count], contexts, out, 2, settings, print)
    return out, [json.loads(line) for line in out.read_text().splitlines()], count

  return make


def test_answers_repeat_their_rows_in_order(run):
  _, lines, count = run()
  assert count == 5 and [(line["prompt"], line["id"]) for line in lines] == [(p, i) for i, p in enumerate(PROMPTS)]
  for line in lines:
    assert list(line)[-4:] == list(ADDED) and line["finish"] in ("stop", "length") and line["logprob"] < 0
    assert 1 <= line["tokens"] <= 6


def test_a_file_that_was_stopped_goes_on_and_is_the_same_at_the_end(run, tmp_path):
  whole, lines, _ = run()
  part, _, _ = run("part.jsonl", count=2)
  with part.open("a") as file:
    file.write('{"prompt": "e", "id": 2, "resp')   # a line that was being written
  part, again, count = run("part.jsonl")
  assert again == lines and count == 3
  assert run("part.jsonl")[2] == 0


def test_a_second_writer_of_the_answers_is_refused(run, tmp_path):
  with only_output(tmp_path / "out.jsonl", "--out"):
    with pytest.raises(ConfigError, match=r"out.jsonl is being written by process \d+: .* give another --out"):
      run()
  assert run()[2] == 5 and not list(tmp_path.glob(".*"))


def test_answers_to_other_rows_or_of_other_settings_are_not_mixed(run, tmp_path):
  out, _, _ = run(count=3)
  with pytest.raises(ConfigError, match="other settings .temperature."):
    run(settings={**SETTINGS, "temperature": 0.0})
  text = out.read_text()
  out.write_text(text.replace('"id": 1', '"id": 7'))
  with pytest.raises(ConfigError, match="line 2 does not answer line 2"):
    run()
  out.write_text(text + "null\n")
  with pytest.raises(ConfigError, match="line 4 does not answer"):
    run()
  out.write_text(text)
  with pytest.raises(ConfigError, match="3 lines, but --in only 2"):
    run(count=2)


def test_broken_rows_are_named_by_line_and_refused_or_left_out(tmp_path):
  path = tmp_path / "in.jsonl"
  path.write_bytes(b'{"prompt": "good"}\n\n{"prompt": ""}\n[1]\n{"text": "x"}\n{"prompt": "a", \n{"prompt": "\xff"}\n'
                   b'{"prompt": "a", "response": "b"}\n{"prompt": "a", "messages": []}\n')
  with pytest.raises(ConfigError) as error:
    read(path)
  for line, what in ((3, "empty"), (4, "object"), (5, "neither"), (6, "no JSON"), (7, "no UTF-8"), (8, "`response`"),
                     (9, "both")):
    assert f"line {line}: " in str(error.value) and what in str(error.value)
  assert "7 of 8 rows" in str(error.value) and "--on-bad-row=skip" in str(error.value)
  rows, broken = read(path, skip=True)
  assert [row.line for row in rows] == [1] and len(broken) == 7
  for content in ("", "\n\n", '{"prompt": ""}\n'):
    path.write_text(content)
    with pytest.raises(ConfigError):
      read(path, skip=True)
  with pytest.raises(ConfigError, match="cannot be read"):
    read(tmp_path / "missing.jsonl")


def test_messages_become_chats_and_the_system_text_stands_before_them(tmp_path):
  user, system = {"role": "user", "content": "hi"}, {"role": "system", "content": "be"}
  parts = {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}
  assert messages([user]) == messages([parts]) == (Message("user", "hi"),)
  assert messages([user], "be") == messages([system, user], "other") == (Message("system", "be"), Message("user", "hi"))
  rows, _ = read(write(tmp_path / "a.jsonl", [{"prompt": "hi"}, {"messages": [user]}, {"prompt": [user]}]), "be")
  assert {row.chat for row in rows} == {messages([user], "be")}
  rows, _ = read(write(tmp_path / "b.jsonl", [{"prompt": "hi"}]), raw=True)
  assert rows[0].text == "hi"
  with pytest.raises(ConfigError, match="--raw needs a text"):
    read(write(tmp_path / "c.jsonl", [{"messages": [user]}]), raw=True)


def test_rows_are_read_as_data_are(tmp_path):
  """A byte order mark before each part of joined files, line ends of Windows, columns that are null, tools."""
  path = tmp_path / "in.jsonl"
  user = [{"role": "user", "content": "b", "name": None}]
  path.write_bytes(b"".join(b"\xef\xbb\xbf" + json.dumps(row).encode() + b"\r\n" for row in (
      {"prompt": "a", "messages": None}, {"prompt": None, "messages": user, "tools": [{"name": "f"}]},
      {"conversations": [{"from": "human", "value": "b"}], "system": "be"})))
  rows, _ = read(path, "say")
  assert [[message.text for message in row.chat] for row in rows] == [["say", "a"], ["say", "b"], ["be", "b"]]
  assert [row.args for row in rows] == [{}, {"tools": [{"name": "f"}]}, {}] and rows[1].content["messages"] == user
  for line, message in ((b'{"prompt": "a", "prompt": "b"}', "line 1: has the key 'prompt' twice"),
                        (b'{"prompt": "a\\u0000"}', "a NUL at"), (b'{"prompt": "\\ud800"}', "half a surrogate pair"),
                        (b'{"prompt": 3}', "is a number"), (b'[{"prompt": "a"}]', "begins with '\\['")):
    path.write_bytes(line)
    with pytest.raises(ConfigError, match=message):
      read(path)


@pytest.mark.parametrize("value, message", [
    ([], "empty list"), ("hi", "list"), ([{"role": "user"}], r"messages\[0\].content: is missing"),
    ([{"role": "robot", "content": "x"}], r"messages\[0\].role: is 'robot'"),
    ([{"role": "user", "content": 3}], "is a number"),
    ([{"role": "user", "content": [{"type": "image"}]}], r"content\[0\]: is of type 'image'"),
    ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "last message is the assistant's")])
def test_messages_that_cannot_be_answered_say_why(value, message):
  with pytest.raises(ValueError, match=message):
    messages(value)


def test_many_broken_rows_are_counted_not_all_named(tmp_path):
  with pytest.raises(ConfigError) as error:
    read(write(tmp_path / "in.jsonl", ["{"] * 30))
  assert str(error.value).count("\n  line ") == batch.MOST_NAMED and "and 20 more" in str(error.value)


def seen(name, text="a", **columns):
  """A row whose message has these pictures before its text."""
  parts = [*({"type": "image"} for _ in name.split()), {"type": "text", "text": text}]
  return {"messages": [{"role": "user", "content": parts}], "images": name.split(), **columns}


@pytest.fixture
def pictures(tmp_path):
  """{file: pixels} of p0.png, p1.png and wide.png, which the models here do not read, beside the rows."""
  random = np.random.default_rng(0)
  pixels = {f"p{number}.png": random.integers(0, 256, (32, 32, 3)).astype(np.uint8) for number in range(2)}
  for name, image in {**pixels, "wide.png": np.zeros((32, 64, 3), np.uint8)}.items():
    (tmp_path / name).write_bytes(png(image))
  (tmp_path / "cut.png").write_bytes(png(pixels["p0.png"])[:900])
  (tmp_path / "text.png").write_text("no picture")
  return pixels


def test_rows_are_answered_by_their_own_pictures(pictured_generator, pictures, tmp_path):
  """As each row alone is. Rows of two pictures, one and none share a batch; paths are from the folder of the file."""
  own = [{"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "image", "path": "p1.png"},
                                      {"type": "text", "text": "c"}]}]
  rows = [seen("p0.png p1.png", id=7), {"prompt": "a"}, {"prompt": "a", "image": "p1.png"}, {"messages": own},
          {"prompt": [{"role": "user", "content": "a"}], "images": [{"bytes": None, "path": str(tmp_path / "p0.png")}]}]
  wanted = [("p0.png", "p1.png"), (), ("p1.png",), ("p1.png",), ("p0.png",)]
  there, _ = read(write(tmp_path / "in.jsonl", rows))
  tokenizer = pictured_generator.tokenizer
  there, ids, broken = contexts(tokenizer, there, raw=False)
  settings = ChatSettings(pictured_generator, StopConditions(6), 1.0, jax.random.key(0))
  assert not broken and answer_all(settings, there, ids, tmp_path / "out.jsonl", 4, SETTINGS, print) == 5
  lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
  assert [{key: value for key, value in line.items() if key not in ADDED} for line in lines] == rows
  for number, (line, names) in enumerate(zip(lines, wanted, strict=True)):
    assert ids[number].count(tokenizer.image) == len(names)
    alone = start_conversation(pictured_generator, [ids[number]], 6, pictures=[tuple(pictures[name] for name in names)])
    *_, (_, (generation,)) = responses(settings, alone, [number])
    assert (line["response"], line["tokens"]) == (generation.text, len(generation.tokens))
    assert line["logprob"] == pytest.approx(generation.logprob, abs=1e-4)
  swapped = start_conversation(pictured_generator, [ids[0]], 6, pictures=[tuple(pictures.values())[::-1]])
  *_, (_, (generation,)) = responses(settings, swapped, [0])
  assert abs(generation.logprob - lines[0]["logprob"]) > 1e-3
  digest = digest_of_pictures(there)
  assert digest and not digest_of_pictures(there[1:2]) and digest != digest_of_pictures(there[::-1])
  (tmp_path / "p1.png").write_bytes(png(pictures["p0.png"]))
  with pytest.raises(ConfigError, match="--in line 1: .*p1.png has changed since the rows were read"):
    answer_all(settings, there, ids, tmp_path / "again.jsonl", 4, SETTINGS, print)
  assert digest_of_pictures(read(tmp_path / "in.jsonl")[0]) != digest


@pytest.mark.parametrize("row, message", [
    ({**seen("p0.png"), "images": ["p0.png", "p1.png"]}, r"images: has 2 pictures, but the messages have 1 part"),
    ({**seen("p0.png p1.png"), "images": "p0.png"}, r"images: has 1 picture, but the messages have 2 parts"),
    ({**seen("p0.png"), "images": []}, r"images: has no pictures, but the messages have 1 part"),
    (seen("cut.png"), r"images\[0\]: .*cut.png is no picture that can be read"),
    (seen("text.png"), r"images\[0\]: .*text.png is no picture that can be read"),
    (seen("p0.png gone.png"), r"images\[1\]: .*gone.png cannot be read .no such file"),
    ({"prompt": "a", "images": ["https://a/b.png"]}, "is the address .* fetch them first"),
    ({"prompt": "a", "images": ["p0.png"], "image": "p1.png"}, "has pictures in both images and image"),
    ({"prompt": "<image> a", "images": ["p0.png"]}, "spells <image>, which stays text"),
    (seen("wide.png"), r"picture is uint8 .32, 64, 3., but config.model reads"),
    ({**seen("p0.png"), "messages": [{"role": "user", "content": [{"type": "image"}]}]}, "it ends in a picture"),
    ({"prompt": "a", "images": ["p0.png"], "of": "text"}, "renders text only, .* use a vision-language model"),
    ({"prompt": "a", "images": ["p0.png"], "of": "raw"}, "pictures in `images`, which have no place in a bare text")])
def test_a_row_whose_pictures_cannot_be_shown_is_named_once(pictured_generator, generator, pictures, tmp_path, row,
                                                            message):
  kind, path = row.get("of", ""), write(tmp_path / "in.jsonl", [{"prompt": "a"}, row])
  rows, broken = read(path, raw=kind == "raw", skip=True)
  _, _, unreadable = contexts((generator if kind == "text" else pictured_generator).tokenizer, rows, kind == "raw")
  broken, = broken + unreadable
  assert re.search(f"^line 2: (it has )?.*{message}", broken) and "\n" not in broken
