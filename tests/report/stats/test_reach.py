import math

import numpy as np
import pytest

from sftrl_jax.report import read_workdir
from sftrl_jax.report.stats import reach

FLOPS = np.array([0.0, 1e9, 3e9, 4e9])


@pytest.mark.parametrize(("rates", "level", "flops"), [
    ((0.2, 0.4, 0.8, 0.9), 0.6, 2e9),      # half way between two evaluations
    ((0.2, 0.4, 0.8, 0.9), 0.4, 1e9), ((0.2, 0.4, 0.8, 0.9), 0.95, math.inf),
    ((0.7, 0.4, 0.8, 0.9), 0.6, 0.0),      # it starts there, whatever follows
    ((0.2, 0.8, 0.1, 0.9), 0.5, 5e8)])     # the first time counts
def test_the_first_crossing_is_linear_between_evaluations(rates, level, flops):
  assert reach.flops_to(FLOPS, np.array(rates), level) == pytest.approx(flops)


def test_a_study_is_read_run_by_run_at_the_levels_that_tell_runs_apart(whole_study):
  study = read_workdir.read_study(whole_study)
  reached = reach.reached(study, 0.0)
  assert list(reached) == list(study.methods)
  assert list(reached["sft"]) == [0.5, 0.75, 0.9]   # all start above 25%, and none comes to 95%
  assert set(reached["ppo"][0.5]) == {(base, "ppo", 0) for base in study.bases}
  for base in study.bases:   # on which SFT is ahead
    assert 0 < reached["sft"][0.5][base, "sft", 0] < reached["ppo"][0.5][base, "ppo", 0] < math.inf
    assert reached["ppo"][0.9][base, "ppo", 0] == math.inf
