"""What becomes of the metrics of a step: seconds and skipped updates are counted in the order of the steps."""

import types

import numpy as np
import pytest

from sftrl_jax.metrics import Mean
from sftrl_jax.programs.loop import run_state as states
from sftrl_jax.programs.loop.run_state import RunState, Step
from sftrl_jax.training.position import Limits, Position


class Lines:
  """A log that remembers its lines."""

  def __init__(self):
    self.lines = []

  def metrics(self, position, line):
    self.lines.append((position.step, position.skipped, line))

  def say(self, text):
    self.text = text

  def progress(self, *words, **more):
    pass


def begun(every=1, most=3, **config):
  experiment = types.SimpleNamespace(limits=Limits(9), log=types.SimpleNamespace(every=every),
                                     algorithm=types.SimpleNamespace(imitated=None),
                                     config={"max_nonfinite": most, **config})
  store = types.SimpleNamespace(latest_step=lambda: 2, wait_until_finished=lambda: None, directory="w")
  return experiment, RunState(None, Position(), {}, store, "w", None, None, None, {}, None)


def after(run_state, bad=0.0, loss=1.0, **numbers):
  """The run with one more step that is not settled."""
  before = run_state.position
  position = before.ahead(before.cursor + 1, 8, 0.0, train=1.0)
  metrics = {"loss": Mean(np.float32(loss), np.float32(1.0)), "nonfinite_steps": np.float32(bad),
             "grad_norm": np.float32(1.0)}
  step = Step(before, position, metrics, lambda before, after, seconds: {"timing_s/step": seconds, **numbers}, 0.0)
  return run_state.__class__(**{**vars(run_state), "position": position, "unsettled": step})


def test_a_step_is_settled_once_and_its_line_has_its_own_position():
  (experiment, run_state), log = begun(), Lines()
  assert states.settled(experiment, run_state, log) is run_state
  first = states.settled(experiment, after(run_state), log)
  assert first.unsettled is None and first.position.seconds > 0
  assert states.settled(experiment, first, log) is first
  second = states.settled(experiment, after(first, loss=3.0), log)
  assert [(step, line["loss"]) for step, _, line in log.lines] == [(1, 1.0), (2, 3.0)]
  assert second.position.seconds == pytest.approx(first.position.seconds + log.lines[1][2]["timing_s/step"])


def test_lines_of_several_steps_are_means_and_skipped_updates_sums():
  (experiment, run_state), log = begun(every=2), Lines()
  for bad, loss in ((0.0, 1.0), (1.0, 3.0)):
    run_state = states.settled(experiment, after(run_state, bad, loss), log)
  (step, skipped, line), = log.lines
  assert (step, skipped, line["loss"], line["nonfinite_steps"]) == (2, 1, 2.0, 1.0)


def test_so_many_skipped_updates_in_a_row_end_the_run_and_a_good_one_between_starts_anew():
  (experiment, run_state), log = begun(most=2), Lines()
  for bad in (1.0, 0.0, 1.0):
    run_state = states.settled(experiment, after(run_state, bad), log)
  with pytest.raises(RuntimeError, match="in each of the last 2 steps .* the last good step is 2. .*w@2"):
    states.settled(experiment, after(run_state, 1.0), log)
  assert [step for step, *_ in log.lines] == [1, 2, 3, 4]


@pytest.mark.parametrize("flat, told", [({"objective/signal": 0.0}, "of all episodes were alike"),
                                        ({"frac_reward_zero_std": 1.0}, "of all episodes of each group were alike")])
def test_so_many_steps_in_a_row_without_a_signal_end_the_run(flat, told):
  config = {"max_without_signal": 2, "reward": "w.py:score", "env": {"name": "bandit"}}
  for changed, words in (({}, r"\(config.reward=w.py:score\)"), ({"reward": ""}, r"\(of config.env.name=bandit\)")):
    (experiment, run_state), log = begun(**{**config, **changed}), Lines()
    numbers = {"objective/scores": -1.0, **flat}
    run_state = states.settled(experiment, after(run_state, **numbers), log)
    run_state = states.settled(experiment, after(run_state, **dict.fromkeys(numbers, 0.5)), log)
    run_state = states.settled(experiment, after(run_state, **numbers), log)
    assert run_state.position.without_signal == 1
    with pytest.raises(RuntimeError, match=rf"{words} {told} in each of the last 2 steps \(config.max_without_signal"):
      states.settled(experiment, after(run_state, **numbers), log)
    assert [step for step, *_ in log.lines] == [1, 2, 3, 4]


def test_a_limit_of_0_never_ends_a_run():
  (experiment, run_state), log = begun(max_without_signal=0), Lines()
  for _ in range(5):
    run_state = states.settled(experiment, after(run_state, **{"objective/signal": 0.0}), log)
  assert run_state.position.without_signal == 5
