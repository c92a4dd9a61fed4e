"""A row as ids and which of them are learned, by the names of its columns, which are TRL's.

messages: a chat, a list of {role, content}; also ShareGPT's `conversations`, a list of {from, value}. Learned is what
  the assistant wrote, in every turn, with the end of each turn; what follows its last message is left out.
prompt_completion: two texts, of which the completion and its end are learned; or two lists of messages, of which what
  the assistant wrote in the completion is.
text: every token and an end.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sftrl_jax.chat import ROLES, Chat, Message
from sftrl_jax.data.read import NEEDED, BadRow
from sftrl_jax.text.render import render, render_all
from sftrl_jax.text.tokenizer import Tokenizer

SHAREGPT = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", **{role: role for role in ROLES}}
KEYS = (("role", "content"), ("from", "value"))
AUTO = "auto"
# What a row must have to be of a format; one of the two names of a chat's column is enough.
FORMATS = {"messages": ("messages",), "prompt_completion": ("prompt", "completion"), "text": ("text",)}

Example = tuple[list[int], list[bool]]


@dataclasses.dataclass(frozen=True)
class Draft:
  """A row that has been understood.

  chat: is to be rendered; () where the example is ready
  asked: so many messages at its beginning are a prompt, in which nothing is learned
  trailing: messages after the assistant's last one were left out
  """

  chat: Chat = ()
  asked: int = 0
  trailing: bool = False
  ready: Example = ((), ())


def format_of(columns: Iterable[str]) -> str:
  """The format that has these columns; BadRow where none has, or more than one."""
  there = set(columns) | ({"messages"} if "conversations" in columns else set())
  matches = [name for name, needed in FORMATS.items() if there >= set(needed)]
  if not matches:
    raise BadRow("unknown columns", f"has the columns {', '.join(map(repr, columns)) or '(none)'}, but needs {NEEDED}")
  if len(matches) > 1:
    raise BadRow("columns of several formats", f"has the columns of several formats: choose with --config.data.format="
                                               f"{' or '.join(matches)}")
  return matches[0]


def examples(name: str, values: Sequence[dict], tokenizer: Tokenizer) -> list[tuple[Example, bool] | BadRow]:
  """((ids, learned), whether messages after the assistant's last one were left out) of each row, up to the last token
  that is learned; in place of one that cannot be used a BadRow that names the column and what is wrong."""
  drafts = [_tried(lambda value=value: READERS[name](value, tokenizer), name) for value in values]
  chats = [draft.chat for draft in drafts if isinstance(draft, Draft) and draft.chat]
  rendered = iter(render_all(tokenizer, chats))
  examples = []
  for draft in drafts:
    answer = next(rendered) if isinstance(draft, Draft) and draft.chat else None
    examples.append(draft if isinstance(draft, BadRow) else
                 _tried(lambda draft=draft, answer=answer: _finished(draft, answer, tokenizer), name))
  return examples


def _tried(make: Callable, name: str):
  """make(), or the BadRow that it raises. Any other ValueError is a chat that a template refuses, or a word that is in
  no vocabulary."""
  try:
    return make()
  except BadRow as error:
    return error
  except ValueError as error:
    return BadRow("cannot be rendered", f"cannot be rendered: {str(error).rstrip('.')}", "/".join(FORMATS[name]))


def _finished(draft: Draft, rendered, tokenizer: Tokenizer) -> tuple[Example, bool]:
  if isinstance(rendered, ValueError):
    raise rendered
  ids, learned = map(list, draft.ready if rendered is None else rendered)
  prompt = draft.chat[: draft.asked]
  if any(message.role == "assistant" for message in prompt):
    before = list(render(tokenizer, prompt)[0])
    if ids[: len(before)] != before:
      raise BadRow("prompt rendered otherwise", "the chat template renders the prompt otherwise once the completion "
                   "follows, so it is not known which tokens are the completion's: use messages", "prompt")
    learned[: len(before)] = [False] * len(before)
  stop = len(learned)
  while stop and not learned[stop - 1]:   # what a template puts behind the last end teaches nothing
    stop -= 1
  return (ids[:stop], learned[:stop]), draft.trailing


def _messages(value: dict, tokenizer: Tokenizer) -> Draft:
  column = "conversations" if "conversations" in value and "messages" not in value else "messages"
  return _drafted((), _chat(value, column), column)


def _prompt_completion(value: dict, tokenizer: Tokenizer) -> Draft:
  kinds = [type(value.get(column)) for column in ("prompt", "completion")]
  if kinds == [list, list]:
    return _drafted(_chat(value, "prompt"), _chat(value, "completion"), "completion")
  if list in kinds:
    raise BadRow("text and messages", f"prompt is a {kinds[0].__name__} and completion a {kinds[1].__name__}, but both "
                                      "should be texts, or both lists of messages", "completion")
  prompt, completion = _text(value, "prompt", empty=True), _text(value, "completion")
  return _unrendered(opening(tokenizer) + tokenizer.encode(prompt), tokenizer.encode(completion), tokenizer)


def _plain(value: dict, tokenizer: Tokenizer) -> Draft:
  return _unrendered(opening(tokenizer), tokenizer.encode(_text(value, "text")), tokenizer)


READERS: dict[str, Callable[[dict, Tokenizer], Draft]] = {
    "messages": _messages, "prompt_completion": _prompt_completion, "text": _plain}


def _drafted(prompt: Chat, chat: Chat, column: str) -> Draft:
  """Of the chat what comes up to the assistant's last message, after the prompt."""
  last = max((index for index, message in enumerate(chat) if message.role == "assistant"), default=-1)
  if last < 0:
    raise BadRow("no assistant message", "has no message of the assistant, so there is nothing to learn", column)
  return Draft((*prompt, *chat[: last + 1]), len(prompt), last + 1 < len(chat))


def _unrendered(before: list[int], after: list[int], tokenizer: Tokenizer) -> Draft:
  """No template surrounds a text: the last ids and an end are learned."""
  after = [*after, tokenizer.eos]
  return Draft(ready=([*before, *after], [False] * len(before) + [True] * len(after)))


def opening(tokenizer: Tokenizer) -> list[int]:
  """The ids that a text without a template begins with: <bos>, where the tokenizer has one."""
  return [] if tokenizer.bos is None else [tokenizer.bos]


def _chat(value: dict, column: str) -> Chat:
  """A list of messages as a Chat; BadRow names the first that is none."""
  listed = _column(value, column)
  if not isinstance(listed, list):
    raise BadRow("no list of messages", f"is {_kind(listed)}, but should be a list of messages", column)
  if not listed:
    raise BadRow("empty", "is an empty list", column)
  return tuple(_message(item, f"{column}[{index}]") for index, item in enumerate(listed))


def _message(item: Any, where: str) -> Message:
  if not isinstance(item, dict):
    raise BadRow("no message", f'is {_kind(item)}, but should be an object {{"role": ..., "content": ...}}', where)
  keys = next((keys for keys in KEYS if keys[0] in item), None)
  if keys is None:
    raise BadRow("no message", f"has the keys {', '.join(map(repr, item)) or '(none)'}, but needs 'role' and 'content'",
                 where)
  role = item[keys[0]]
  known = SHAREGPT if keys[0] == "from" else {name: name for name in ROLES}
  if not isinstance(role, str) or role not in known:
    raise BadRow("unknown role", f"is {str(role)[:40]!r}, but should be one of {', '.join(known)}",
                 f"{where}.{keys[0]}")
  if item.get("tool_calls"):
    raise BadRow("calls of tools", "calls tools, which are not rendered", where)
  return Message(known[role], _text(item, keys[1], f"{where}.{keys[1]}", empty=known[role] != "assistant"))


def _text(value: dict, key: str, where: str = "", empty: bool = False) -> str:
  """The text of a column or of a message; BadRow for what no tokenizer should be given."""
  where = where or key
  text = _column(value, key, where)
  if not isinstance(text, str):
    raise BadRow("no text", f"is {_kind(text)}, but should be text", where)
  if not text and not empty:
    raise BadRow("empty", "is empty, so there is nothing to learn", where)
  if "\0" in text:
    raise BadRow("NUL in text", f"has a NUL at character {text.index(chr(0)) + 1}", where)
  if not text.isascii():
    try:
      text.encode()
    except UnicodeEncodeError as error:
      raise BadRow("no Unicode", f"has half a surrogate pair at character {error.start + 1}, which no text "
                                 "has", where) from error
  return text


def _column(value: dict, key: str, where: str = ""):
  if key not in value:
    raise BadRow("column missing", f"is missing; the row has {', '.join(map(repr, value)) or 'none of the columns'}",
                 where or key)
  return value[key]


def _kind(value) -> str:
  return {list: "a list", dict: "an object", bool: "true or false", type(None): "null", str: "text"}.get(
      type(value), "a number")
