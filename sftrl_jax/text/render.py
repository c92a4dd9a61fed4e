"""A chat as ids, and which of them the policy wrote. The only place where that mask is decided."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from sftrl_jax.chat import Chat, Message
from sftrl_jax.text.images import Pictures
from sftrl_jax.text.pretrained import Pretrained, Rendering
from sftrl_jax.text.tokenizer import Tokenizer

Rendered = tuple[list[int], list[bool]]


def render(tokenizer: Tokenizer | Pretrained, chat: Chat) -> Rendered:
  """(ids, written): every message in order; written is True on a response's own tokens and the id that closes it.

  With a pretrained tokenizer the ids are those of its chat template, and end in its generation prompt if the chat
  awaits an answer. A response begins where that prompt ends: words that a template puts into it count as written.
  With ours the rendering is prefix-preserving: a longer chat begins with the ids of a shorter one.
  """
  answer = next(iter(render_all(tokenizer, [chat])))
  if isinstance(answer, ValueError):
    raise answer
  return answer


def render_all(tokenizer: Tokenizer | Pretrained, chats: Sequence[Chat]) -> list[Rendered | ValueError]:
  """`render` of many chats at once, which is faster; in place of one that cannot be rendered stands its ValueError."""
  return [answer if isinstance(answer, ValueError) else (answer.ids, answer.written)
          for answer in renderings(tokenizer, chats)]


def renderings(tokenizer: Tokenizer | Pretrained, chats: Sequence[Chat],
               args: Sequence[Mapping] = ()) -> list[Rendering | ValueError]:
  """The same, with all that a person should know of each chat. args: of each chat what its template gets besides."""
  refused = {number: error for number, chat in enumerate(chats) if (error := _refusal(tokenizer, chat))}
  good = [number for number in range(len(chats)) if number not in refused]
  some = [chats[number] for number in good]
  answers = iter(tokenizer.renderings(some, [args[number] for number in good] if args else ())
                 if isinstance(tokenizer, Pretrained) else [_ours(tokenizer, chat) for chat in some])
  answers = [refused[number] if number in refused else next(answers) for number in range(len(chats))]
  if args and not isinstance(tokenizer, Pretrained):   # without a template nothing reads them
    answers = [answer if isinstance(answer, ValueError) else dataclasses.replace(answer, unread=(*answer.unread, *more))
               for answer, more in zip(answers, args, strict=True)]
  return answers


def pictures(tokenizer: Tokenizer | Pretrained, messages: Iterable[Message]) -> Pictures:
  """What the model reads of the pictures of messages, in their order; ValueError for one that it cannot read."""
  shown = [image for message in messages for image in message.images]
  return tuple(picture for image in shown for picture in tokenizer.reader.pixels(image))


def continued(tokenizer: Tokenizer | Pretrained, chat: Chat) -> list[int]:
  """The ids after the last response, whose end is already there, up to and including the generation prompt.

  A chat goes on by these: what was sampled stays as it was sampled, and is not read from text again.
  """
  new = later_messages(chat)
  if not new:
    return []
  if error := _refusal(tokenizer, chat):
    raise error
  if isinstance(tokenizer, Pretrained):
    return tokenizer.after(chat)
  return [token for message in new for token in _message_ids(tokenizer, message)]


def preceding(tokenizer: Tokenizer | Pretrained, earlier: Chat, chat: Chat, ids: Sequence[int]
              ) -> tuple[list[int], int]:
  """(ids before the row, first ids of the row that are left out) of a row that begins with `ids`, the rendered `chat`,
  where the messages `earlier` precede it.

  The whole is rendered at once, so that <bos> and what a template writes before a chat stand in it once, and a message
  of the system that `chat` begins with is that of `earlier`. The row keeps the ids with which both renderings end.
  ValueError where they end differently, so that what follows the chat would not follow the whole.
  """
  own = next((place for place, message in enumerate(chat) if message.role != "system"), len(chat))
  whole, shared = render(tokenizer, (*earlier, *chat[own if earlier[:own] == chat[:own] else 0:]))[0], 0
  while shared < min(len(whole), len(ids)) and whole[-1 - shared] == ids[len(ids) - 1 - shared]:
    shared += 1
  if not shared:
    raise ValueError("The chat template ends a chat differently where another exchange precedes it.")
  return whole[: len(whole) - shared], len(ids) - shared


def later_messages(chat: Chat) -> Chat:
  """The messages after the last response; all of them before the first one."""
  answered = len(chat)
  while answered and chat[answered - 1].role != "assistant":
    answered -= 1
  return chat[answered:]


def last_response(tokenizer: Tokenizer | Pretrained, ids: Sequence[int], written: Sequence[bool]) -> slice:
  """Where in a rendered chat the last response stands, its end included; an empty slice if nobody has answered."""
  stop = len(ids)
  while stop and not written[stop - 1]:
    stop -= 1
  start = max(0, stop - 1)
  while start and written[start - 1] and ids[start - 1] != tokenizer.eos:
    start -= 1
  return slice(start, stop)


def responses(tokenizer: Tokenizer | Pretrained, ids: Sequence[int], written: Sequence[bool]) -> list[slice]:
  """Where in a rendered chat each response stands, its end included, in their order."""
  spans, end = [], len(ids)
  while (span := last_response(tokenizer, ids[:end], written[:end])).stop > span.start:
    spans.append(span)
    end = span.start
  return spans[::-1]


def response(tokenizer: Tokenizer | Pretrained, chat: Chat) -> list[int]:
  """The ids that a policy would have to write for the chat's last message, its end included."""
  ids, written = render(tokenizer, chat)
  return ids[last_response(tokenizer, ids, written)]


