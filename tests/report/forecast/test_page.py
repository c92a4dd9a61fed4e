"""The chapter on forecasts: what it says, and what the data can't say."""

import pytest

from sftrl_jax.report import read_workdir, write
from sftrl_jax.report.forecast import page
from sftrl_jax.report.pages.blocks import Table, Text, markdown_of
from sftrl_jax.report.pages.study_page import Chapter


def study_blocks(home, out, price=0.0):
  study = read_workdir.read_study(home)
  return page.study_blocks(Chapter(study, None, {"sft": "#D1622B", "ppo": "#2B6CB0"}, out), price)


def tables(blocks):
  return [block for block in blocks if isinstance(block, Table)]


def numbers(text):
  return [float(word.strip("(),")) for word in text.replace("$", "").split() if word.strip("(),")[:1].isdigit()]


def test_it_says_where_one_method_passes_another_in_flops_and_dollars(sigmoid_study, tmp_path):
  """PPO is above SFT under the shift, SFT above PPO in distribution, and both before the first evaluation is."""
  forecasts, crossings, backtest = tables(study_blocks(sigmoid_study(tmp_path / "study"), tmp_path / "out", 2.0))
  assert [row[2] for row in crossings.rows] == [f"{names} from the first evaluation on" for names in (
      "SFT is above PPO", "PPO is above SFT")]
  assert {row[6] for row in crossings.rows} == {"below $0.4 (below $0.4 to below $0.4)"}   # at the first, 2e11 FLOPs
  shares = [int(row[5].removesuffix("% at 4e12")) for row in crossings.rows]
  assert shares[0] < 5 and shares[1] > 95
  assert len(forecasts.rows) == 4 and forecasts.header[-1] == crossings.header[-1] == "dollars a run"
  assert {row[-1] for row in forecasts.rows} == {"$4"}   # 2e12 FLOPs at 1e-12 chip-hours and 2 dollars
  assert [row[1] for row in backtest.rows][-1].endswith("of 12")
  assert (tmp_path / "out" / "forecast.png").is_file() and (tmp_path / "out" / "forecast.csv").is_file()


def test_a_late_crossing_has_an_interval_with_the_truth_inside(sigmoid_study, tmp_path):
  """One starts higher and falls below the other at 8e11 FLOPs, by its parameters."""
  truths = {("sft", "id_seen"): (0.6, 0.2, 8e11, 2.5), ("ppo", "id_seen"): (0.2, 0.6, 8e11, 2.5),
            ("sft", "rule_ood"): (0.3, 0.3, 8e11, 1.0), ("ppo", "rule_ood"): (0.3, 0.3, 8e11, 1.0)}
  home = sigmoid_study(tmp_path / "study", truths=truths)
  _, crossings, _ = tables(study_blocks(home, tmp_path / "out", 2.0))
  inside, shifted = crossings.rows
  assert inside[2] == "PPO passes SFT"
  low, high = numbers(inside[4])
  assert low <= 8e11 <= high and numbers(inside[6])[0] == pytest.approx(2 * numbers(inside[3])[0] * 1e-12, abs=0.06)
  assert shifted[2] == page.CANT_SAY and shifted[3] == "–"   # two curves that are the same


def test_the_data_can_t_say_with_too_few_evaluations(sigmoid_study, tmp_path):
  blocks = study_blocks(sigmoid_study(tmp_path / "study", shares=(0, .5, 1)), tmp_path / "out")
  forecasts, crossings = tables(blocks)
  assert all(row[5].startswith(page.CANT_SAY) for row in forecasts.rows)
  assert all(row[2].startswith(page.CANT_SAY) for row in crossings.rows)
  assert any(isinstance(block, Text) and "12 finished curves with fewer than 4 evaluations" in block.text
             for block in blocks)
  assert not (tmp_path / "out" / "forecast.png").exists()


def test_a_study_that_has_only_begun_has_no_chapter(sigmoid_study, tmp_path):
  assert study_blocks(sigmoid_study(tmp_path / "study", shares=(0,), finished=False), tmp_path / "out") == []


def test_an_unfinished_study_is_forecast_to_the_end_of_its_budget(sigmoid_study, tmp_path):
  home = sigmoid_study(tmp_path / "study", shares=(0, .1, .2, .4, .6), finished=False)
  blocks = study_blocks(home, tmp_path / "out")
  forecasts = tables(blocks)[0]
  assert {row[4] for row in forecasts.rows} == {"2e12"} and {row[3].split()[-1] for row in forecasts.rows} == {"1.2e12"}
  assert any(isinstance(block, Text) and block.text == "There is none: no run is finished." for block in blocks)
  assert "--price" in "".join(map(markdown_of, [block for block in blocks if isinstance(block, Text)]))


def test_fewer_than_three_bases_say_nothing_about_others(sigmoid_study, tmp_path):
  one, three = (tables(study_blocks(sigmoid_study(tmp_path / f"s{n}", bases=n), tmp_path / f"o{n}"))[0] for n in (1, 3))
  assert "says nothing about other bases" in one.caption and "says nothing" not in three.caption
  assert one.rows[0][2] == "1 base"


def test_the_report_of_a_study_and_of_a_run_have_it(sigmoid_study, tmp_path):
  home = sigmoid_study(tmp_path / "study")
  html = write.write_study(home, tmp_path / "study_report", 1.5).read_text()
  assert f"<h2>{page.TITLE}</h2>" in html and "Backtest of the forecast" in html and "1.5 a chip-hour" in html
  run = write.write_run(home / "runs" / "base-0-sft-0", tmp_path / "run_report").read_text()
  assert f"<h2>{page.TITLE}</h2>" in run and (tmp_path / "run_report" / "forecast.png").is_file()


def test_many_methods_have_a_panel_each(sigmoid_study, tmp_path):
  methods = ("sft", "ppo", *(f"arm{number}" for number in range(5)))
  blocks = study_blocks(sigmoid_study(tmp_path / "study", methods), tmp_path / "out")
  assert len(tables(blocks)[0].rows) == 14 and len(tables(blocks)[1].rows) == 12
  assert "Dashed: shifted" in blocks[1].caption


@pytest.mark.parametrize(("amount", "text"), [(1234.5, "$1,234"), (38.2, "$38"), (1.234, "$1.2"), (0.00123, "$0.0012"),
                                              (float("nan"), "–")])
def test_dollars_have_two_digits(amount, text):
  assert page.dollars_text(amount) == text
