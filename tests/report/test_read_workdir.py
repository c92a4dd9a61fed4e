import json
import pathlib

import pytest

from sftrl_jax.report import read_workdir
from sftrl_jax.report.labels import GENERAL_POINTS, EnvLabels


def append(path, text):
  with open(path, "a") as file:
    file.write(text)


def test_a_run_reads_back_what_was_written(make_run, tmp_path):
  run = read_workdir.read_run(make_run(tmp_path / "base-0-ppo-0", "ppo"))
  assert (run.name, run.verb, run.finished) == ("base-0-ppo-0", "rl", True)
  curve = run.curve("rule_ood", 0.0)
  assert [e.step for e in curve] == [0, 100, 200, 300, 400]
  assert all(e.success == pytest.approx((e.outcomes > 0).mean()) for e in curve)
  assert curve[0].within(1).mean() < curve[0].within(3).mean() == pytest.approx(curve[0].success)
  steps, scores = run.column("objective/scores")
  assert len(steps) == len(scores) == len(run.metrics) and run.last("compute/total_flops") > 0


def test_a_run_in_parts_reads_back_as_one_in_whole_files(make_run, tmp_path):
  directory = make_run(tmp_path / "run", "sft")
  whole, episodes = read_workdir.read_run(directory), read_workdir.read_episodes(directory)
  for name in ("evals", "metrics", "episodes"):
    lines = (directory / f"{name}.jsonl").read_text().splitlines(keepends=True)
    (directory / f"{name}.jsonl").unlink()
    for number, first in enumerate(range(0, len(lines), 3), start=1):
      (directory / f"{name}.{number:05d}.jsonl").write_text("".join(lines[first : first + 3]))
  parted = read_workdir.read_run(directory)
  assert parted.metrics == whole.metrics and read_workdir.read_episodes(directory) == episodes
  assert [e.success for e in parted.evaluations] == [e.success for e in whole.evaluations]
  append(directory / "evals.00002.jsonl", "{\n{}\n")
  with pytest.raises(ValueError, match="evals.00002.jsonl line 4 is not JSON"):
    read_workdir.read_run(directory)


def test_a_torn_last_line_is_dropped_and_any_other_is_an_error(make_run, tmp_path):
  directory = make_run(tmp_path / "run", "sft")
  before = read_workdir.read_run(directory)
  for name in ("evals.jsonl", "metrics.jsonl", "episodes.jsonl"):
    append(directory / name, '{"step": 500, "variant": "rule_')
  after = read_workdir.read_run(directory)
  assert len(after.evaluations) == len(before.evaluations) and len(after.metrics) == len(before.metrics)
  assert len(read_workdir.read_episodes(directory)) == 4
  append(directory / "evals.jsonl", "\n" + (directory / "evals.jsonl").read_text().split("\n")[0] + "\n")
  with pytest.raises(ValueError, match=r"evals.jsonl line 31 is not JSON.*again"):
    read_workdir.read_run(directory)


def test_a_run_of_many_attempts_reads_back(make_run, tmp_path):
  """As rollout/tally.py writes them: a character an episode, letters from the tenth attempt on."""
  directory = make_run(tmp_path / "run", "ppo", episodes=20)
  line = {"step": 900, "variant": "x", "temperature": 0.0, "attempts": 40, "episodes": 5, "success": 0.8, "flops": 1.0,
          "outcomes": "09acz", "seed": 1}
  append(directory / "evals.jsonl", json.dumps(line) + "\n")
  read, = read_workdir.read_run(directory).curve("x", 0.0)
  assert read.outcomes.tolist() == [0, 9, 10, 12, 35] and read.within(10).tolist() == [0, 1, 1, 0, 0]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"success": float("nan")}, r"line 31: success is 'nan'; it must be a number in \[0, 1\]"),
    ({"success": 1.5}, "success"),
    ({"success": "0.5"}, "success"),
    ({"success": 0.9}, "outcomes are right on"),
    ({"flops": float("inf")}, "flops"),
    ({"outcomes": "01"}, "outcomes must be 4 digits"),
    ({"outcomes": "01X1"}, "outcomes must be 4 digits"),
    ({"outcomes": "01b1"}, "name attempt 11, but attempts is 3"),
    ({"outcomes": "0191"}, "attempts is 3"),
    ({"episodes": 0}, "episodes"),
    ({"step": 10**400}, "step"),
    ({"step": 0, "variant": "rule_ood"}, "disagree"),
  ],
)
def test_damaged_evaluations_are_named(make_run, tmp_path, change, message):
  directory = make_run(tmp_path / "run", "sft")
  good = {"step": 900, "variant": "x", "temperature": 0.0, "attempts": 3, "episodes": 4, "success": 0.5, "flops": 1.0,
          "outcomes": "0120", "seed": 1}
  append(directory / "evals.jsonl", json.dumps(good | change) + "\n")
  with pytest.raises(ValueError, match=message):
    read_workdir.read_run(directory)


def test_a_deep_or_huge_line_is_a_value_error(tmp_path):
  for text in ("[" * 10**5, '{"a": ' + "9" * 5000 + "}", "[1]"):
    (tmp_path / "x.jsonl").write_text(text + '\n{"a": 1}\n')
    with pytest.raises(ValueError, match="line 1"):
      read_workdir.read_lines(tmp_path / "x.jsonl")


def test_a_study_names_what_is_missing(make_study, tmp_path):
  study = read_workdir.read_study(make_study(tmp_path, bases=2, episodes=20, skip=("base-1-ppo-0",)))
  assert study.missing == ("base-1-ppo-0",) and len(study.runs) == 3
  assert (study.reference, study.compared_methods) == ("sft", ("ppo",))
  assert study.variants == ("id_seen", "id_unseen", "rule_ood") and study.temperatures == (0.0, 1.0)


@pytest.mark.parametrize("methods", [{}, {"../../etc": "x"}, [], "sft", {"a/b": "x"}])
def test_method_names_are_not_paths(tmp_path, methods):
  (tmp_path / "study.json").write_text(json.dumps({"methods": methods}))
  with pytest.raises(ValueError, match="methods"):
    read_workdir.read_study(tmp_path)


def test_directories_that_are_no_run_or_study_say_so(tmp_path):
  with pytest.raises(ValueError, match=r"no config.json.*--workdir"):
    read_workdir.read_run(tmp_path)
  with pytest.raises(ValueError, match="no study.json"):
    read_workdir.read_study(pathlib.Path(tmp_path))


@pytest.mark.parametrize("text", ['{"variants": {"rule_', "[" * 10**5, "[1]", '"x"', "\x00\udcff", "",
                                  '{"variants": [1], "codes": {"correct": 5, "value": null, "late": {"a": 1}}}'])
def test_a_damaged_labels_file_leaves_the_words_of_general_points(make_run, tmp_path, text):
  run = make_run(tmp_path / "run", "sft", episodes=20)
  assert read_workdir.read_run(run).labels is GENERAL_POINTS
  (run / "labels.json").write_bytes(text.encode(errors="surrogateescape"))
  assert read_workdir.read_run(run).labels is GENERAL_POINTS


def test_labels_are_read_with_the_run(make_run, tmp_path):
  run = make_run(tmp_path / "run", "sft", episodes=20)
  (run / "labels.json").write_text('{"variants": {"rule_ood": "new rule\\ud800"}, "codes": {"value": "off"}}')
  assert read_workdir.read_run(run).labels == EnvLabels({"rule_ood": "new rule\ufffd"}, {"value": "off"})
  (run / "labels.json").unlink()
  (run / "labels.json").mkdir()
  assert read_workdir.read_run(run).labels is GENERAL_POINTS
