import math

from sftrl_jax.report import read_workdir
from sftrl_jax.report.pages.blocks import Table
from sftrl_jax.report.pages.tables import reach_table


def test_a_cell_has_the_mean_its_spread_and_how_many_came_to_it():
  assert reach_table._cell([1e12, 3e12]) == "2e12 (1e12 to 3e12)"
  assert reach_table._cell([2e12, math.inf, 2e12]) == "2e12, 2 of 3"
  assert reach_table._cell([math.inf]) == "not reached" and reach_table._cell([0.0, 0.0]) == "0"


def test_every_method_has_a_row_and_every_level_a_column(whole_study):
  study = read_workdir.read_study(whole_study)
  _, table = reach_table.reach_blocks(study)
  assert isinstance(table, Table) and [row[0] for row in table.rows] == list(study.methods.values())
  assert table.header[1:] == ("50%", "75%", "90%") and table.rows[1][-1] == "not reached"


def test_runs_of_one_evaluation_have_no_table(make_study, tmp_path):
  assert reach_table.reach_blocks(read_workdir.read_study(make_study(tmp_path, bases=1, points=1))) == []
