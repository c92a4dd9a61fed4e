"""A run whose evaluations take long says so, once, and changes nothing."""

import types

import pytest

from sftrl_jax.programs.experiment.sections import EvalsConfig
from sftrl_jax.programs.loop import evaluation_time
from sftrl_jax.programs.loop.evaluation_time import note
from sftrl_jax.training.position import Limits, Position


def run(steps=100, flops=0.0, **evals):
  return types.SimpleNamespace(limits=Limits(steps, flops), evals=EvalsConfig(**evals))


@pytest.mark.parametrize(("evals", "steps", "count"), [
    (dict(), 100, 6), (dict(at=()), 100, 2), (dict(at=(0.5,)), 100, 3), (dict(every=30), 100, 5),
    (dict(every=50), 100, 3), (dict(every=500), 100, 2)])
def test_the_evaluations_of_a_run_are_counted(evals, steps, count):
  assert evaluation_time.planned(run(**evals), steps) == count


@pytest.mark.parametrize("position", [Position(step=20, seconds=80.0), Position(step=50, seconds=200.0)])
def test_a_share_above_a_fifth_is_said_with_what_to_change(position):
  """100 steps of 4 s, 6 evaluations: 16.6 s each are a fifth."""
  assert note(run(), position, 16.6) == ""
  text = note(run(), position, 40.0)
  assert "about 38% of this run's time: 6 of 40.0 s each, beside 400 s of steps" in text
  episodes = int(text.partition("--config.evals.episodes=")[2].partition(",")[0])
  each = 40.0 * episodes / 512   # as many episodes take a fifth
  assert 6 * each / (6 * each + 400) == pytest.approx(0.2, abs=1e-2)
  assert "--config.evals.at" in text and "--config.evals.every" in note(run(every=10), position, 40.0)


def test_tasks_are_named_beside_episodes():
  assert "begin it with about --config.evals.task_limit, or fewer" in note(run(tasks=("a",)), Position(
      step=20, seconds=80.0), 40.0)
  both = note(run(tasks=("a",), variants=("x",)), Position(step=20, seconds=80.0), 40.0)
  assert "about --config.evals.task_limit, --config.evals.episodes=" in both


def test_a_budget_of_flops_counts_as_steps_do():
  half = Position(step=7, seconds=70.0, train_flops=5e9)
  assert "20.0 s each, beside 140 s of steps" in note(run(10**6, 1e10), half, 20.0)


def test_what_is_short_or_not_known_is_not_said():
  assert note(run(), Position(), 1e6) == ""   # before the first step
  assert note(run(), Position(step=50, seconds=0.1), 9.9) == ""   # 59 s of evaluations
  assert note(run(), Position(step=50, seconds=1e-9), 1e9)   # no number of episodes helps


def test_a_run_says_it_once(tiny, run_of, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(evaluation_time, "LEAST", 0.0)
  monkeypatch.setattr(evaluation_time, "SHARE", 1e-9)
  few = dict(evals__variants="('id_seen',)", evals__temperatures="(0.0,)")
  run_of(tiny("sft", steps=4, evals__every=1, **few), tmp_path)
  assert capsys.readouterr().out.count("Evaluations will take about") == 1
