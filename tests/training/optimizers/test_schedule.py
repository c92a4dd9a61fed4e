"""Learning rates by hand."""

import math

import pytest

from sftrl_jax.training.optimizers.schedule import ScheduleConfig, make_schedule


def at(schedule, numbers, updates=10):
  return [float(make_schedule(schedule, 2.0, updates)(n)) for n in numbers]


def test_constant_and_warm_up_by_hand():
  assert at(ScheduleConfig(), (0, 5, 99)) == [2.0, 2.0, 2.0]
  assert at(ScheduleConfig(warmup=4), range(6)) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]   # the first update already learns


def test_linear_and_cosine_by_hand():
  assert at(ScheduleConfig("linear", end=0.5), (0, 5, 10, 20)) == pytest.approx([2.0, 1.5, 1.0, 1.0])
  assert at(ScheduleConfig("linear", warmup=2), (0, 1, 2, 6, 10)) == pytest.approx([1.0, 2.0, 2.0, 1.0, 0.0])
  cosine = lambda share: 2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share)))
  assert at(ScheduleConfig("cosine", end=0.1), (0, 5, 10, 30)) == pytest.approx([cosine(0), cosine(0.5), 0.2, 0.2])
  assert at(ScheduleConfig("cosine", warmup=2, updates=6), (0, 2, 4, 6), 100) == pytest.approx([1.0, 2.0, 1.0, 0.0],
                                                                                               abs=1e-6)


def test_wsd_warms_up_stays_and_goes_down_by_one_minus_the_root():
  falling = lambda share: 2.0 * (0.1 + 0.9 * (1 - math.sqrt(share)))
  schedule = ScheduleConfig("wsd", warmup=10, decay=0.2, end=0.1)
  assert at(schedule, (0, 9, 10, 80, 85, 100, 200), 100) == pytest.approx(
      [0.2, 2.0, 2.0, 2.0, falling(0.25), 0.2, 0.2])
  assert at(ScheduleConfig("wsd", decay=1.0), (0, 4, 16), 16) == pytest.approx([2.0, 1.0, 0.0])   # no stable part
  assert at(ScheduleConfig("wsd", warmup=8, decay=1.0), (8, 9, 10), 10) == pytest.approx(
      [2.0, 2 * (1 - math.sqrt(0.5)), 0.0])   # longer than what the warm-up leaves


def test_inverse_square_root_by_hand():
  assert at(ScheduleConfig("inverse_sqrt", warmup=4), (0, 3, 4, 12, 32)) == pytest.approx(
      [0.5, 2.0, 2.0, 2.0 * math.sqrt(4 / 12), 2.0 * math.sqrt(4 / 32)])


@pytest.mark.parametrize("name", ["linear", "cosine", "wsd"])
def test_a_schedule_follows_the_nearer_of_two_ends(name):
  """Steps over all steps, or FLOPs over all FLOPs: half of the budget is half of the schedule."""
  rate = make_schedule(ScheduleConfig(name, decay=0.6), 2.0, 1000)
  for share in (0.0, 0.5, 0.9, 1.0):
    steps = float(make_schedule(ScheduleConfig(name, decay=0.6), 2.0, 1000)(round(1000 * share)))
    assert float(rate(0, share)) == pytest.approx(steps, abs=1e-6) == float(rate(round(1000 * share), 0.0))
  assert float(make_schedule(ScheduleConfig(name, warmup=2), 2.0, 1000)(0, 0.9)) == 1.0   # warm-up counts updates
  for name in ("constant", "inverse_sqrt"):
    rate = make_schedule(ScheduleConfig(name), 2.0, 10)
    assert float(rate(5, 0.9)) == float(rate(5))


@pytest.mark.parametrize("make, message", [
    (lambda: ScheduleConfig("cosine", warmup=5, updates=5), "^warmup is 5; it must be below schedule.updates = 5"),
    (lambda: ScheduleConfig("step"), "name is 'step'; it must be one of constant, linear, cosine, wsd, inverse_sqrt"),
    (lambda: ScheduleConfig(warmup=-1), "warmup is -1"), (lambda: ScheduleConfig(updates=-1), "updates is -1"),
    (lambda: ScheduleConfig(end=2.0), "end is 2.0"), (lambda: ScheduleConfig(decay=0.0), "decay is 0.0")])
def test_wrong_settings_name_their_key(make, message):
  with pytest.raises(ValueError, match=message):
    make()
