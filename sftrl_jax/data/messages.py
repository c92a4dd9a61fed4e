"""Lists of messages as chats: every key of a message is used, refused, or named as one that is not read.

A chat template may read any key (reasoning_content, tool_calls, name, ...), so all of them reach it, as they do in
transformers; which of them made no difference is found when the chat is rendered. Ours are the flags that say which
messages are learned.
"""

import dataclasses
import math
from typing import Any

from sftrl_jax.chat import ROLES, Chat, Message
from sftrl_jax.data.lines import BadRow
from sftrl_jax.data.pictures.parts import Shown, is_picture
from sftrl_jax.text.notes import REASONS

SHAREGPT = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "observation": "tool",
            "function_response": "tool", **{role: role for role in ROLES}}
KEYS = (("role", "content"), ("from", "value"))
FLAGS = ("weight", "train", "training", "trainable", "loss", "loss_mask")   # 1 or true: this message is learned
# Say what is learned in ways of which there are several, or which cannot be had: never to be passed over.
UNCLEAR = ("mask", "masked", "train_detail", "training_detail", "loss_scale", "loss_weight", "weights")
PICTURES = ("image", "images", "video", "videos", "audio", "audios")
TEXTS = ("text", "input_text", "output_text")
SAID = ("tool_calls", *REASONS)   # an assistant may say these, and no content


@dataclasses.dataclass(frozen=True)
class Listed:
  """A list of messages. silent: numbers of the assistant's messages that are not to be learned; ignored: keys that
  nobody reads, one entry a message that has it; shown: the numbers of each message's pictures."""

  chat: Chat
  silent: frozenset[int] = frozenset()
  ignored: tuple[str, ...] = ()
  shown: tuple[tuple[int, ...], ...] = ()


def listed(value: Any, column: str) -> Listed:
  """A list of messages as a chat; BadRow names the first that is none."""
  if not isinstance(value, list):
    raise BadRow("no list of messages", f"is {kind(value)}, but should be a list of messages", column)
  if not value:
    raise BadRow("empty", "is an empty list", column)
  chat, silent, ignored, numbers = [], set(), [], []
  for number, item in enumerate(value):
    message, learned, unread, shown = _message(item, f"{column}[{number}]")
    silent |= set() if learned else {number}
    chat.append(message)
    ignored += unread
    numbers.append(tuple(picture.number for picture in shown))
  return Listed(tuple(chat), frozenset(silent), tuple(ignored), tuple(numbers))


def _message(item: Any, where: str) -> tuple[Message, bool, list[str], list[Shown]]:
  """(message, whether it may be learned, keys that are not read, its pictures)."""
  if not isinstance(item, dict):
    raise BadRow("no message", f'is {kind(item)}, but should be an object {{"role": ..., "content": ...}}', where)
  keys = next((keys for keys in KEYS if item.get(keys[0]) is not None),
              next((keys for keys in KEYS if keys[0] in item), None))
  if keys is None:
    raise BadRow("no message", f"has the keys {', '.join(map(repr, item)) or '(none)'}, but needs 'role' and 'content'",
                 where)
  role = _role(item[keys[0]], keys[0], f"{where}.{keys[0]}")
  more = {key: value for key, value in item.items() if value is not None and value != [] and value != {}
          and key not in (*keys, *FLAGS)}
  for key in (*UNCLEAR, *PICTURES):
    if key in more:
      raise BadRow("pictures or sound", "is a picture or sound, which no text model reads", f"{where}.{key}") if (
          key in PICTURES) else BadRow("unclear train flag", "says in no way that all agree on what is learned: use "
                                       "\"train\": true or false", f"{where}.{key}")
  learned, unread = _learned(item, role, where)
  content, shown = item.get(keys[1]), []
  if content is None and role == "assistant" and any(more.get(key) for key in SAID):
    text = ""
  elif isinstance(content, list):
    parts = _parts(content, f"{where}.{keys[1]}", unread)
    text, shown = "".join(part for part in parts if isinstance(part, str)), [
        part for part in parts if isinstance(part, Shown)]
  else:
    text = text_of(item, keys[1], f"{where}.{keys[1]}")
  if not text and role == "assistant" and not any(more.get(key) for key in SAID):
    raise BadRow("empty", "is empty, so there is nothing to learn", f"{where}.{keys[1]}")
  _sound_inside(more, where)
  images = tuple(picture.image for picture in shown)
  if shown and (more or len(shown) > 1 or [type(part) for part in parts] not in ([Shown], [Shown, str])):
    as_read = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]
    fields = {"role": role, "content": as_read, **more}
    return Message(role, text, images[0], fields, images[1:]), learned, unread, shown
  fields = {"role": role, **({"content": content and text} if keys[1] in item else {}), **more}
  return Message(role, text, *images, fields=fields if more else None), learned, unread, shown


