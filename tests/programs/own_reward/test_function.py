"""A reward function in its process and in the run's own: the same rewards, and the same reasons where there is none."""

import dataclasses

import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Verdict
from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.envs.referee import EpisodeError, TaskError
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.own_reward.config import OwnRewardConfig
from sftrl_jax.programs.own_reward.function import columns_of, refuse_columns, reward_function

REWARD = '''
import math

def each(chat, response, verdict):
  if response == "none":
    return None
  return math.sin(len(chat[-1].text)) / 3 + verdict.reward if response != "nan" else math.nan

def trl(prompts, completions, answer, **kwargs):
  if completions[0] == "raise":
    raise KeyError(answer[0])
  prompts.clear()   # its own copy
  kwargs["log_metric"]("length", len(completions[0]))
  return [None if text == "none" else math.sin(len(text)) / 3 for text in completions][: int(answer[0])]

def state(completions, trainer_state):
  return []
'''
CHAT, VERDICT = (Message("user", "hi, all"),), Verdict(0.1, True, False, True, True, "", None, "right")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp("reward") / "reward.py"
  path.write_text(REWARD)
  return path


@pytest.fixture(scope="module")
def pair(file):
  """pair(name) -> the function in a process of its own, and in this one."""
  return lambda name: [reward_function(f"{file}:{name}", OwnRewardConfig(process=process)) for process in (True, False)]


def request(*texts, answer=3):
  return {"prompts": ["a"] * len(texts), "completions": list(texts), "completion_ids": [[1]] * len(texts),
          "answer": [answer] * len(texts)}


def outcome(call):
  try:
    return call()
  except TaskError as error:
    return type(error), str(error), getattr(error, "after", None)


def test_a_process_changes_no_bit(pair):
  there, here = pair("each")
  for response in ("x", "none", "nan", "\ud800"):
    ask = lambda function, response=response: outcome(lambda: function.judged(CHAT, response, VERDICT, (1, VERDICT)))
    assert ask(there) == ask(here)
  there, here = pair("trl")
  for asked in (request("x", "none", "yyy"), request("x", "y", answer=1), request("raise", "x")):
    assert outcome(lambda asked=asked: there.scores(asked)) == outcome(lambda asked=asked: here.scores(asked))
  rewards, metrics = there.scores(request("x", "none", "yyy"))
  assert rewards[1] is None and rewards[0] != rewards[2] and metrics == {"length": (1.0, 1)}
  with pytest.raises(EpisodeError, match=r"reward\.py, line 11, in trl: KeyError: 3\n  The call was for 2 responses"):
    there.scores(request("raise", "x"))
  with pytest.raises(TaskError, match=r"reward\.py, line 9, in trl: it returned 1 rewards for 2 responses"):
    there.scores(request("x", "y", answer=1))


def test_one_process_serves_all_who_ask_for_the_same_file(file, pair):
  there, here = pair("each")
  assert pair("each") == [there, here]
  assert reward_function(f"{file}:each", OwnRewardConfig(seconds=3.0)) is not there
  file.touch()
  assert pair("each")[0] is not there


def test_no_answer_in_time_is_a_reason_in_this_process_too(tmp_path):
  path = tmp_path / "slow.py"
  path.write_text("import time\ndef reward(completions, **kwargs):\n  time.sleep(100)\n")
  with pytest.raises(EpisodeError, match=rf"{path}, line 3, in reward: TimeoutError: no .* within 0\.2 s"):
    reward_function(f"{path}:reward", OwnRewardConfig(seconds=0.2, process=False)).scores(request("x"))


@dataclasses.dataclass(frozen=True)
class Task(GeneralPoints):
  answer_column: str = "answer"

  def columns(self, state):
    return {self.answer_column: 24}


def test_an_argument_that_nothing_gives_is_told_before_anything_runs(pair):
  trl, state = pair("trl")[1], pair("state")[1]
  assert columns_of(Task()) == {"answer": 24} and columns_of(GeneralPoints()) == {}
  refuse_columns(trl, Task())
  with pytest.raises(ConfigError, match=r"reward\.py, line 9, in trl: .*takes answer, but the arguments are prompts"):
    refuse_columns(trl, GeneralPoints())
  with pytest.raises(ConfigError, match=r"takes trainer_state, which is TRL's own \(trainer_state, environments are"):
    refuse_columns(state, Task())
  with pytest.raises(ConfigError, match=r"config\.env has the column 'prompts', which is the name of another argument"):
    refuse_columns(trl, Task(answer_column="prompts"))
