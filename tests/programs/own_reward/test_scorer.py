"""Episodes scored by a function of TRL's form: every response once, in order; who has no reward has a reason."""

import pytest

from sftrl_jax.data.prompts import Prompts
from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.envs.referee import TaskError
from sftrl_jax.programs.own_reward.config import OwnRewardConfig
from sftrl_jax.programs.own_reward.function import reward_function
from sftrl_jax.programs.own_reward.scorer import make
from sftrl_jax.rollout.episodes import play, scripted
from sftrl_jax.rollout.scoring import UNREWARDED, with_rewards

REWARD = '''
def plain(prompts, completions, answer, **kwargs):
  if "raise" in completions:
    raise ValueError("no")
  kwargs["log_metric"]("calls", len(completions))
  return [None if text == "none" else float(prompt) + 10 * int(number)
          for prompt, text, number in zip(prompts, completions, answer)]

def counts(prompts, completions, **kwargs):
  return [len(prompt) + 0.5 * len(reply[0]["content"]) for prompt, reply in zip(prompts, completions)][:len(prompts)]

def short(completions, **kwargs):
  return [1.0]
'''


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
  """scorer(name, plain, batch) -> a scorer by that function, in this process: test_function.py has the other one."""
  path = tmp_path_factory.mktemp("reward") / "reward.py"
  path.write_text(REWARD)
  return lambda name, plain=True, batch=0: make(
      reward_function(f"{path}:{name}", OwnRewardConfig(process=False)), plain, batch)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
  path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
  path.write_text("".join(f'{{"prompt": "{n}", "answer": "{n}"}}\n' for n in range(9)))
  return Prompts(path=str(path), held_out=0.0)


def played(env, answer, count=6):
  return play(env, scripted(answer), range(count))[0]


@pytest.mark.parametrize("batch", [0, 1, 4])
def test_every_response_has_the_reward_of_its_own_row_however_many_a_call(scorer, prompts, batch):
  episodes = played(prompts, lambda chat: "x")
  scored = scorer("plain", batch=batch)(episodes)
  assert scored.rewards == [[11.0 * int(episode.chat[0].text)] for episode in episodes] and not scored.reasons
  calls = scored.numbers["reward/calls"]
  assert (calls.total, calls.weight) == (6, -(-6 // (batch or 6)))


def test_turns_are_scored_one_by_one_and_the_environments_own_reward_stays_beside(scorer):
  episodes = played(GeneralPoints(style="compact", attempts=3), lambda chat: "1 + 1")
  rewarded = with_rewards(episodes, scorer("counts", plain=False)(episodes))
  for before, after in zip(episodes, rewarded, strict=True):
    assert after.rewards == [1 + 2.5, 3 + 2.5, 5 + 2.5] and [turn.gold for turn in after.turns] == before.rewards


def test_one_that_abstains_is_left_out_with_its_reason(scorer, prompts):
  episodes = played(prompts, lambda chat: "none" if int(chat[0].text) % 2 else "x")
  odd = [int(episode.chat[0].text) % 2 == 1 for episode in episodes]
  rewarded = with_rewards(episodes, scorer("plain")(episodes))
  assert any(odd) and [episode.dropped for episode in rewarded] == odd
  trouble = next(episode.trouble for episode in rewarded if episode.dropped)
  assert trouble.kind == UNREWARDED
  assert "line 2, in plain: the reward is None, so its episode abstains" in trouble.message


def test_an_error_spoils_its_call_alone_and_what_was_left_out_before_stays_so(scorer, prompts):
  said = iter(["x", "x", "raise", "x", "x", "x"])
  episodes = played(prompts, lambda chat: next(said))
  scored = scorer("plain", batch=2)(episodes)
  assert [rewards == [None] for rewards in scored.rewards] == [False, False, True, True, False, False]
  assert set(scored.reasons) == {2, 3} and "line 4, in plain: ValueError: no" in scored.reasons[3]
  left_out = with_rewards(episodes, scored)
  again = scorer("counts", plain=False)(left_out)
  assert [len(rewards) for rewards in again.rewards] == [1, 1, 0, 0, 1, 1]
  assert [episode.dropped for episode in with_rewards(left_out, again)] == [False, False, True, True, False, False]
  assert scorer("plain")([]).rewards == []


def test_the_wrong_length_ends_the_run(scorer, prompts):
  with pytest.raises(TaskError, match="in short: it returned 1 rewards for 6 responses"):
    scorer("short")(played(prompts, lambda chat: "x"))
