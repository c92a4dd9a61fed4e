"""What a person should know of a chat that was rendered: what the template left out, or begins otherwise."""

import dataclasses

from sftrl_jax.chat import Chat, Message
from sftrl_jax.text.template import Template, missing

PROMPT = "answers that do not follow the generation prompt, which begins them otherwise"
REASONING = "answers of which the chat template writes a part only"
REASONS = ("reasoning_content", "reasoning", "thinking")   # keys of a message
KEPT = "answers whose reasoning the chat template drops, and which are trained with it, as generation writes them"
OTHERS = "chats of which the chat template leaves a message out"


def of(template: Template, chat: Chat, text: str, stretches: list[tuple[int, int]]) -> list[tuple[str, str]]:
  """(what, example) of all that is not as a reader of the row would expect."""
  notes, answers = [], [message for message in chat if message.role == "assistant"]
  if len(stretches) == len(answers):   # else the template marks other stretches on purpose
    parts = [template.readable(text[start:stop]) for start, stop in stretches]
    lost = [(words, part) for message, part in zip(answers, parts, strict=True) for words in _words_lost(message, part)]
    notes += [(REASONING, f"{words[:60]!r} is not in {part[:60]!r}") for words, part in lost[:1]]
    if answers and chat[-1].role == "assistant" and template.drops_reasoning and "</" in answers[-1].text and (
        not _words_lost(answers[-1], parts[-1])):
      notes.append((KEPT, repr(parts[-1][:60])))
  if stretches and template.prompt and chat[-1].role == "assistant" and not template.marks_responses:
    start = stretches[-1][0]
    if not text.endswith(template.prompt, 0, start):
      prompt, behind = (template.readable(words) for words in (
          template.prompt, text[max(0, start - len(template.prompt)):start + 20]))
      notes.append((PROMPT, f"the prompt ends in {prompt[-40:]!r}, the row has {behind[-60:]!r}"))
  for number, message in enumerate(chat):
    words = message.text.strip()
    if message.role != "assistant" and words and words not in text and _drops(template, chat, number):
      if message.role == "tool":
        raise ValueError(f"The chat template of {template.title} leaves out what a tool says (message {number + 1}): "
                         "it knows no role 'tool'")
      notes.append((OTHERS, f"message {number + 1} of {message.role}: {words[:60]!r}"))
      break
  return notes


def _words_lost(message: Message, part: str) -> list[str]:
  """What of an answer and its reasoning its turn does not have."""
  reasoning = [value for key in REASONS if isinstance(value := (message.fields or {}).get(key), str)]
  return [words for text in (message.text, *reasoning) if text.strip() not in part and (words := missing(text, part))]


def _drops(template: Template, chat: Chat, number: int) -> bool:
  """Whether it makes no difference what a message says."""
  message = chat[number]
  parts = [*({"type": "image"} for _ in message.images), {"type": "text", "text": "Something else"}]
  fields = None if message.fields is None else {
      **message.fields, "content": parts if message.images else "Something else"}
  changed = dataclasses.replace(message, text="Something else", fields=fields)
  return template.plain(chat) == template.plain((*chat[:number], changed, *chat[number + 1:]))


def unread(template: Template, chat: Chat) -> list[str]:
  """The keys of messages, and the arguments, that make no difference to the text: one entry a message that has it."""
  bare = tuple(_without(message, None) for message in chat)
  if bare == chat and not template.args:
    return []
  whole, names = template.plain(chat), []
  keys = dict.fromkeys(key for message in chat for key in message.fields or () if key not in ("role", "content"))
  for key in keys:
    if _reads_as(template, tuple(_without(message, key) for message in chat), template.args, whole):
      names += [f"messages[].{key}" for message in chat if key in (message.fields or ())]
  for key in template.args:
    if _reads_as(template, chat, {name: value for name, value in template.args.items() if name != key}, whole):
      names.append(key)
  return names


def _reads_as(template: Template, chat: Chat, args: dict, whole: str) -> bool:
  try:
    return dataclasses.replace(template, args=args).plain(chat) == whole
  except ValueError:   # the template wants what is left out
    return False


def _without(message: Message, key: str | None) -> Message:
  """The message without one key, or (None) with role and content only."""
  if message.fields is None:
    return message
  if key is None:
    keep = {name: value for name, value in message.fields.items() if name in ("role", "content")}
    return dataclasses.replace(message, fields=None if keep.get("content") == message.text else keep)
  return dataclasses.replace(message, fields={name: value for name, value in message.fields.items() if name != key})
