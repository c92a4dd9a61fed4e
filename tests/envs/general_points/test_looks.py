"""A hand's picture depends on seed and look alone, and a visual variant changes nothing but the picture."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest

from sftrl_jax.envs import ENVS
from sftrl_jax.envs.general_points import cards, looks
from sftrl_jax.envs.general_points.env import GeneralPoints

RECITE = GeneralPoints(vision=True, style="recite", cards=3, target="any", noise=0.6, contrast=0.4, jitter=True)


def test_the_defaults_are_the_papers_canvas_and_prompt():
  env = ENVS["general_points"](vision=True)
  state, chat = env.reset(0)
  assert chat[0].image.shape == (1200, 1200, 3) and chat[0].image.dtype == np.uint8
  assert env.variants == ("id_seen", "id_unseen", "rule_ood", "red", "deck1", "night")
  assert "Cards:" not in chat[0].text and all(f"'{rank}'," not in chat[0].text for rank in ("2", "9", "10"))
  assert {card.suit for card in state.cards} <= {"S", "C"}
  _, verdict = env.step(state, "?")
  assert [message.image is None for message in verdict.chat] == [False, True, True]


def test_the_small_picture_is_a_row_of_cells():
  image = RECITE.reset(1)[1][0].image
  assert image.shape == (32, 96, 3) and image.dtype == np.uint8


def test_a_seed_gives_one_picture_and_another_seed_another():
  assert [RECITE.reset(seed) for seed in range(10)] == [dataclasses.replace(RECITE).reset(seed) for seed in range(10)]
  shown = [RECITE.reset(seed)[1][0].image.tobytes() for seed in (*range(300), "a", "b")]
  assert len(set(shown)) == 302
  state, _ = RECITE.reset(0)
  assert pickle.loads(pickle.dumps(state)) == state
  with pytest.raises(ValueError, match="read-only"):
    state.chat[0].image[0] = 0


@pytest.mark.parametrize("variant", ["red", "deck1", "night"])
def test_a_visual_variant_has_the_hands_of_id_seen_in_another_look(variant):
  seen, shifted = (dataclasses.replace(RECITE, variant=name, noise=0.0) for name in ("id_seen", variant))
  for seed in range(40):
    before, after = seen.reset(seed)[0], shifted.reset(seed)[0]
    assert (before.ranks, before.rule, before.target) == (after.ranks, after.rule, after.target)
    assert before.chat[0].text == after.chat[0].text and (before.chat[0].image != after.chat[0].image).any()
    colours = {"H": "red", "D": "red", "S": "black", "C": "black"}
    assert {colours[card.suit] for card in after.cards} == {"red" if variant == "red" else "black"}


def test_text_hands_are_those_of_pictures():
  text = GeneralPoints(cards=3, target="any", style="compact")
  for seed in range(30):
    assert text.reset(seed)[0].ranks == RECITE.reset(seed)[0].ranks


def test_a_base_sees_every_deck_and_suit():
  base = dataclasses.replace(RECITE, look="any", suits="any", noise=0.0, contrast=1.0, jitter=False)
  assert {card.suit for seed in range(40) for card in base.reset(seed)[0].cards} == set("HSDC")
  corners = {tuple(base.reset(seed)[1][0].image[7, 7]) for seed in range(60)}   # paper beside rank and suit
  assert len(corners) >= 3
  assert base.variants == RECITE.variants


@pytest.mark.parametrize("look, suits", [*itertools.product(looks.DECKS, looks.SUITS)])
def test_no_variant_is_the_look_of_training(look, suits):
  names = looks.shifts(look, suits)
  assert not {look, suits} & set(names)
  for name in names:
    assert GeneralPoints(vision=True, look=look, suits=suits, variant=name).variant == name
  assert {"red", "deck1", "night"} - {look, suits} <= set(names)


def test_suits_are_recoloured_as_a_whole():
  hand = tuple(cards.Card("2", suit) for suit in cards.SUITS)
  look = looks.look_of(dataclasses.replace(RECITE, variant="red"))
  assert [card.suit for card in look.recoloured(hand)] == ["H", "H", "D", "D"]


@pytest.mark.parametrize("wrong, message", [
    ({"look": "night"}, "vision is False"), ({"noise": 0.6}, "vision=True"), ({"style": "recite"}, "vision=True"),
    ({"vision": 1}, "True or False"), ({"vision": True, "style": "compact"}, "'recite'"),
    ({"vision": True, "style": "recite", "reasoning": True}, "reasoning=False"),
    ({"vision": True, "pixels": 64}, "from 128 to 4096"), ({"vision": True, "pixels": 1.5}, "integer"),
    ({"vision": True, "style": "recite", "pixels": 300}, "from 16 to 256"),
    ({"vision": True, "look": "deck2"}, "'deck1'"), ({"vision": True, "suits": "blue"}, "'red'"),
    ({"vision": True, "noise": -1}, r"\[0, 10\]"), ({"vision": True, "contrast": 0}, r"\[0.05, 1\]"),
    ({"vision": True, "jitter": 2}, "True or False"), ({"vision": True, "answer": "cards"}, "style 'recite'"),
    ({"vision": True, "style": "recite", "target": 31}, "words"),
    ({"vision": True, "style": "recite", "shifts": ("large",)}, "style='short'"),
    ({"variant": "red"}, "variant"), ({"vision": True, "suits": "red", "variant": "red"}, "variant")])
def test_a_wrong_field_is_named_with_its_rule(wrong, message):
  with pytest.raises(ValueError, match=message):
    GeneralPoints(**wrong)
