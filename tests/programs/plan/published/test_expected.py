"""The expected time of a planned step."""

import types

import pytest

from sftrl_jax.programs.plan import topology
from sftrl_jax.programs.plan.compilation import CompiledFunction, Plan
from sftrl_jax.programs.plan.hlo_traffic import Traffic
from sftrl_jax.programs.plan.published import calibration
from sftrl_jax.programs.plan.published.expected import expected_step


def plan_of(*functions, slice_="v5e-4"):
  compiled = tuple(CompiledFunction(name, calls, 0, {}, {}, 0.0, 0.0, False, (flops, Traffic(moved)), (0.0, Traffic()),
                                    1, True, 0.0) for name, calls, flops, moved in functions)
  return Plan(types.SimpleNamespace(), topology.parse(slice_), compiled, 0.0)


def test_what_flops_bound_is_expected_as_published_runs_were():
  plan = plan_of(("train step", 2, 1e15, 1.0), ("state", 0, 1e15, 1.0))
  step, known = expected_step(plan), calibration.efficiency("v5e")
  assert step.least == pytest.approx(plan.step_seconds / known.highest)
  assert step.most == pytest.approx(plan.step_seconds / known.lowest) and step.share == 1
  assert f"{known.runs} published training runs" in str(step) and "the rest" not in str(step)


def test_what_memory_bounds_counts_as_its_bound():
  train, turn = ("train step", 1, 1e15, 1.0), ("turn 1", 1, 1.0, 1e13)
  both, step = (expected_step(plan_of(*functions)) for functions in ((train, turn), (train,)))
  assert both.most - step.most == pytest.approx(plan_of(turn).step_seconds)
  assert 0 < both.share < 1 and "counted as its bound" in str(both)


def test_where_flops_bound_nothing_nothing_is_expected():
  assert expected_step(plan_of(("state", 0, 1e15, 1.0))) is None
  assert expected_step(plan_of(("turn 1", 1, 1.0, 1e13))) is None
