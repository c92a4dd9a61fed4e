"""What a person is told of the data."""

import dataclasses
import json

from sftrl_jax.data.report import Dropped, Noted, Packed, Report, marked, plain, text
from sftrl_jax.text.tokenizer import byte, words

REPORT = Report(
    path="/data/chats.jsonl", format="messages", read=1000, kept=990,
    dropped=(Dropped("no JSON", 1, ("chats.jsonl:7",)), Dropped("empty", 9, ("a:1", "a:2", "a:3"))), truncated=99,
    trailing=5, length=512, tokens=50_000, label_tokens=12_500, ends=891, ignored=(("id", 990), ("url\x1b", 3)),
    sha256="f00", first="chats.jsonl:1", lengths=((32, 900), (64, 0), (128, 90)),
    notes=(Noted("odd rows", 2, ("a:3",), "'x'"),), duplicates=1)
PACKED = Packed(rows=100, filled=0.9765, steps=12.5, held=10, overlap=4)


def test_every_number_is_told():
  page = text(REPORT, PACKED, "what\n[[is]]")
  for line in ("/data/chats.jsonl, as messages", "1,000 read, 990 kept, 10 dropped (1.0%)", "1 no JSON (chats.jsonl:7)",
               "9 empty (a:1, a:2, a:3, ...)", "99 (10.0%) to 512 tokens", "in 5 rows",
               "not read   id (990), url\\x1b (3)", "1 examples are equal to an earlier one",
               "4 of the examples held out are trained on too", "2 odd rows (a:3, ...): 'x'",
               "50,000, of which 12,500 (25.0%) are learned; 891 of 990 end in <eos>",
               "100 rows of 512 tokens a pass, 97.7% full; a pass is 12.5 steps", "10 examples, for eval/loss",
               "the example of chats.jsonl:1:", "    [[is]]"):
    assert line in page, page
  bars = {line.split()[2]: line.count("#") for line in page.splitlines() if "up to" in line}
  assert bars == {"32": 40, "64": 0, "128": 4}


def test_what_did_not_happen_is_not_told():
  page = text(dataclasses.replace(REPORT, kept=1000, dropped=(), truncated=0, trailing=0, ignored=(),
                                  notes=(), duplicates=0),
              dataclasses.replace(PACKED, held=0, overlap=0), "x")
  assert not any(word in page for word in ("truncated", "left out", "not read", "held out", "warning", "equal"))


def test_it_is_written_as_json():
  record = json.loads(json.dumps(plain(REPORT, PACKED, "x")))
  assert record["sha256"] == "f00"
  assert record["dropped"][0] == {"reason": "no JSON", "count": 1, "first": ["chats.jsonl:7"]}
  assert record["packed"]["filled"] == 0.9765 and record["example"] == "x"


def test_what_is_learned_is_marked():
  tokenizer = words(("what", "is", "it"))
  assert marked(tokenizer, tokenizer.encode("what is it"), (0.0, 1.0, 1.0)) == "what [[is it]]"
  ids = byte().encode("ab\ncd")
  assert marked(byte(), ids, [False, True, True, False, False]) == "a[[b\n]]cd"
  assert marked(byte(), ids, [False, True, True, False, False], colour=True) == "a\033[32mb\n\033[0mcd"


def test_no_text_can_steer_the_terminal():
  assert marked(byte(), byte().encode("\x1b[2Ja\x9b\t"), [False] * 8) == "\\x1b[2Ja\\x9b\t"


def test_a_long_example_is_cut():
  shown = marked(byte(), byte().encode("x" * 5000), [True] * 5000)
  assert shown.startswith("[[xxx") and shown.endswith("x]]...") and len(shown) < 500