def _role(role: Any, key: str, where: str) -> str:
  known = SHAREGPT if key == "from" else {name: name for name in ROLES}
  if not isinstance(role, str) or role not in known:
    shown = "null" if role is None else repr(str(role)[:40])
    raise BadRow("unknown role", f"is {shown}, but should be one of {', '.join(known)}", where)
  return known[role]


def _learned(item: dict, role: str, where: str) -> tuple[bool, list[str]]:
  """What the flags of a message say, and those that nobody reads: only what the assistant writes is learned."""
  flags = {}
  for key in FLAGS:
    value = item.get(key)
    if value is None:
      continue
    if not isinstance(value, (bool, int, float)) or (isinstance(value, float) and math.isnan(value)) or (
        value not in (0, 1)):
      raise BadRow("no train flag", f"is {str(value)[:40]!r}, but should be true or false, 1 or 0", f"{where}.{key}")
    flags[key] = bool(value)
  if len(set(flags.values())) > 1:
    raise BadRow("train flags that contradict one another", f"has {flags}, of which one says that it is learned and "
                 "another that it is not", where)
  if role == "assistant":
    return all(flags.values()), []
  return True, [f"messages[].{key} of {role}" for key, value in flags.items() if value]


def _parts(parts: list, where: str, unread: list[str]) -> list[str | Shown]:
  """Texts and pictures of a list of content parts; keys of a part that nobody reads are added to `unread`."""
  read = []
  for number, part in enumerate(parts):
    here = f"{where}[{number}]"
    if isinstance(part, str):
      part = {"text": part}
    if is_picture(part) and isinstance(part.get("image"), Shown):
      read.append(part["image"])
      continue
    if not isinstance(part, dict):
      raise BadRow("no content part", f'is {kind(part)}, but should be {{"type": "text", "text": ...}}', here)
    name = part.get("type") or ("text" if part.get("text") is not None else None)
    if name not in TEXTS:
      pictured = isinstance(name, str) and any(word in name for word in PICTURES)
      raise BadRow("pictures or sound" if pictured else "content parts that are no text", f"is of type {name!r}"[:60] +
                   ", but only parts of type 'text' are read", here)
    read.append(text_of(part, "text", f"{here}.text"))
    unread += [f"messages[].content[].{key}" for key, value in part.items() if key not in ("type", "text")
               and value is not None]
  return read


def text_of(value: dict, key: str, where: str = "", empty: bool = True) -> str:
  """The text of a column or of a message; BadRow for what no tokenizer should be given."""
  where = where or key
  text = column_of(value, key, where)
  if not isinstance(text, str):
    raise BadRow("no text", f"is {kind(text)}, but should be text", where)
  if not text and not empty:
    raise BadRow("empty", "is empty, so there is nothing to learn", where)
  _sound(text, where)
  return text


def _sound(text: str, where: str) -> None:
  if "\0" in text:
    raise BadRow("NUL in text", f"has a NUL at character {text.index(chr(0)) + 1}", where)
  if not text.isascii():
    try:
      text.encode()
    except UnicodeEncodeError as error:
      raise BadRow("no Unicode", f"has half a surrogate pair at character {error.start + 1}, which no text "
                                 "has", where) from error


def _sound_inside(value: Any, where: str) -> None:
  """The same for all texts inside a value."""
  if isinstance(value, str):
    _sound(value, where)
  elif isinstance(value, bytes):
    raise BadRow("no text", "is binary, but should be text", where)
  elif isinstance(value, dict):
    for key, item in value.items():
      _sound(key, where)
      _sound_inside(item, f"{where}.{key}")
  elif isinstance(value, list):
    for number, item in enumerate(value):
      _sound_inside(item, f"{where}[{number}]")


def column_of(value: dict, key: str, where: str = "") -> Any:
  """The value of a key; BadRow where it is missing."""
  if key not in value:
    raise BadRow("column missing", f"is missing; the row has {', '.join(map(repr, value)) or 'none of the columns'}",
                 where or key)
  return value[key]


def kind(value: Any) -> str:
  """What a value of JSON or Parquet is, for a message."""
  return {list: "a list", dict: "an object", bool: "true or false", type(None): "null", str: "text",
          bytes: "binary", int: "a number", float: "a number"}.get(type(value), f"a {type(value).__name__}")
