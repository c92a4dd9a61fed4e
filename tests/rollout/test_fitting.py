"""Texts that fit become ids; of those that do not, the key and the size that they need are named."""

import pytest

from sftrl_jax.chat import Message
from sftrl_jax.rollout.fitting import NEVER_BEGAN, group_prompts, message_ids
from sftrl_jax.text.render import continued, render


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
