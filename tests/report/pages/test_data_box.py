"""The rows that a run read, in its report."""

import json

from sftrl_jax.report import read_workdir
from sftrl_jax.report.pages import data_box
from sftrl_jax.report.write import write_run

DATA = {"path": "/data/chats.jsonl", "format": "messages", "read": 1000, "kept": 990, "truncated": 12, "tokens": 50000,
        "label_tokens": 20000, "packed": {"rows": 77, "filled": 0.98, "held": 5, "overlap": 2}, "sha256": "f00",
        "dropped": [{"reason": "no JSON", "count": 10, "first": ["chats.jsonl:7"]}],
        "ignored": [["id", 990], ["messages[].name", 3]],
        "notes": [{"what": "odd rows", "count": 4, "first": ["a:1"], "example": "'x'"}], "example": "<bos>q[[a<eos>]]"}


def workdir(folder, content=None):
  folder.mkdir()
  (folder / "config.json").write_text(json.dumps({"verb": "sft", "seed": 0}))
  (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 2.0, "eval/loss": 2.5}) + "\n")
  if content is not None:
    (folder / "data.json").write_text(json.dumps(content))
  return folder


def test_the_account_of_the_rows_is_in_the_report(tmp_path):
  path = write_run(workdir(tmp_path / "own", DATA))
  page = path.read_text()
  for text in ("1,000 read, 990 kept, 12 truncated", "50,000, of which 20,000 are learned",
               "77 rows a pass, 98.0% full", "5 examples", "2 examples",
               "id (990), messages[].name (3)", "4 odd rows: ", "10 no JSON (chats.jsonl:7)", "[[a&lt;eos&gt;]]"):
    assert text in page, text


def test_a_run_on_demonstrations_has_none_and_strange_values_do_no_harm(tmp_path):
  assert data_box.data_blocks(read_workdir.read_run(workdir(tmp_path / "plain"))) == []
  torn = workdir(tmp_path / "torn", {"packed": 5, "dropped": [3], "notes": [3], "ignored": 4, "read": "x"})
  assert len(data_box.data_blocks(read_workdir.read_run(torn))) == 3


def test_accuracy_on_held_out_pairs_is_in_the_report(tmp_path):
  home = workdir(tmp_path / "pairs", DATA)
  line = {"variant": "rule_ood", "pairs": 1000, "ci95": [0.5, 0.7]}
  (home / "evals.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (
      {"step": 0, **line, "rewards/accuracies": 0.0}, {"step": 9, **line, "rewards/accuracies": 0.612},
      {"step": 9, "variant": "odd", "pairs": "x"})))
  page = write_run(home).read_text()
  assert "Held-out pairs" in page and "61.2% (50.0% to 70.0%)" in page and "1,000" in page
