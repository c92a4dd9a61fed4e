"""A chat as ids, and which of them the policy wrote. The only place where that mask is decided."""

from sftrl_jax.chat import Chat, Message
from sftrl_jax.text.tokenizer import Tokenizer


def render(tokenizer: Tokenizer, chat: Chat) -> tuple[list[int], list[bool]]:
  """(ids, written): every message in order; written is True on a response's own tokens and the <eos> that closes it.

  The rendering is prefix-preserving: a longer chat begins with the ids of a shorter one, so a cache can be carried.
  """
  ids, written = [tokenizer.bos], [False]
  for message in chat:
    more = message_ids(tokenizer, message)
    ids += more
    written += [message.role == "assistant"] * len(more)
  return ids, written


def message_ids(tokenizer: Tokenizer, message: Message) -> list[int]:
  """The ids one message adds."""
  if message.image is not None:
    raise ValueError("This tokenizer renders text only, but a message carries an image: use a vision-language model.")
  closing = [tokenizer.eos] if message.role == "assistant" else list(tokenizer.after_user)
  return tokenizer.encode(message.text) + closing
