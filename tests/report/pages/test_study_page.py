import dataclasses
import math

from sftrl_jax.report import read_workdir
from sftrl_jax.report.pages import study_page
from sftrl_jax.report.pages.blocks import Table
from sftrl_jax.report.stats import effects
from sftrl_jax.report.stats.bootstrap import Estimate


def test_the_table_has_a_row_a_variant_and_decoding(whole_study):
  study = read_workdir.read_study(whole_study)
  header, rows = study_page.result_rows(study, effects.measure(study, 50))
  assert header == ("variant", "decoding", "start", "SFT end", "SFT change", "PPO end", "PPO change", "PPO − SFT")
  assert len(rows) == 6 and all(len(row) == len(header) for row in rows)


def test_a_missing_estimate_is_a_dash():
  assert study_page.cell(None) == "–"


def test_with_few_bases_a_cell_has_them_one_by_one_and_an_interval_over_episodes():
  few = Estimate(0.1, 0.05, 0.15, math.nan, math.nan, 2, 2, 9, 1.0, (0.02, 0.18))
  assert study_page.cell(few) == "+10.0 [+2.0, +18.0] (+5.0 to +15.0) †"
  assert study_page.cell(dataclasses.replace(few, bases=1, per_base=(0.1,))) == "+10.0 (+5.0 to +15.0) †"
  many = dataclasses.replace(few, t_low=0.0, t_high=0.2, bases=3, per_base=(0.1,) * 3)
  assert study_page.cell(many) == "+10.0 (+0.0 to +20.0)"


def test_two_bases_are_said_before_any_table_and_no_t_interval_is_shown(points, tmp_path):
  study = read_workdir.read_study(points.write_study(tmp_path, bases=2))
  measured = effects.measure(study, 20)
  notice, *_ = study_page.opening(study, measured, ())[1:]
  assert "2 base models only" in notice.title and "no interval over bases" in notice.items[0]
  header, rows = study_page.result_rows(study, measured)
  assert all(row[4].count("†") == 1 and row[4].count("[") == 1 for row in rows)
  assert "over episodes only" in study_page.interval_words(measured)
  assert study_page.dagger(measured, [("a", "b")]) == "" != study_page.dagger(measured, rows)


def test_both_measures_have_a_table(points_study, tmp_path):
  study = read_workdir.read_study(points_study)
  measured = effects.measure(study, 20)
  blocks = study_page.results(study_page.Chapter(study, measured, {"sft": "red", "ppo": "blue"}, tmp_path))
  first, second = (block for block in blocks if isinstance(block, Table))
  assert first.caption.startswith("Right responses of all") and "within 2 tries a point" in second.caption
  assert first.rows != second.rows and (tmp_path / "curves_updates.png").exists()
