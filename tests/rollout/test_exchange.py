"""Episodes cross from process to process without losing a bit."""

import json

import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Verdict
from sftrl_jax.rollout.episodes import Episode, Response, Trouble, Turn
from sftrl_jax.rollout.exchange import packed, unpacked


@pytest.mark.parametrize("image", [None, np.arange(12, dtype=np.uint8).reshape(2, 2, 3)])
def test_an_episode_comes_out_as_it_went_in(image):
  third, tiny = float(np.float32(1 / 3)), float(np.float32(1e-30))
  turns = tuple(
      Turn(Response(f"text {number}", (5, 70_000), (1, 2, 3), (-third, 0.0, -tiny), number == 1, None, number == 1,
                    () if image is None else (image, image + 1)),
           Verdict(-third, number == 1, False, False, number == 1, "no \u2020", None, "wrong")) for number in range(2))
  chat = (Message("user", "look", image), Message("assistant", "text 1"))
  episode = Episode("7 3", turns, chat, True, earlier=(Message("user", "before", image), Message("assistant", "x")))
  other = unpacked(json.loads(json.dumps(packed(episode))), "7 3")
  for mine, theirs in zip(episode.turns, other.turns, strict=True):
    assert len(theirs.response.images) == len(mine.response.images)
    assert all(map(np.array_equal, theirs.response.images, mine.response.images))
  assert other == episode and len(other.rows) == 2 and other.rewards == episode.rewards and other.success


def test_an_episode_that_was_refused_at_once_has_no_turns():
  episode = Episode(3, (), (Message("user", "too long"),), False, Trouble("dropped/prompt", "x \ud800"))
  assert unpacked(json.loads(json.dumps(packed(episode))), 3) == episode and episode.dropped