def refuse_reuse(tokenizer: Tokenizer | Pretrained) -> None:
  """ValueError for a chat template by which a longer chat does not begin with the shorter one and its response."""
  fault = tokenizer.template.fault if isinstance(tokenizer, Pretrained) and tokenizer.template else ""
  if fault:
    raise ValueError(f"The chat template of {tokenizer.title} does not keep a chat's beginning: {fault}. A cache that "
                     "is carried from turn to turn would hold another chat than the template's. Use one attempt "
                     "(config.env.attempts=1), or --config.rollout.carry=False, by which the model reads all that it "
                     "wrote again.")


def _ours(tokenizer: Tokenizer, chat: Chat) -> Rendering | ValueError:
  ids, written = [tokenizer.bos], [False]
  try:
    for message in chat:
      more = _message_ids(tokenizer, message)
      ids += more
      written += [message.role == "assistant"] * len(more)
  except ValueError as error:
    return error
  keys = [f"messages[].{key}" for message in chat for key in message.fields or () if key not in ("role", "content")]
  return Rendering(ids, written, unread=tuple(keys))


def _message_ids(tokenizer: Tokenizer, message: Message) -> list[int]:
  """The ids one message adds: what stands for its picture, then its text; or its parts in their order."""
  closing = [tokenizer.eos] if message.role == "assistant" else list(tokenizer.after_user)
  if not message.images:
    return tokenizer.encode(message.text) + closing
  parts, images = (message.fields or {}).get("content"), iter(message.images)
  if not isinstance(parts, list):
    parts = [{"type": "image"}, {"type": "text", "text": message.text}]
  ids = [tokenizer.reader.ids(next(images)) if part["type"] == "image" else tokenizer.encode(part["text"])
         for part in parts]
  return [token for some in ids for token in some] + closing


def _refusal(tokenizer: Tokenizer | Pretrained, chat: Iterable[Message]) -> ValueError | None:
  roles = [message.role for message in chat if message.images]
  if roles and tokenizer.reader is None:
    return ValueError("This tokenizer renders text only, but a message carries an image: use a vision-language model.")
  if "assistant" in roles:
    return ValueError("A message of the assistant carries an image, but a response is text: move it to a user's.")
  return None
