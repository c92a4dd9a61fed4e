"""Texts that fit become ids; of those that do not, the key and the size that they need are named. Every chat of an
episode that has several is a row, read from its beginning.
"""

import dataclasses

import jax
import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Rewriting
from sftrl_jax.rollout.episodes import by_row, play
from sftrl_jax.rollout.fitting import NEVER_BEGAN, group_prompts, message_ids
from sftrl_jax.rollout.policy import policy
from sftrl_jax.rollout.segments import compile_all
from sftrl_jax.text.images import ImageReader
from sftrl_jax.text.render import continued, render
from sftrl_jax.text.tokenizer import words
from sftrl_jax.training import compile_count


def asked(text):
  return (Message("user", text),)


def test_the_prompts_of_groups(tokenizer):
  first, long = asked("a b"), asked("a b c d e f a b")
  contexts, refused = group_prompts(tokenizer, [None, first, long, long, None, None], 5, 2)
  ids = render(tokenizer, first)[0]
  assert contexts == [ids, ids, [], [], [], []]   # a group reads its prompt also where its first member never began
  assert [trouble and trouble.kind for trouble in refused] == [
      "dropped/env", None, "dropped/prompt", "dropped/prompt", "dropped/env", "dropped/env"]
  size = len(render(tokenizer, long)[0])
  assert f"config.rollout.prompt_tokens is 5, but a prompt has {size} tokens" in refused[2].message
  assert f"--config.rollout.prompt_tokens={size} or more" in refused[2].message and refused[0] is NEVER_BEGAN
  with pytest.raises(ValueError, match="depend on the seed alone"):
    group_prompts(tokenizer, [first, asked("b")], 5, 2)


def test_a_group_that_differs_in_its_picture_alone_is_refused():
  """Its ids are equal, so one prompt would give the second the first one's picture."""
  tokenizer = words(("a",), image=True)
  tokenizer = dataclasses.replace(tokenizer, reader=ImageReader(tokenizer.image, 1, 2, 2))
  same, other = (Message("user", "a", np.full((2, 2, 3), level, np.uint8)) for level in (0, 1))
  assert group_prompts(tokenizer, [(same,), (same,)], 5, 2)[0] == [render(tokenizer, (other,))[0]] * 2
  with pytest.raises(ValueError, match="depend on the seed alone"):
    group_prompts(tokenizer, [(same,), (other,)], 5, 2)


def test_a_word_that_the_tokenizer_lacks_spoils_its_episode(tokenizer):
  assert group_prompts(tokenizer, [asked("unheard")], 5, 1)[1][0].kind == "dropped/prompt"
  chat = (*asked("a"), Message("assistant", "b"), Message("user", "unheard"))
  assert message_ids(tokenizer, chat, 5, ())[1].kind == "dropped/env"


def test_a_message_and_the_end_that_a_response_lacks(tokenizer):
  chat = (*asked("a"), Message("assistant", "b"), Message("user", "a b c"))
  ids = continued(tokenizer, chat)
  assert message_ids(tokenizer, chat, len(ids), (1, tokenizer.eos)) == (ids, None)
  assert message_ids(tokenizer, chat, len(ids), (1,)) == ([tokenizer.eos, *ids], None)
  context, trouble = message_ids(tokenizer, chat, len(ids) - 1, (1,))
  assert context == [] and trouble.kind == "cut/feedback" and not trouble.dropped
  assert f"feedback_tokens is {len(ids) - 1}, but a message of the environment has {len(ids)} tokens" in trouble.message
  assert f"--config.rollout.feedback_tokens={len(ids)} or more" in trouble.message


SIZES = (0.5,)
# A prompt of Walk has at most 2 + 2 words, with its <bos> and what follows a user's message.
WALKS = dict(turns=6, rewriting=Rewriting(2, 3), prompt_tokens=6)


