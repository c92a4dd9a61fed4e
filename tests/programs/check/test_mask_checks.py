"""Exactly the responses are trained, and a row says so."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from sftrl_jax.programs.check import mask_checks
from sftrl_jax.programs.check.expert_episodes import CheckFailed
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.text import tokenizer as tokenizers


@pytest.fixture(scope="module")
def experiment(tiny):
  return {verb: build_experiment(tiny(verb), verb) for verb in ("sft", "rl")}


def test_what_sft_trains_are_the_last_responses(experiment, monkeypatch):
  message = mask_checks.check_demonstrations(experiment["sft"])
  assert "unbroken rows; in double brackets what is trained: <bos> RULE 10 10 10 TARGET" in message
  assert message.endswith(" <eos>]]") and message.count("[[") == message.count("]]") == 1
  whole = mask_checks.next_batch

  def shifted(*arguments):
    batch, cursor = whole(*arguments)
    return dataclasses.replace(batch, weights_BT=np.roll(batch.weights_BT, 1, axis=1)), cursor
  monkeypatch.setattr(mask_checks, "next_batch", shifted)
  with pytest.raises(CheckFailed, match=r"trained spans are no response, for example "):
    mask_checks.check_demonstrations(experiment["sft"])


def test_what_rl_trains_are_the_sampled_responses(experiment, monkeypatch):
  episodes = [mask_checks.expert_episode(experiment["rl"], seed) for seed in range(4)]
  assert all(episode.success for episode in episodes)
  assert "are 8 responses, 8 with their <eos>, of 8 chats" in mask_checks.check_episodes(experiment["rl"], episodes)
  turn = episodes[0].turns[0]
  turn = dataclasses.replace(turn, response=dataclasses.replace(turn.response, text="NUMBERS 1"))
  with pytest.raises(CheckFailed, match="the environment judged 'NUMBERS 1', but 'NUMBERS .*' is trained"):
    mask_checks.check_episodes(experiment["rl"], [dataclasses.replace(episodes[0], turns=(turn,))])


def test_spans_are_the_responses_whole_and_ended():
  words = tokenizers.words(("a", "b"))
  good = Counter({(3, 2): 2})
  mask_checks.check_spans(words, good, good, 2, 2)
  message = mask_checks.summary(words, good, 2, [1, 3, 4, 2], [0.0, 0.0, 1.0, 1.0])
  assert message.startswith("4 trained tokens are 2 responses, 2 with their <eos>, of 2 chats")
  assert message.endswith("<bos> a [[b <eos>]]")
  endless = Counter({(3,): 2})
  for trained, expected, unbroken, error in (
      (endless, good, 2, "2 of 2 trained spans"), (good, good, 1, "1 unbroken rows"),
      (endless, endless, 2, "ends in <eos>")):
    with pytest.raises(CheckFailed, match=error):
      mask_checks.check_spans(words, trained, expected, unbroken, 2)


def test_bytes_are_marked_without_spaces_between():
  assert mask_checks.marked(tokenizers.byte(), [1, 101, 102, 103, 2], [0, 0, 1, 1, 1]) == "<bos>a[[bc<eos>]]"


def test_every_chat_of_an_episode_is_a_row(tiny, rewriters):
  experiment = build_experiment(tiny("rl", env__name=f"{rewriters}:Hands", env__attempts=4), "rl")
  episodes = [mask_checks.expert_episode(experiment, seed) for seed in range(4)]
  assert all(episode.success and len(episode.rows) == 2 for episode in episodes)
  message = mask_checks.check_episodes(experiment, episodes)   # of these, and of the expert's for the same seeds
  assert "are 16 responses, 16 with their <eos>, of 16 chats in as many unbroken rows" in message


def test_of_pairs_both_responses_are_trained(pair_config, monkeypatch):
  experiment = build_experiment(pair_config(), "preference")
  assert "18 read, 18 kept" in mask_checks.check_rows(experiment)
  spans = mask_checks._trained_spans
  monkeypatch.setattr(mask_checks, "_trained_spans", lambda batch: spans(batch.replace(
      weights_BT=np.roll(batch.weights_BT, 1, axis=1))))
  with pytest.raises(CheckFailed, match="a batch of .* pairs trains .* spans"):
    mask_checks.check_rows(experiment)
