import json
import math
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
    ({"first_parts": {"cards": "012"}}, "first_parts.cards must be 4 digits 0 or 1"),
    ({"first_parts": {"cards\u202e": 3}}, "first_parts.cards\ufffd must be 4 digits 0 or 1"),
    ({"episode_parts": {"sign": [[1, 0, 0, 0], [1, 1, 1]]}}, r"episode_parts.sign\[1\] must be 4 counts"),
    ({"episode_parts": {"sign": [1, 0, 0, 0]}}, r"episode_parts.sign\[0\] must be 4 counts"),
    ({"episode_parts": {"sign": [[1, 2, 0, 0], [1, 1, 1, 1]]}}, "no episode may have more right responses"),
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


def test_lines_of_many_points_are_read_whole(points, tmp_path):
  run = read_workdir.read_run(points.write_run(tmp_path / "run"))
  line = json.loads((run.directory / "evals.jsonl").read_text().splitlines()[0])
  read = run.curve(line["variant"], line["temperature"])[0]
  assert (read.right_N.tolist(), read.responses_N.tolist()) == (line["episode_right"], line["episode_responses"])
  assert read.per_step == pytest.approx(line["per_step"]) and read.attempts_of == "point"
  assert read.verdicts == line["all_codes"] != line["codes"]
  assert read.share("first_right", "points") == line["first_right"] / line["points"]
  assert math.isnan(read.count("entropy")) and run.curve("id", 1.0)[0].pass_at == {1: 0.5, 4: 0.8}
  # Right at the first try everywhere is what one attempt means here.
  assert read.within(1).tolist() == [float(o == "1") for o in line["outcomes"]]


def test_a_line_of_an_older_version_has_none_of_it(make_run, tmp_path):
  read = read_workdir.read_run(make_run(tmp_path / "run", "ppo", episodes=20)).evaluations[0]
  assert read.attempts_of == "episode" and not read.responses_N.size and read.verdicts is read.codes
  assert math.isnan(read.per_step) and math.isnan(read.updates) and not read.counts and not read.pass_at


@pytest.mark.parametrize(("change", "message"), [
    ({"episode_right": [1, 1, 0]}, "episode_right must be 4 counts"),
    ({"episode_right": [1, 1, 0, -1]}, "episode_right must be 4 counts"),
    ({"episode_right": [1, 1, 0, 0.5]}, "episode_right must be 4 counts"),
    ({"episode_right": [1, 1, 0, float("nan")]}, "episode_right must be 4 counts"),
    ({"episode_right": [1, 1, 0, 10**400]}, "episode_right must be 4 counts"),
    ({"episode_right": [1, 1, 0, True]}, "episode_right must be 4 counts"),
    ({"episode_right": "1100"}, "episode_right must be 4 counts"),
    ({"episode_responses": {}}, "episode_responses must be 4 counts"),
    ({"episode_right": []}, "must both be there"), ({"episode_right": [1, 1, 0, 3]}, "more right responses than"),
    ({"per_step": 0.9}, "per_step is 0.9000, but 0.2500"), ({"per_step": "1"}, "per_step is '1'"),
    ({"attempts_of": "route"}, "attempts_of is 'route'"), ({"attempts_of": ["point"]}, "attempts_of"),
])
def test_damaged_counts_are_named(make_run, tmp_path, change, message):
  directory = make_run(tmp_path / "run", "sft")
  good = {"step": 900, "variant": "x", "temperature": 0.0, "attempts": 3, "episodes": 4, "success": 0.5, "flops": 1.0,
          "outcomes": "0120", "seed": 1, "episode_right": [1, 1, 0, 0], "episode_responses": [2, 2, 2, 2],
          "per_step": 0.25, "attempts_of": "point"}
  append(directory / "evals.jsonl", json.dumps(good | change) + "\n")
  with pytest.raises(ValueError, match=f"line 31: .*{message}"):
    read_workdir.read_run(directory)


def test_numbers_that_are_only_printed_are_left_out_where_they_are_none(points, tmp_path):
  run = points.write_run(tmp_path / "run")
  lines = [json.loads(line) for line in (run / "evals.jsonl").read_text().splitlines()]
  for line in lines:
    line |= {"entropy": "x", "updates": float("nan"), "legal": -1, "all_codes": [1], "distinct": None,
             "points": 10**400, "pass_at": {"0": 0.5, "a": 0.5, "2": 1.5, "4": "x", "8": 0.5}, "expert_accuracy": {}}
  (run / "evals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  read = read_workdir.read_run(run).evaluations[0]
  assert set(read.counts) == {"responses", "first_right", "paper_flops", *({"expert_states"} & set(read.counts))}
  assert read.pass_at == {8: 0.5} and read.verdicts is read.codes and math.isnan(read.share("first_right", "points"))


@pytest.mark.parametrize(("change", "message"), [
    ({"claims": {}}, "claims is"), ({"claims": ["x"]}, "claims, number 1: is 'x'"),
    ({"claims": [{"method": "ppo", "sign": 1}, {"method": "x", "sign": 1}]}, "claims, number 2: method is 'x'"),
    ({"measure": "reward"}, "measure is 'reward'"), ({"measure": ["success"]}, "measure is")])
def test_damaged_claims_of_a_study_are_named(make_study, tmp_path, change, message):
  path = make_study(tmp_path, bases=1, skip=("base-0-sft-0", "base-0-ppo-0")) / "study.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  with pytest.raises(ValueError, match=f"study.json: {message}"):
    read_workdir.read_study(tmp_path)


def test_other_bases_are_read_and_hostile_tables_by_method_are_left_out(arms_study, make_run, make_study, tmp_path):
  study = read_workdir.read_study(arms_study)
  assert study.bases_of == {"ppo_clean": "ppo_clean"} and study.budgets["ppo_half"] == {"flops": 1e12}
  path = make_study(tmp_path, bases=1, episodes=20) / "study.json"
  make_run(tmp_path / "runs" / "base-0-clean", "sft", episodes=20)
  path.write_text(json.dumps(json.loads(path.read_text()) | {
      "bases_of": {"ppo": "clean", "sft": "../..", "x": "clean"}, "notes": {"ppo": 3, "x": "y"},
      "budgets": {"ppo": 5, "sft": {"flops": float("nan"), "steps": 7}}}))
  study = read_workdir.read_study(tmp_path)
  assert (study.bases_of, study.notes, study.budgets) == ({"ppo": "clean"}, {"ppo": "3"}, {"sft": {"steps": 7.0}})
  assert [run.name for run in study.starts.values()] == ["base-0-clean"] and list(study.starts) == [(0, "clean")]


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
  assert read_workdir.read_run(run).labels == EnvLabels(
      {"rule_ood": "new rule\ufffd"}, {"value": "off"}, GENERAL_POINTS.parts)
  (run / "labels.json").unlink()
  (run / "labels.json").mkdir()
  assert read_workdir.read_run(run).labels is GENERAL_POINTS
