"""`sftrl plan --published` on the command line."""

import json
import pathlib

import pytest

from sftrl_jax.main import main
from sftrl_jax.programs.plan.published import calibration


def test_every_run_has_a_row_and_the_last_line_has_the_errors(capsys, tmp_path):
  path = tmp_path / "published.json"
  assert main(["plan", "--published", f"--json={path}"]) == 0
  lines = capsys.readouterr().out.splitlines()
  predicted = calibration.predictions()
  assert all(sum(line.startswith(f"{run.run.name}  ") for line in lines) == 1 for run in predicted)
  assert all(any(run.run.source in line for line in lines) for run in predicted)
  median, worst = calibration.tested_errors(predicted)
  assert lines[-1] == f"Written: {path}" and f"median error {median:.1%}, worst {worst.error:.1%}" in lines[-2]
  content = json.loads(path.read_text())
  assert content["median_error"] == median and len(content["runs"]) == len(predicted)
  assert all(run["seconds_bound"] < run["seconds_published"] and run["source"] for run in content["runs"])


def test_the_page_about_plans_has_the_errors_of_today():
  text = (pathlib.Path(__file__).parents[4] / "launch" / "README.md").read_text().replace("\n", " ")
  predicted = calibration.predictions()
  tested = [run for run in predicted if not run.calibrates]
  median, worst = calibration.tested_errors(predicted)
  near = sum(run.error <= 0.1 for run in tested)
  assert f"{len(predicted)} published training runs" in text and f"other {len(tested)} the step time is off" in text
  assert f"off by {median:.1%} in the median" in text and f"{worst.error:.0%} at 128k; {near} are within 10%" in text


@pytest.mark.parametrize("flag", ["--config=configs/general_points/sft.py", "--topology=v5e-16", "--config.batch=3"])
def test_it_takes_no_flags_of_a_run(flag, capsys):
  assert main(["plan", "--published", flag]) != 0
  assert f"leave out {flag.partition('=')[0]}" in capsys.readouterr().err


def test_without_it_plan_still_needs_a_config(capsys):
  assert main(["plan"]) != 0 and "plan needs --config" in capsys.readouterr().err
