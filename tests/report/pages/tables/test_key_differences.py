import json

from sftrl_jax.report import read_workdir
from sftrl_jax.report.pages.blocks import Table, Text
from sftrl_jax.report.pages.tables.key_differences import key_differences
from sftrl_jax.report.stats import effects


def blocks(directory):
  study = read_workdir.read_study(directory)
  return study, key_differences(study, effects.measure(study, resamples=100), list(study.methods))


def test_a_row_has_what_was_measured_of_a_method_and_no_column_is_empty(arms_study):
  study, (_, table, _, advice) = blocks(arms_study)
  assert isinstance(table, Table) and [row[0] for row in table.rows] == list(study.methods.values())
  rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
  assert rows[study.methods["ppo_never"]]["runs not finished"] == "3" == rows[study.methods["ppo_late"]][
      "runs not finished"]
  assert rows[study.methods["ppo"]]["runs not finished"] == "0" and "change, probes" not in table.header
  assert "Probes" not in table.caption and "Training time" in table.caption
  for column in table.header:
    assert any(row[column] not in ("–", "") for row in rows.values()), column
  assert isinstance(advice, Text)


def test_peak_memory_is_the_most_of_any_process_of_a_run_and_absent_without_it(make_study, log_lines, tmp_path):
  home = make_study(tmp_path, bases=2, episodes=20)
  _, (_, table, *_) = blocks(home)
  assert not any("memory" in column for column in table.header) and "Peak memory" not in table.caption
  for base, gib in ((0, (3.0, 2.0)), (1, (2.0, "nan"))):   # the second process of base 0 held less
    for number, value in enumerate(gib):
      log_lines(home / "runs" / f"base-{base}-ppo-0", json.dumps({"step": 500 + number, "memory/peak_gib": value}))
  study, (_, table, *_) = blocks(home)
  memory = {row[0]: row[table.header.index("peak memory, GiB")] for row in table.rows}
  assert memory == {study.methods["sft"]: "–", study.methods["ppo"]: "2.50"} and "Peak memory" in table.caption


def test_old_tasks_have_a_column_and_a_note_where_they_were_probed(make_study, tmp_path):
  home = make_study(tmp_path, bases=2, episodes=20)
  for path in (home / "runs").glob("*/evals.jsonl"):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines += [{**line, "variant": "old", "probe": True} for line in lines if line["variant"] == "rule_ood"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  _, (_, table, *_) = blocks(home)
  changes = [[row[table.header.index(name)] for row in table.rows] for name in (
      "change, probes", next(name for name in table.header if name.startswith("change, ")))]
  assert changes[0] == changes[1] and "Probes are tasks from before" in table.caption


def test_the_advice_names_the_largest_value_of_each_purpose(whole_study):
  study, (_, _, _, advice) = blocks(whole_study)
  inside, shifted, cost = advice.text.split(". ")
  assert f"({study.labels.variant('id_seen')}): SFT, " in inside and "over 5 bases" in inside
  assert f"({study.labels.variant('rule_ood')}): PPO, " in shifted
  assert "FLOPs to 50%" in cost and ": SFT, " in cost


def test_few_bases_are_no_recommendation(make_study, tmp_path):
  _, (*_, advice) = blocks(make_study(tmp_path, bases=2))
  assert advice.text.endswith("2 bases cannot distinguish methods: these are the largest means, not recommendations.")
  assert "not distinguished" not in advice.text


def test_without_a_finished_run_there_is_nothing_to_say(make_study, tmp_path):
  assert blocks(make_study(tmp_path, bases=1, finished=False))[1] == []
