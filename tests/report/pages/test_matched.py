from sftrl_jax.report import read_workdir
from sftrl_jax.report.pages import matched
from sftrl_jax.report.pages.blocks import Table, Text
from sftrl_jax.report.stats import effects


def test_the_table_names_the_points_between_which_the_reference_was_read(points_study):
  study = read_workdir.read_study(points_study)
  measured = effects.measure(study, 20)
  table, = matched.matched_blocks(study, measured)
  assert isinstance(table, Table) and [row[1] for row in table.rows] == ["greedy", "T=1"]
  reads = [read for read in measured.reads if read.temperature == 0.0]
  last = f"{max(read.updates[1] for read in reads):,.0f} updates"
  assert last in table.rows[0][-1] and "FLOPs" in table.rows[0][-1] and table.header[-1] == "SFT was read"


def test_of_many_methods_each_has_a_line_and_other_bases_are_none(arms_study):
  study = read_workdir.read_study(arms_study)
  table, = matched.matched_blocks(study, effects.measure(study, 20))
  lines = {row[0]: row for row in table.rows if row[1] == "greedy"}
  assert {"PPO − SFT", "SFT EARLY − SFT", "PPO HALF − SFT"} <= set(lines)
  assert lines["PPO CLEAN − SFT"][4] == "other bases" and lines["PPO CLEAN − SFT"][2] == "–"


def test_without_a_crossing_a_sentence_says_so(points, tmp_path):
  study = read_workdir.read_study(points.write_study(tmp_path, bases=1, points=1))
  assert isinstance(matched.matched_blocks(study, effects.measure(study, 20))[0], Text)
