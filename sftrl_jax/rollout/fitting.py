"""The ids of a text that a conversation is to read, or why it cannot be read."""

from collections.abc import Sequence

from sftrl_jax.chat import Chat
from sftrl_jax.rollout.config import RolloutConfig
from sftrl_jax.rollout.episodes import Trouble
from sftrl_jax.text.images import Pictures
from sftrl_jax.text.pretrained import Pretrained
from sftrl_jax.text.render import continued, later_messages, pictures, render
from sftrl_jax.text.tokenizer import Tokenizer

NEVER_BEGAN = Trouble("dropped/env", "reset gave no chat")
LATER_PICTURE = Trouble("dropped/env", "a message after a response carries more pictures than config.rollout."
                        "feedback_images, which are read beside the cache that config.rollout.carry keeps: raise it, "
                        "or use --config.rollout.carry=False.")
Readable = tuple[list[int], Trouble | None]   # (ids, None), or ([], the trouble)


def group_prompts(tokenizer: Tokenizer | Pretrained, chats: Sequence[Chat | None], most: int, group: int
                  ) -> tuple[list[list[int]], list[Trouble | None]]:
  """(ids of each first chat, why it is not answered) of groups that stand together and share one prompt.

  chats: None where reset gave none; the others of its group read the prompt
  most: config.rollout.prompt_tokens

  ValueError where the chats of a group differ.
  """
  contexts, refused = [], []
  for members in (chats[start : start + group] for start in range(0, len(chats), group)):
    begun = [chat for chat in members if chat is not None]
    if any(chat != begun[0] for chat in begun):
      raise ValueError("Episodes of one seed begin with different chats: reset(seed) of the environment must depend on "
                       "the seed alone, for config.rollout gives a group one prompt.")
    ids, trouble = prompt_ids(tokenizer, begun[0], most) if begun else ([], NEVER_BEGAN)
    contexts += [ids] * len(members)   # the group reads one row, also where its first member never began
    refused += [NEVER_BEGAN if chat is None else trouble for chat in members]
  return contexts, refused


def group_pictures(tokenizer: Tokenizer | Pretrained, chats: Sequence[Chat | None], contexts: Sequence[Sequence[int]],
                   group: int) -> list[Pictures]:
  """The pictures in each context of `group_prompts`."""
  shown: list[Pictures] = []
  for start in range(0, len(chats), group):
    begun = next((chat for chat in chats[start : start + group] if chat is not None), ())
    shown += [pictures(tokenizer, begun) if contexts[start] else ()] * len(chats[start : start + group])
  return shown


def prompt_ids(tokenizer: Tokenizer | Pretrained, chat: Chat, most: int, long: str = "dropped/prompt") -> Readable:
  """Of a chat that is read from its beginning. long: the kind of trouble if it has more than `most` ids"""
  try:
    ids = render(tokenizer, chat)[0]
  except ValueError as error:   # a word that the tokenizer does not know, say
    return [], Trouble("dropped/prompt", str(error))
  return (ids, None) if len(ids) <= most else ([], _too_long(long, "prompt_tokens", most, ids, chat))


def later_ids(tokenizer: Tokenizer | Pretrained, rollout: RolloutConfig, chat: Chat, read: Sequence[int], anew: bool,
              carries: bool = False) -> Readable:
  """Of a chat after a response: all of it where it begins anew, else what follows. read: ids of the chat so far

  carries: whether the cache holds what was read before. Turns that only add to it read few pictures
  """
  shown = sum(len(message.images) for message in later_messages(chat)) if carries else 0
  if shown > rollout.feedback_images:
    return [], LATER_PICTURE
  return (prompt_ids(tokenizer, chat, rollout.prompt_tokens, "cut/prompt") if anew else
          message_ids(tokenizer, chat, rollout.feedback_tokens, read))


def message_ids(tokenizer: Tokenizer | Pretrained, chat: Chat, most: int, read: Sequence[int]) -> Readable:
  """Of a later chat: what follows the last response, and before it an <eos> that the response lacks.

  most: config.rollout.feedback_tokens, beside which there is room for that <eos>. read: ids of the chat so far
  """
  try:
    ids = continued(tokenizer, chat)
  except ValueError as error:
    return [], Trouble("dropped/env", str(error))
  closed = tuple(read[-1:]) == (tokenizer.eos,)   # it may be cut off, or have stopped at another end id
  context = ids if closed else [tokenizer.eos, *ids]
  return (context, None) if len(context) <= most + 1 else (
      [], _too_long("cut/feedback", "feedback_tokens", most, ids, chat))


def _too_long(kind: str, key: str, most: int, ids: Sequence[int], chat: Chat) -> Trouble:
  text = chat[-1].text if len(chat[-1].text) <= 80 else f"{chat[-1].text[:60]} ..."
  name = "a prompt" if key == "prompt_tokens" else "a message of the environment"
  return Trouble(kind, f"config.rollout.{key} is {most}, but {name} has {len(ids)} tokens: use "
                       f"--config.rollout.{key}={len(ids)} or more. It says {text!r}.")
