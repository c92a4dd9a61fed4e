"""Cards can be told apart at every size that is used, and a picture is made of the cards that it is asked for."""

import itertools
import random

import numpy as np
import pytest

from sftrl_jax.envs.general_points.cards import LARGE, RANKS
from sftrl_jax.pictures import cards, noise

FACES = list(itertools.product(RANKS, cards.SUITS))


@pytest.mark.parametrize("pixels", [32, 96])
@pytest.mark.parametrize("deck", cards.DECKS)
def test_every_rank_and_suit_has_a_cell_of_its_own(deck, pixels):
  shown = np.stack([cards.row([face], deck, pixels) for face in FACES]).astype(int)
  assert shown.shape == (52, pixels, pixels, 3)
  for place, cell in enumerate(shown[:-1]):
    # Three pixels of 32 x 32 at least: a spade and a club of the thin deck.
    distance = (np.abs(shown[place + 1:] - cell).max(-1) > 60).mean((1, 2))
    assert distance.min() > 0.0025, FACES[place]


@pytest.mark.parametrize("pixels", [32, 96])
@pytest.mark.parametrize("deck", cards.DECKS)
def test_a_classifier_reads_rank_and_suit_of_cards_that_are_moved_and_as_noisy_as_those_of_the_studies(deck, pixels):
  """It knows the 52 faces in nine places and takes the nearest one, which for Gaussian noise is the best there is."""
  source, places = random.Random(0), list(itertools.product((-1, 0, 1), repeat=2))
  cells = [cards.row([face], deck, pixels, [place]) for face in FACES for place in places]
  names, flat = np.repeat(np.arange(52), 9), lambda pictures: np.stack(pictures).reshape(len(cells), -1) / 127.5 - 1
  known, seen = flat(cells), flat([noise.expose(cell, source, 0.6, 0.4) for cell in cells]) / 0.4
  nearest = np.argmax(seen @ known.T - 0.5 * np.square(known).sum(1), axis=1)
  assert np.mean(names[nearest] == names) > 0.99


def test_decks_differ_and_large_ranks_can_be_drawn():
  three = [cards.row([("Q", "H")], deck, 32) for deck in cards.DECKS]
  assert len({cell.tobytes() for cell in three}) == 3
  assert len({cards.face("plain", rank, "S", 120, 168).tobytes() for rank in (*RANKS, *LARGE)}) == 13 + len(LARGE)


def test_a_row_is_its_cells_and_a_shift_moves_a_card():
  hand = [("A", "S"), ("10", "H"), ("K", "D")]
  whole = cards.row(hand, "night", 32)
  assert whole.shape == (32, 96, 3) and whole.dtype == np.uint8
  for place, card in enumerate(hand):
    assert (whole[:, 32 * place : 32 * place + 32] == cards.row([card], "night", 32)).all()
  moved = cards.row(hand[:1], "night", 32, [(1, 0)])
  assert (moved[:, 2:] == cards.row(hand[:1], "night", 32)[:, :-2]).all()   # a sixteenth of 32 pixels


def test_the_table_has_the_layout_of_the_papers_canvas():
  hand = (("A", "S"), ("2", "C"), ("J", "S"), ("K", "C"))
  canvas = cards.table(hand, "plain", 1200)
  assert canvas.shape == (1200, 1200, 3) and tuple(canvas[0, 0]) == cards.TABLE == (0x35, 0x65, 0x4D)
  blank = canvas.copy()
  for x, (rank, suit) in zip((5, 302, 599, 896), hand, strict=True):
    assert (canvas[411:789, x : x + 270] == cards.face("plain", rank, suit, 270, 378)).all()
    blank[411:789, x : x + 270] = cards.TABLE
  assert (blank == np.array(cards.TABLE, np.uint8)).all()


@pytest.mark.parametrize("pixels, count", [(128, 4), (384, 2), (300, 5)])
def test_any_table_holds_its_whole_cards(pixels, count):
  hand = (("7", "D"),) * count
  canvas = cards.table(hand, "plain", pixels, ((10**6, -(10**6)),) * count)   # no shift leaves the table
  width = int(pixels / count * 0.9)
  assert (canvas[: width * 7 // 5, pixels - width :] == cards.face("plain", "7", "D", width, width * 7 // 5)).all()


def test_a_face_is_shared_and_so_cannot_be_written():
  with pytest.raises(ValueError, match="read-only"):
    cards.face("plain", "A", "S", 40, 56)[0, 0] = 1
