"""Rounds of play: a batch is filled with groups that can be learned from, within bounds, and no hand is lost."""

import dataclasses
import functools
import random
import re
import threading
import time
import types

import jax
import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs import verdict_pool
from sftrl_jax.envs.env import Verdict
from sftrl_jax.envs.referee import EpisodeError
from sftrl_jax.envs.verdict_pool import VerdictPool
from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.objectives.grpo import GRPOConfig
from sftrl_jax.objectives.ppo import PPOConfig
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.sections import ComputeConfig
from sftrl_jax.programs.loop import rollout_batch
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.actor import Actor
from sftrl_jax.rollout.config import RolloutConfig
from sftrl_jax.rollout.sample import Sampling
from sftrl_jax.text.tokenizer import words

WORDS, GROUP, BATCH, ROWS = ("a", "b", "c"), 2, 8, 8


@dataclasses.dataclass(frozen=True)
class Say:
  """One response; it is right if its first word is one of the seed's, of which there are 0 to 3."""

  reward: float | None = 1.0
  attempts: int = 1

  def reset(self, seed):
    source = random.Random(seed)
    return frozenset(source.sample(WORDS, source.randint(0, 3))), (Message("user", source.choice(WORDS)),)

  def step(self, state, response):
    right = response.split(" ")[0] in state
    reward = self.reward if right else -0.01 * len(response)
    return state, Verdict(reward, True, False, right, right, "", None, "correct" if right else "wrong")


class Never(Say):
  """Nothing is ever right, but rewards differ."""

  def step(self, state, response):
    return state, Verdict(-0.01 * len(response), True, False, False, False, "", None, "wrong")


@functools.cache
def actor():
  tokenizer = words(WORDS)
  model = build(DecoderConfig(vocab=tokenizer.size, width=8, layers=1, heads=2, remat="none", init_std=0.3))
  mesh = meshes.make(meshes.MeshConfig(), jax.devices()[:1])
  made = Actor(model, tokenizer, RolloutConfig(rows=ROWS, prompt_tokens=3, feedback_tokens=1, max_new_tokens=2,
                                               shrink=()),
               Sampling(2), 1, mesh, GROUP)
  return made, {"model": jax.jit(model.init)(jax.random.key(0))}


def play(section, first=0, env=None, batch=BATCH):
  made, params = actor()
  experiment = types.SimpleNamespace(actor=made, env=env or Say(), algorithm_config=section, batch=batch, seed=5,
                                     prefix_tokens=0, config={"verdict_seconds": 0.0, "verdict_workers": 4})
  return experiment, rollout_batch.play_batch(experiment, params, first)


def said(episodes):
  return [(episode.seed, episode.chat) for episode in episodes]


def test_a_group_has_one_hand_and_many_answers():
  _, played = play(GRPOConfig(group=GROUP), first=4)
  assert [episode.seed for episode in played.episodes] == [f"5 {n}" for n in (2, 2, 3, 3, 4, 4, 5, 5)]
  assert played.cursor == 12 and played.rounds == 1 and played.dropped == 0
  assert any(one.chat != other.chat for one, other in zip(
      played.episodes[::2], played.episodes[1::2], strict=True))


