"""Episodes that are left out: counted over the run, explained once a kind, and limited."""

import types

import pytest

from sftrl_jax.envs.referee import TaskError
from sftrl_jax.programs.loop import left_out
from sftrl_jax.rollout.episodes import Episode, Trouble

GOOD = Episode(0, ("a turn",), (), False)


def spoiled(kind, message="task.py, line 3, in step: KeyError: 1"):
  return Episode(1, (), (), False, Trouble(kind, message))


@pytest.fixture
def log(tmp_path):
  lines = []
  return types.SimpleNamespace(workdir=tmp_path, lines=lines, say_once=lambda kind, text: lines.append((kind, text)))


def counted(log, episodes, before=(), most=2, **config):
  config = {"max_dropped": most, "verdict_seconds": 3.0, "verdict_workers": 2, **config}
  experiment = types.SimpleNamespace(config=config)
  return left_out.count(experiment, dict(before), episodes, "step 7", log)


def test_kinds_are_counted_on_top_of_what_the_run_has_counted(log):
  cut = Episode(2, ("a turn",), (), True, Trouble("cut/feedback", "config.rollout.feedback_tokens is 2"))
  before = {"dropped/reward": 1}
  got = counted(log, [GOOD, spoiled("dropped/reward"), cut, cut, cut, spoiled("dropped/env")], before)
  assert got == {"dropped/reward": 2, "cut/feedback": 3, "dropped/env": 1} and before == {"dropped/reward": 1}
  assert log.lines[0] == ("dropped/reward", "step 7: an episode is left out (dropped/reward): task.py, line 3, in "
                                            "step: KeyError: 1")
  assert log.lines[1][1].startswith("step 7: an episode ends there, truncated (cut/feedback): config.rollout.feedb")
  assert counted(log, [GOOD]) == {}


@pytest.mark.parametrize("most, before", [(0, {}), (2, {"dropped/reward": 2})])
def test_beyond_the_limit_the_run_ends_with_line_key_and_way_out(log, most, before):
  with pytest.raises(TaskError) as error:
    counted(log, [GOOD, spoiled("dropped/reward")], before, most)
  message = str(error.value)
  assert message.startswith("task.py, line 3, in step: KeyError: 1\n  step 7: dropped/reward is ")
  assert f"config.max_dropped is {most}" in message and "--config.max_dropped=N" in message
  assert "own.json" not in message   # no file of the user's is recorded here


def test_a_mended_file_goes_on_without_its_record(log):
  (log.workdir / "own.json").write_text("{}")
  with pytest.raises(TaskError, match=r"then delete .*own\.json"):
    counted(log, [GOOD, spoiled("dropped/env")], most=0)
  with pytest.raises(TaskError, match=r"prompt_tokens.*\n.*With that key, or --config\.max_dropped=N"):
    counted(log, [GOOD, spoiled("dropped/prompt", "config.rollout.prompt_tokens is 4")], most=0)


def test_an_iteration_of_which_nothing_is_left_ends_the_run(log):
  with pytest.raises(TaskError, match="all 2 episodes were left out"):
    counted(log, [spoiled("dropped/env"), spoiled("dropped/prompt")], most=100)
  kept = Episode(1, ("a turn",), (), False, Trouble("dropped/reward", ""))   # an evaluation measures its success
  assert counted(log, [kept], most=100) == {"dropped/reward": 1}


def test_a_reward_function_may_leave_a_share_of_an_iteration_without_rewards(log):
  own = dict(reward="reward.py:f", own_reward={"abstain_limit": 0.5}, most=100)
  lacking, kept = spoiled("dropped/reward"), Episode(1, ("a turn",), (), False, Trouble("dropped/reward", ""))
  assert counted(log, [GOOD, lacking, GOOD, lacking, spoiled("dropped/env")], **own)["dropped/reward"] == 2
  assert counted(log, [GOOD, kept, kept], **own) == {"dropped/reward": 2}   # of an evaluation
  assert counted(log, [GOOD, lacking, lacking], most=100) == {"dropped/reward": 2}   # the environment's own rewards
  with pytest.raises(TaskError) as error:
    counted(log, [GOOD, lacking, lacking], **own)
  assert "step 7: 2 of 3 episodes have no reward, but config.own_reward.abstain_limit is 0.5" in str(error.value)
  assert str(error.value).startswith("task.py, line 3, in step: KeyError: 1")
