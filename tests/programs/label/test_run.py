"""`sftrl label` as a command: on a file and on models, scripted by stdin; the next run trains on what it wrote."""

import io
import json
import sys

import numpy as np
import pytest

from sftrl_jax.data.pairs.batches import load_pairs
from sftrl_jax.data.pairs.rows import PairsConfig
from sftrl_jax.main import main
from sftrl_jax.pictures.read import png
from sftrl_jax.text.tokenizer import byte


@pytest.fixture
def label(monkeypatch, capsys):
  """label(lines, *words) -> (exit code, stdout, stderr) of the command, with these lines typed."""

  def run(lines, *words):
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    code = main(["label", *map(str, words)])
    return code, *capsys.readouterr()

  return run


def test_pairs_of_a_file_are_labelled_and_trained_on(label, pairs, tmp_path):
  out = tmp_path / "labels.jsonl"
  code, shown, _ = label(["1", "2", "t"], pairs, f"--out={out}")
  assert code == 0 and "--- 1/18 ---" in shown and f"{out}: 2 pairs, 1 tie, 0 skipped." in shown
  assert "They prefer what the file prefers in" in shown and f"--config.data.path={out}" in shown
  code, shown, _ = label(["2"] * 20, pairs, f"--out={out}", "--count=6")
  assert code == 0 and "--- 6/6 ---" in shown and ": 5 pairs" in shown
  corpus = load_pairs(PairsConfig(str(out), length=96), byte())
  assert corpus.count == corpus.report.read == 5


def test_a_run_answers_the_prompts_of_its_task_twice(label, finished, tmp_path):
  out = tmp_path / "labels.jsonl"
  command = (finished("sft"), f"--out={out}", "--count=2", "--max-new-tokens=6", "--seed=3")
  code, shown, error = label(["1", "q"], *command)
  assert code == 0 and "--- 1/2 ---" in shown, error
  code, shown, _ = label(["2"], *command)
  assert code == 0 and "--- 2/2 ---" in shown and "--- 1/2 ---" not in shown
  rows = [json.loads(line) for line in out.read_text().splitlines()]
  assert len(rows) == 2 and all(row["chosen"] != row["rejected"] and row["prompt"][0]["role"] == "user" for row in rows)


def test_prompts_with_pictures_are_refused(label, finished, tmp_path):
  prompts, out = tmp_path / "prompts.jsonl", tmp_path / "labels.jsonl"
  (tmp_path / "a.png").write_bytes(png(np.zeros((2, 2, 3), np.uint8)))
  prompts.write_text(json.dumps({"prompt": "what?", "images": ["a.png"]}) + "\n")
  code, _, error = label([], finished("sft"), f"--prompts={prompts}", f"--out={out}")
  assert code == 1 and "line 1: it has pictures, which a terminal cannot show" in error


@pytest.mark.parametrize("words, message", [
    (["PAIRS"], "label needs --out"), (["PAIRS", "--out=OUT", "--config.seed=1"], "has the responses"),
    (["PAIRS", "--out=OUT", "--prompts=x.jsonl"], "has the responses, so --prompts has no place"),
    (["PAIRS", "--out=OUT", "--count=x"], "--count=x is no whole number"),
    (["PAIRS", "--out=OUT", "--temperature=0"], "--temperature is 0"),
    (["nowhere.jsonl", "--out=OUT"], "FROM is .*nowhere.jsonl"), (["nowhere", "--out=OUT"], "'nowhere' is neither")])
def test_wrong_words_are_one_error(label, pairs, tmp_path, words, message):
  out = tmp_path / "labels.jsonl"
  code, _, error = label([], *[word.replace("PAIRS", str(pairs)).replace("OUT", str(out)) for word in words])
  assert code in (1, 2) and error.count("error: ") == 1 and not out.exists()
  import re
  assert re.search(message, error), error
