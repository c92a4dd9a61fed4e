"""Numbers that are each in range but do not go together: a sentence for a person at the beginning of a run."""

import pytest

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import length
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.training.position import Position


def notes(tiny, method="sft", **keys):
  config = tiny(method, **keys)
  return " ".join(build_experiment(config, "sft" if method == "sft" else "rl").notes)


def test_a_warm_up_beyond_the_run_is_a_sentence(tiny):
  assert notes(tiny, steps=10, schedule__warmup=500) == (
      "config.schedule.warmup is 500 updates, but this run makes 10: the rate ends at 2% of its peak. Shorten it, or "
      "lengthen the run.")
  assert not notes(tiny, steps=10, schedule__warmup=10) and not notes(tiny, steps=10, schedule__warmup=0)
  assert "ends at 100% of its peak and never goes down" in notes(
      tiny, steps=10, schedule__warmup=10, schedule__name="cosine")
  assert "makes 4: the rate ends at 8% of its peak" in notes(tiny, steps=1000, flops=4e7, schedule__warmup=50)
  assert "makes 2: " in notes(tiny, "rl", steps=2, schedule__warmup=50)
  assert "at most" in notes(tiny, "rl", steps=1000, flops=3e7, schedule__warmup=50)


def test_a_warm_up_beyond_its_schedule_is_refused_by_its_key(tiny):
  with pytest.raises(ConfigError, match=r"^config.schedule.warmup is 10; it must be below schedule.updates = 5"):
    notes(tiny, steps=10, schedule__warmup=10, schedule__updates=5, schedule__name="wsd")


def test_an_epsilon_of_0_is_a_sentence(tiny):
  assert "config.optimizer.args.eps is 0.0: where a gradient is 0" in notes(
      tiny, schedule__warmup=0, optimizer__args__eps=0.0)


def test_only_a_rate_that_changes_is_told(tiny):
  def change(recorded, update=2, **keys):
    experiment = build_experiment(tiny("sft", steps=8, schedule__warmup=0, **keys), "sft")
    from sftrl_jax.programs.experiment.learner import make_sft_learner
    return length.change(experiment, make_sft_learner(experiment), recorded, Position(step=update), update)

  before = {"steps": 4, "flops": 0.0, "updates": 0}
  assert "spans 8 updates: the learning rate goes from 0.00015 back up to 0.00019" in change(
      before, 3, schedule__name="linear")
  assert not change(before) and not change({}, schedule__name="linear")
  assert not change(before, update=0, schedule__name="linear")
  assert not change({**before, "steps": 8}, schedule__name="linear")
  assert not change({**before, "steps": 6}, schedule__name="wsd", schedule__decay=0.1)   # still at its peak
