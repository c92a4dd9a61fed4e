"""Rewards that a scorer gives after the play."""

import dataclasses

import pytest

from sftrl_jax.envs.env import Verdict
from sftrl_jax.rollout.episodes import Episode, Response, Trouble, Turn
from sftrl_jax.rollout.scoring import Scored, gold_of, with_rewards


def episode(seed, *rewards):
  """An episode with one turn a reward, by the environment."""
  turns = (Turn(Response("", tokens=(5,), logprobs=(0.0,)), Verdict(reward, False, True, True, True, "", None, "code"))
           for reward in rewards)
  return Episode(seed, tuple(turns), (), bool(rewards))


LEFT_OUT = dataclasses.replace(episode(3), trouble=Trouble("dropped/prompt", "It does not fit."))
PLAYED = [episode(0, 1.0, 0.5), episode(1, None), episode(2, -1.0), LEFT_OUT]


def test_rewards_are_the_scorer_s_and_the_environment_s_own_are_gold():
  rewarded = with_rewards(PLAYED, Scored([[3.0, 4.0], [5.0], [6.0], []]))
  assert [each.rewards for each in rewarded] == [[3.0, 4.0], [5.0], [6.0], []]
  assert [[turn.gold for turn in each.turns] for each in rewarded] == [[1.0, 0.5], [None], [-1.0], []]
  assert gold_of(rewarded) == pytest.approx((1.5 - 1.0) / 2) and gold_of(PLAYED) is None
  back = with_rewards(rewarded, Scored([[turn.gold for turn in each.turns] if each.seed != 1 else [0.0]
                                        for each in rewarded]))
  assert all(dataclasses.replace(turn, gold=None) == before for each, own in zip(back, PLAYED, strict=True)
             for turn, before in zip(each.turns, own.turns, strict=True) if each.seed != 1)


def test_an_episode_of_which_a_turn_has_no_reward_is_left_out():
  rewarded = with_rewards(PLAYED, Scored([[3.0, None], [None], [6.0], []], reasons={1: "It raised."}))
  assert [each.dropped for each in rewarded] == [True, True, False, True]
  assert [each.trouble and each.trouble.kind for each in rewarded] == [
      "dropped/reward", "dropped/reward", None, "dropped/prompt"]
  assert "Response 2" in rewarded[0].trouble.message and rewarded[1].trouble.message == "It raised."
  assert [len(each.turns) for each in rewarded] == [0, 0, 1, 0]


@pytest.mark.parametrize("rewards", [[[1.0, 2.0], [1.0], [1.0]], [[1.0], [1.0], [1.0], []]])
def test_a_wrong_number_of_rewards_is_refused(rewards):
  with pytest.raises(ValueError, match="The scorer gave"):
    with_rewards(PLAYED, Scored(rewards))
