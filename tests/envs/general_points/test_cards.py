"""Dealing is fair, repeatable and worth what the rule says."""

from collections import Counter

import numpy as np
import pytest

from sftrl_jax.envs.general_points import cards
from sftrl_jax.envs.general_points.env import GeneralPoints


def test_the_deck_holds_every_card_once():
  assert len(set(cards.DECK)) == len(cards.DECK) == 52
  assert {card.rank for card in cards.DECK} == set(cards.RANKS)


def test_uniform_dealing_repeats_cards_and_favours_none():
  source = cards.stream(0, 0)
  hands = [cards.deal(source, 4, "uniform") for _ in range(5000)]
  counts = Counter(card for hand in hands for card in hand)
  assert len(counts) == 52
  assert all(abs(count - 20000 / 52) < 6 * (20000 / 52) ** 0.5 for count in counts.values())
  assert any(len(set(hand)) < 4 for hand in hands)


def test_the_deck_of_52_never_repeats_a_card():
  source = cards.stream(0, 0)
  assert all(len(set(cards.deal(source, 5, "52"))) == 5 for _ in range(2000))
  assert len(set(cards.deal(source, 52, "52"))) == 52


def test_points_follow_the_rule():
  hand = tuple(cards.Card(rank, "H") for rank in cards.RANKS)
  assert cards.points(hand, cards.DISTINCT) == tuple(range(1, 14))
  assert cards.points(hand, cards.TENS)[9:] == (10, 10, 10, 10)
  assert cards.any_face(hand) and not cards.any_face(hand[:10])


def test_streams_repeat_and_differ_by_seed_and_purpose():
  def draw(seed, purpose):
    return cards.stream(seed, purpose).random()
  assert draw(7, 1) == draw(7, 1) == draw(np.int64(7), 1)
  assert len({draw(seed, purpose) for seed in (0, 1, 2, "0", "a") for purpose in range(4)}) == 20


def test_a_bad_seed_is_refused():
  with pytest.raises(ValueError, match="from 0 on"):
    cards.stream(-1, 0)
  with pytest.raises(TypeError):
    cards.stream(1.5, 0)


def test_probes_of_the_base_are_other_rules_and_another_try():
  """Under other rules no face counts as in training; another try has failures before it, and its attempts are left."""
  fields = dict(target="any", cards=3, faces=10, attempts=1, style="compact")
  others = GeneralPoints(**fields, shifts=("other_rules",), variant="other_rules")
  hands = [others.reset(seed)[0] for seed in range(200)]
  values = {value for hand in hands for card, value in zip(hand.cards, hand.values, strict=True) if card.rank in "JQK"}
  assert values == set(range(1, 14)) - {10} and len({hand.rule for hand in hands}) > 50
  plain, again = GeneralPoints(**fields, variant="id_seen"), GeneralPoints(**fields, variant="id_seen", earlier=2)
  for seed in range(20):
    (first, prompt), (hand, chat) = plain.reset(seed), again.reset(seed)
    assert (hand.cards, hand.target, hand.attempt) == (first.cards, first.target, 0) and chat[:1] == prompt
    assert [message.role for message in chat] == ["user", "assistant", "user", "assistant", "user"]
    assert not any(plain.step(first, message.text)[1].correct for message in chat if message.role == "assistant")
    assert again.step(hand, again.expert(hand))[1].success and again.step(hand, "")[1].truncated