def test_groups_that_fare_alike_are_replaced_until_the_batch_is_full():
  plain, (experiment, played) = play(GRPOConfig(group=GROUP))[1], play(GRPOConfig(group=GROUP, max_rounds=20))
  groups = rollout_batch.in_groups(played.episodes, GROUP)
  assert len(played.episodes) == BATCH and 1 < played.rounds < 20 and not played.padding_episodes
  assert not any(rollout_batch.has_equal_rewards(group, "success") for group in groups)
  assert any(rollout_batch.has_equal_rewards(group, "success")
             for group in rollout_batch.in_groups(plain.episodes, GROUP))
  # Every group up to the cursor was looked at, in order, and is in the batch or was dropped.
  looked = rollout_batch.in_groups(played.all_episodes, GROUP)[: played.cursor // GROUP]
  kept = [group for group in looked if not rollout_batch.has_equal_rewards(group, "success")]
  assert said(played.episodes) == said([episode for group in kept for episode in group])
  assert played.dropped == len(looked) - len(kept) and groups[-1] == looked[-1]
  assert len(played.all_episodes) == BATCH + (played.rounds - 1) * ROWS and len(played.rollout_costs) == played.rounds
  told = rollout_batch.group_metrics(experiment, played,
                                collect.outcomes(played.episodes, padding_episodes=played.padding_episodes))
  assert told["groups/rounds"] == played.rounds and told["groups/dropped"] == played.dropped
  assert told["frac_reward_zero_std"] == told["groups/filled"] == 0


def test_the_next_iteration_goes_on_where_this_one_looked_last():
  """So a run that is resumed from its cursor plays what the run that went on would have."""
  _, first = play(GRPOConfig(group=GROUP, max_rounds=20), batch=4)
  _, second = play(GRPOConfig(group=GROUP, max_rounds=20), first=first.cursor, batch=4)
  _, whole = play(GRPOConfig(group=GROUP, max_rounds=20), batch=8)
  assert said([*first.episodes, *second.episodes]) == said(whole.episodes) and second.cursor == whole.cursor


def test_rounds_are_bounded_and_what_is_missing_is_filled_and_counted():
  experiment, played = play(GRPOConfig(group=GROUP, max_rounds=3), env=Never())
  assert (played.rounds, played.dropped, played.padding_episodes, len(played.episodes)) == (3, 12, BATCH, BATCH)
  assert played.cursor == BATCH + 2 * ROWS   # all were looked at
  assert said(played.episodes) == said(played.all_episodes[:BATCH])
  told = rollout_batch.group_metrics(experiment, played,
                                collect.outcomes(played.episodes, padding_episodes=played.padding_episodes))
  assert told["frac_reward_zero_std"] == 1 and told["groups/filled"] == BATCH // GROUP


def test_success_or_the_environments_own_reward_tells_groups_apart():
  verdict = lambda reward, right: Verdict(reward, True, False, right, right, "", None, "")
  turn = lambda *given: types.SimpleNamespace(verdict=verdict(*given))
  episode = lambda *given: types.SimpleNamespace(success=given[1], rewards=[given[0]], turns=(turn(*given),),
                                                 dropped=False)
  wrong, worse, right = episode(-0.5, False), episode(-0.6, False), episode(1.0, True)
  for group, by_success, by_reward in (((wrong, wrong), True, True), ((wrong, worse), True, False),
                                       ((wrong, right), False, False), ((right, episode(0.9, True)), True, False)):
    assert rollout_batch.has_equal_rewards(group, "success") == by_success
    assert rollout_batch.has_equal_rewards(group, "reward") == by_reward


@pytest.mark.parametrize("reward", [None, float("nan"), float("inf"), 1e30])
def test_a_reward_that_is_no_number_is_refused(reward):
  message = rf"gave the reward {re.escape(repr(reward))} in episode '5 \d+'; it must be a finite number"
  with pytest.raises(ValueError, match=message):
    play(GRPOConfig(group=GROUP), env=Say(reward), batch=16)


def test_what_is_told_of_groups():
  experiment, played = play(GRPOConfig(group=GROUP))
  found = collect.outcomes(played.episodes)
  told = rollout_batch.group_metrics(experiment, played,
                                     found.replace(rewards_E=np.float32([1, 1, 0, 2, 0.1, 0.1, 3, 5])))
  assert told == {"reward_std": pytest.approx((0 + np.sqrt(2) + 0 + np.sqrt(2)) / 4), "frac_reward_zero_std": 0.5}
  alone = types.SimpleNamespace(actor=types.SimpleNamespace(group=1), algorithm_config=PPOConfig(), seed=5)
  assert rollout_batch.group_metrics(alone, played, None) == {}
  assert rollout_batch.env_seed(alone, 7) == "5 7"   # its own deal


class Abstains(Say):
  """Some responses get no reward."""

  def step(self, state, response):
    if random.Random(response).random() < 0.4:
      raise EpisodeError("reward", "no judgement")
    return super().step(state, response)


def test_groups_compare_those_who_are_there():
  experiment, played = play(GRPOConfig(group=GROUP), env=Abstains())
  there = [not episode.dropped for episode in played.episodes]
  assert 0 < sum(there) < len(there) == BATCH
  outcomes = collect.outcomes(played.episodes)
  assert outcomes.has_advantage_E.tolist() == [float(here) for here in there]
  rewards = outcomes.rewards_E.reshape(-1, GROUP)
  whole = [group.std(ddof=1) for group, here in zip(rewards, np.reshape(there, (-1, GROUP)), strict=True) if here.all()]
  told = rollout_batch.group_metrics(experiment, played, outcomes)
  assert told["reward_std"] == pytest.approx(np.mean(whole or [0.0]))
  assert told["frac_reward_zero_std"] >= 1 - len(whole) / (BATCH // GROUP)   # an episode that is alone has no advantage


def test_groups_with_too_few_are_replaced():
  _, played = play(GRPOConfig(group=GROUP, max_rounds=20), env=Abstains())
  if not played.padding_episodes:
    assert not any(episode.dropped for episode in played.episodes)   # in groups of two


class Slow(Say):
  """Its verdicts come in threads; with `released`, not before it is set."""

  thread_safe = True
  released = None

  def step(self, state, response):
    if self.released is not None and threading.current_thread() is not threading.main_thread():
      assert self.released.wait(20.0)
    return super().step(state, response)


@pytest.fixture
def pooled(monkeypatch):
  """Every verdict but the first one of a pool goes to a thread."""
  for name in ("SLOW", "PATIENCE"):
    monkeypatch.setattr(verdict_pool, name, -1.0)
  verdict_pool.shared.cache_clear()
  yield
  verdict_pool.shared.cache_clear()


def test_a_pool_plays_the_batch_of_one_verdict_after_another(pooled):
  for section, first in ((GRPOConfig(group=GROUP), 4), (GRPOConfig(group=GROUP, max_rounds=20), 0)):
    usual, played = play(section, first, batch=16)[1], play(section, first, Slow(), batch=16)[1]
    for name in ("episodes", "all_episodes", "cursor", "rollout_costs", "rounds", "dropped", "padding_episodes"):
      assert getattr(played, name) == getattr(usual, name), name


def test_a_pool_goes_on_from_the_cursor_as_ever(pooled):
  section = GRPOConfig(group=GROUP, max_rounds=20)
  _, first = play(section, env=Slow(), batch=4)
  _, second = play(section, first.cursor, Slow(), batch=4)
  _, whole = play(section, batch=8)
  assert said([*first.episodes, *second.episodes]) == said(whole.episodes) and second.cursor == whole.cursor


def test_verdicts_come_while_the_next_episodes_are_decoded(monkeypatch):
  """None comes before the second half of the batch has been decoded: were it waited for, the test would fail."""
  pool = VerdictPool(4)
  pool.start("step", [lambda: time.sleep(0.05)])()   # shows that verdicts are slow; `reset` is not
  monkeypatch.setattr(verdict_pool, "shared", lambda workers: pool)
  env, turns, begin = Slow(), [], rollout_batch.begin_together
  object.__setattr__(env, "released", threading.Event())

  def begun(*arguments):
    end = begin(*arguments)
    turns.append("decoded")
    if len(turns) == 2:
      env.released.set()
    return end

  monkeypatch.setattr(rollout_batch, "begin_together", begun)
  _, played = play(GRPOConfig(group=GROUP), env=env, batch=2 * ROWS)
  assert len(turns) == 2 and said(played.episodes) == said(play(GRPOConfig(group=GROUP), batch=2 * ROWS)[1].episodes)


def test_in_exact_mode_sampler_and_trainer_agree_to_the_bit_and_the_first_ratio_is_1(tiny, run_of, lines_of, tmp_path):
  changes = dict(compute__exact=True, model__dtype="bfloat16", rollout__temperature=0.7, rollout__shrink="()",
                 evals__variants="()")
  run_of(tiny("rl", env__attempts=3, **changes), tmp_path / "run")
  for line in lines_of(tmp_path / "run", "metrics.jsonl"):   # one minibatch and one epoch
    assert line["num_turns/mean"] > 1 and line["grad_norm"] > 0
    assert line["val/ratio"] == line["val/ratio_max"] == 1.0 and line["policy/approxkl_avg"] == 0.0
    assert line["sampling/sampling_logp_difference/max"] == 0.0


def test_a_gap_is_measured_on_the_mask_and_ends_a_run_that_promised_none():
  experiment = lambda exact: types.SimpleNamespace(compute=ComputeConfig(exact=exact))
  arrays = np.asarray([[-1.0, -1.0, -9.0]]), np.asarray([[-1.0, -1.5, -1.0]]), np.asarray([[1.0, 1.0, 0.0]])
  measured, name = rollout_batch.sampler_gap(experiment(False), *arrays), "sampling/sampling_logp_difference/"
  assert measured == pytest.approx({f"{name}mean": 0.25, f"{name}p99": 0.495, f"{name}max": 0.5})
  with pytest.raises(ConfigError, match="1 of 2 log-probabilities of the sampler differ from the trainer's"):
    rollout_batch.sampler_gap(experiment(True), *arrays)
