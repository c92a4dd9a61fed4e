"""Triples of a text: F1, whatever their order, and tries that add up to the best of them."""

import itertools

import pytest

from sftrl_jax.envs import texts
from sftrl_jax.envs.triples import MOST_TRIPLES, Triples, read, write

ENV = Triples()


def test_the_reward_is_f1_in_any_order_and_repetition_costs_precision():
  for seed in range(50):
    state, _ = ENV.reset(seed)
    true = state.text.triples
    for order in itertools.permutations(true):
      assert ENV.step(state, write(order))[1].correct
    for listed in (true[:1], true[1:], (*true, true[0]), (*true[:1], ("ann", "red", "acme")), (true[0],) * 3):
      precision, recall = (len(set(listed) & set(true)) / len(part) for part in (listed, true))
      f1, verdict = 2 * precision * recall / (precision + recall), ENV.step(state, write(listed))[1]
      assert verdict.code == "partial" and verdict.reward == pytest.approx(f1)


def test_tries_add_up_to_the_best_f1_of_the_episode():
  state, _ = ENV.reset(1)
  true = state.text.triples
  rewards = []
  for response in (write(true[:1]), "nothing", write([("ann", "red", "acme")])):
    state, verdict = ENV.step(state, response)
    rewards.append(verdict.reward)
  best = 2 / (1 + len(true))
  assert rewards == [pytest.approx(best), ENV.rewards[2], ENV.rewards[1]]
  state, _ = ENV.step(ENV.reset(1)[0], write(true[:1]))
  assert ENV.step(state, write(true))[1].reward == pytest.approx(1 - best)


def test_entities_and_relations_are_judged_apart():
  for seed in range(50):
    state, _ = ENV.reset(seed)
    right, wrong = ENV.misread(state, seed), ENV.careless(state, 0)
    assert ENV.step(state, right)[1].parts == {"entities": True, "relations": False}
    assert ENV.step(state, wrong)[1].parts == {"entities": False, "relations": True}


def test_what_reads_as_triples():
  triple = ("ann", "leader", "acme")
  for count in (1, 3, MOST_TRIPLES):
    assert read(write([triple] * count).split(" ")) == [triple] * count
  for response in ("", "END", "ann leader acme", "ann leader acme ;", "ann leader acme END END", "ann ; acme END",
                   "ann leader acme END ann leader acme END", "ann leader mars END", "ann  acme END",
                   write([triple] * (MOST_TRIPLES + 1))):
    assert read(response.split(" ")) is None, response


def test_rewards_that_would_pay_for_illegal_responses_are_refused():
  for rewards in ((0.0, 1.0, -1.0), (1.0, -0.5, -0.6), (1.0, 0.0, 0.5)):
    with pytest.raises(ValueError, match="rewards is"):
      Triples(rewards=rewards)
  assert set(texts.RELATIONS).isdisjoint(texts.NAMES)
