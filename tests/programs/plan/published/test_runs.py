"""The published runs agree with themselves: sizes with names, and seconds with FLOP/s."""

import pytest

from sftrl_jax.programs.plan.published import calibration, train_step
from sftrl_jax.programs.plan.published.runs import ATTENTION, COUNTS, MODELS, PROJECTED, RUNS


def test_a_model_has_the_size_that_its_name_gives():
  for name, config in MODELS.items():
    billions = float(name.rpartition("-")[2].removesuffix("b"))
    assert train_step.parameters(config) / 1e9 == pytest.approx(billions, rel=0.04), name


def test_a_run_is_complete_and_named_once():
  assert len({run.name for run in RUNS}) == len(RUNS) >= 8 and {run.model for run in RUNS} == set(MODELS)
  for run in RUNS:
    assert run.seconds or run.tflops, run.name
    assert run.source.startswith("https://") and run.count in COUNTS and run.chip in calibration.CHIPS, run.name
    assert set(run.saved) <= {*PROJECTED, ATTENTION} and run.chips % run.tensor == 0, run.name


def test_where_time_and_flops_were_published_our_count_by_their_rule_is_theirs():
  recounts = {run.run.name: run.recount for run in calibration.predictions() if run.recount is not None}
  assert len(recounts) >= 8
  unreconciled = recounts.pop("v5p x 512 llama2-70b")   # its count is between the two rules, see the table
  assert 0.96 < unreconciled < 1.04
  for name, recount in recounts.items():
    assert recount == pytest.approx(1, abs=1e-3), name