@pytest.fixture(scope="module")
def walked(walk, make_actor, decoding, talk):
  return talk(walk(), make_actor(shrink=SIZES, **WALKS), decoding, 0.7)


def test_a_chat_that_begins_anew_is_a_row_of_its_own(walked, tokenizer):
  assert {len(episode.rows) for episode in walked} == {1, 2, 3}
  assert {len(turns) for episode in walked for turns in episode.rows} == {1, 2}
  for episode in walked:
    asked = [message for message in (*episode.earlier, *episode.chat) if message.role == "user"]
    prompts = [message for message in asked if message.text != "b"]
    assert sum(turn.verdict.correct for turn in episode.turns) == len(episode.rows) - episode.truncated
    for turns, prompt in zip(episode.rows, prompts, strict=False):
      assert list(turns[0].response.context) == render(tokenizer, (prompt,))[0]
      assert all(not turn.response.begins_row for turn in turns[1:])


def test_sampled_logprobs_of_every_row_are_those_of_the_full_forward_on_that_row_alone(walked, full_logits, ids_of):
  rows = [ids_of(episode) for episode in by_row(walked)]
  logits = full_logits([ids for ids, _, _ in rows]) / 0.7
  log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  for row, (ids, places, logprobs) in enumerate(rows):
    np.testing.assert_allclose(logprobs, [log[row, place - 1, ids[place]] for place in places], atol=1e-5)


@pytest.mark.parametrize("way", [dict(carry=False), dict(devices=2), dict(shrink=())])
def test_neither_carry_nor_devices_nor_sizes_change_an_episode_of_chats(walk, make_actor, decoding, walked, way, talk,
                                                                        ids_of):
  actor = make_actor(**{**dict(shrink=SIZES), **WALKS, **way})
  assert not actor.carries
  for one, same in zip(walked, talk(walk(), actor, decoding, 0.7), strict=True):
    assert (one.earlier, one.chat, ids_of(one)[:2]) == (same.earlier, same.chat, ids_of(same)[:2])


def test_shapes_follow_the_longest_chat_and_nothing_compiles_after_compile_all(walk, make_actor, decoding):
  actor = make_actor(shrink=(0.25,), max_new_tokens=3, **WALKS)
  assert (actor.read_len(1), actor.cache_len(3), actor.row_len(), actor.row_len(True)) == (12, 14, 14, 18)
  compile_all(actor, decoding)
  key, before = jax.random.key(1), compile_count.count()
  play(walk(), policy(actor, decoding, key, 0.7, range(16)), range(16))
  assert compile_count.count() == before


def test_a_claim_to_rewrite_changes_nothing_of_an_environment_whose_chat_grows(guess, make_actor, decoding, talk):
  class Claims(type(guess())):
    rewrites_prompt = True

  plain = talk(guess(), make_actor(carry=False, shrink=SIZES), decoding, 0.7)
  for one, same in zip(plain, talk(Claims(), make_actor(shrink=SIZES, rewriting=Rewriting(3, 3)), decoding, 0.7),
                       strict=True):
    assert one == same


def test_a_later_prompt_that_does_not_fit_ends_the_episode_with_its_turns_intact(walk, make_actor, decoding, walked,
                                                                                 talk, ids_of):
  actor = make_actor(shrink=SIZES, **{**WALKS, "prompt_tokens": 3})   # 2 words: a second point does not always fit
  cut = 0
  for episode, usual in zip(talk(walk(), actor, decoding, 0.7), walked, strict=True):
    assert ids_of(episode)[0] == ids_of(usual)[0][: len(ids_of(episode)[0])]
    if episode.trouble:
      cut += 1
      assert episode.trouble.kind == "cut/prompt" and not episode.dropped and episode.truncated and episode.turns
      assert "config.rollout.prompt_tokens is 3" in episode.trouble.message
    else:
      assert (episode.earlier, episode.chat, ids_of(episode)[:2]) == (usual.earlier, usual.chat, ids_of(usual)[:2])
  assert cut > 2
