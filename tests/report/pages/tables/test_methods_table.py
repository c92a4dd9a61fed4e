from sftrl_jax.report import read_workdir
from sftrl_jax.report.pages.tables.methods_table import methods_table
from sftrl_jax.report.stats import effects


def test_every_method_has_a_line_with_its_note_and_what_it_spent(arms_study):
  study = read_workdir.read_study(arms_study)
  table, = methods_table(study, effects.measure(study, 20), list(study.methods))
  rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
  assert len(rows) == len(study.methods) == 8
  assert all(row["what it is for"].startswith("Why there is") for row in rows.values())
  assert (rows["SFT"]["updates"], rows["SFT EQUAL"]["updates"], rows["PPO"]["updates"]) == ("2,500", "250", "256")
  assert (rows["SFT EARLY"]["FLOPs"], rows["PPO"]["FLOPs"]) == ("2e11", "2e12")
  assert rows["PPO"]["runs"] == "3 of 3 finished" and rows["PPO LATE"]["runs"] == "0 of 3 finished, 3 begun"
  assert rows["PPO NEVER"]["runs"] == "0 of 3 finished" and rows["PPO NEVER"]["updates"] == "–"
  assert rows["SFT"]["KL, id"] == "0.90" and rows["SFT"]["at the expert's states, id"].endswith("%")
  assert "PPO CLEAN starts from other bases" in table.caption


def test_columns_that_no_line_fills_are_left_out(whole_study):
  study = read_workdir.read_study(whole_study)
  table, = methods_table(study, effects.measure(study, 20), list(study.methods))
  assert table.header == ("method", "runs", "FLOPs", "KL, ID, seen pairs", "KL, OOD, new rule")
