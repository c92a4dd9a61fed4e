"""A row as ids and which of them are learned, by the names of its columns, which are TRL's.

messages: a chat, a list of {role, content}; also ShareGPT's `conversations`, a list of {from, value}. Learned is what
  the assistant wrote, in every turn, with the end of each turn; what follows its last message is left out.
prompt_completion: two texts, of which the completion and its end are learned; or two lists of messages, of which what
  the assistant wrote in the completion is.
text: every token and an end.
chosen: the preferred response of a pair (pairs/sides.py); only where data.format says so.

Chats may have, in columns beside, `tools` and `chat_template_kwargs` for the chat template, and a `system` text.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence

from sftrl_jax.chat import Chat, Message
from sftrl_jax.data.lines import BadRow
from sftrl_jax.data.messages import SAID, Listed, column_of, kind, listed, text_of
from sftrl_jax.data.pairs.sides import SIDES, sides_of
from sftrl_jax.data.pictures.parts import PICTURES, spread
from sftrl_jax.data.read import BESIDE, EXAMPLES
from sftrl_jax.text.pretrained import SEAM, Pretrained, Rendering
from sftrl_jax.text.render import renderings
from sftrl_jax.text.tokenizer import Tokenizer

AUTO = "auto"
# What a row must have to be of a format; one of the two names of a chat's column is enough.
FORMATS = {"messages": ("messages",), "prompt_completion": ("prompt", "completion"), "text": ("text",)}
CHOSEN = "chosen"   # not chosen by columns: whoever gives pairs may mean `sftrl preference`
TRAILING = "messages after the assistant's last one"
SPELLED = "texts that spell control tokens, which are read as letters (data.control_tokens=tokens reads them as tokens)"
SPELLED_IN_CHAT = ("chats whose messages spell control tokens, which are read as letters (tokenizer.assistant_tokens "
                   "names those that the assistant may write)")
FLAGGED = "train flags that cannot be placed"
SILENT = "nothing to learn by its train flags"


@dataclasses.dataclass(frozen=True)
class Example:
  """A row as ids, of which `learned` marks those that are to be learned.

  notes: (what, example) of all that a person should know of it; unread: columns and keys that make no difference
  shown: the numbers of its pictures
  """

  ids: list[int]
  learned: list[bool]
  notes: tuple[tuple[str, str], ...] = ()
  unread: tuple[str, ...] = ()
  shown: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Draft:
  """A row that has been understood.

  chat: is to be rendered; () where the example is ready
  args: what its template gets besides
  asked: so many messages at its beginning are a prompt, in which nothing is learned
  silent: numbers of messages of the assistant that are not learned
  """

  chat: Chat = ()
  args: dict = dataclasses.field(default_factory=dict)
  asked: int = 0
  silent: frozenset[int] = frozenset()
  ready: Example = Example([], [])


def format_of(value: dict, columns: Iterable[str] = ()) -> str:
  """The format of a row, by its columns that are not null, or by those that are not empty if there are several.

  columns: all that the row has, for the message. BadRow where no format fits, or more than one.
  """
  there = {key for key, item in value.items() if item is not None}
  matches = _matches(there)
  if len(matches) > 1:
    matches = _matches({key for key in there if value[key] not in ("", [])}) or matches
  if not matches:
    named, null = ", ".join(map(repr, columns)) or "(none)", [key for key in value if key not in there]
    pair = there >= {CHOSEN, "rejected"}
    raise BadRow("unknown columns", f"has the columns {named}, but needs {EXAMPLES.needed}"
                 + (f"; null are {', '.join(map(repr, null))}" if null else "") + (
                     f"; --config.data.format={CHOSEN} learns the preferred response of such pairs" if pair else ""))
  if len(matches) > 1:
    raise BadRow("columns of several formats", f"has the columns of several formats: choose with --config.data.format="
                                               f"{' or '.join(matches)}")
  return matches[0]


def _matches(there: set[str]) -> list[str]:
  there |= {"messages"} if "conversations" in there else set()
  return [name for name, needed in FORMATS.items() if there >= set(needed)]


def examples(rows: Sequence[tuple[str, dict]], tokenizer: Tokenizer | Pretrained,
             control_tokens: bool = False) -> list[Example | BadRow]:
  """Each row as an example, up to the last token that is learned; in place of one that cannot be used a BadRow that
  names the column and what is wrong.

  rows: (format, row); control_tokens: whether texts without a chat template are read with the control tokens in them
  """
  drafts = [_tried(lambda row=row: READERS[row[0]](row[1], tokenizer, control_tokens), row[0]) for row in rows]
  chats = [draft for draft in drafts if isinstance(draft, Draft) and draft.chat]
  rendered = iter(renderings(tokenizer, [draft.chat for draft in chats], [draft.args for draft in chats]))
  examples = []
  for draft, (name, _) in zip(drafts, rows, strict=True):
    answer = next(rendered) if isinstance(draft, Draft) and draft.chat else None
    examples.append(draft if isinstance(draft, BadRow) else draft.ready if answer is None else
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
    return BadRow("cannot be rendered", f"cannot be rendered: {str(error).rstrip('.')}",
                  "/".join(FORMATS.get(name, (name,))))


def _finished(draft: Draft, rendered: Rendering | ValueError, tokenizer: Tokenizer | Pretrained) -> Example:
  if isinstance(rendered, ValueError):
    raise rendered
  ids, learned = list(rendered.ids), list(rendered.written)
  _refuse_lost(draft.chat, rendered.unread)
  if draft.silent:
    _silence(learned, ids, draft, tokenizer)
  prompt = draft.chat[: draft.asked]
  if any(message.role == "assistant" for message in prompt):
    before, = renderings(tokenizer, [prompt], [draft.args])
    if isinstance(before, ValueError):
      raise before
    if ids[: len(before.ids)] != before.ids:
      raise BadRow("prompt rendered otherwise", "the chat template renders the prompt otherwise once the completion "
                   "follows, so it is not known which tokens are the completion's: use messages", "prompt")
    learned[: len(before.ids)] = [False] * len(before.ids)
  stop = len(learned)
  while stop and not learned[stop - 1]:   # what a template puts behind the last end teaches nothing
    stop -= 1
  return Example(ids[:stop], learned[:stop], (*draft.ready.notes, *_spelled(draft.chat, tokenizer), *rendered.notes),
                 (*draft.ready.unread, *rendered.unread), draft.ready.shown)


def _refuse_lost(chat: Chat, unread: Sequence[str]) -> None:
  """BadRow for a message whose words are in a key that nothing reads."""
  keys = {name.removeprefix("messages[].") for name in unread}
  if "tool_calls" in keys:
    raise BadRow("calls of tools", "calls tools, which are not rendered: the chat template does not read tool_calls",
                 "messages")
  for number, message in enumerate(chat):
    if message.role == "assistant" and not message.text and not any(
        message.fields and message.fields.get(key) and key not in keys for key in SAID):
      raise BadRow("empty", "says nothing that the chat template reads", f"messages[{number}].content")


def _silence(learned: list[bool], ids: list[int], draft: Draft, tokenizer: Tokenizer | Pretrained) -> None:
  """Takes from `learned` the messages that are not to be learned: the end of each closes a stretch."""
  answers = [number for number, message in enumerate(draft.chat) if message.role == "assistant"]
  stretches, start = [], None
  for place, flag in enumerate(learned):
    start = place if flag and start is None else start
    if start is not None and (not flag or ids[place] == tokenizer.eos or place + 1 == len(learned)):
      stretches.append(slice(start, place + flag))
      start = None
  if len(stretches) != len(answers):
    raise BadRow(FLAGGED, f"flags say which of {len(answers)} messages are learned, but the chat template shows "
                          f"{len(stretches)} stretches that the assistant wrote", "messages")
  for number, stretch in zip(answers, stretches, strict=True):
    if number in draft.silent:
      learned[stretch] = [False] * (stretch.stop - stretch.start)
  if not any(learned):
    raise BadRow(SILENT, "has no message of the assistant that its flags let be learned", "messages")


def _spelled(chat: Chat, tokenizer: Tokenizer | Pretrained) -> list[tuple[str, str]]:
  if not isinstance(tokenizer, Pretrained):
    return []
  tokens = [token for message in chat for token in tokenizer.spelled(message.text, message.role == "assistant")]
  return [(SPELLED_IN_CHAT, ", ".join(dict.fromkeys(tokens)))] if tokens else []


def _messages(value: dict, tokenizer: Tokenizer | Pretrained, control_tokens: bool) -> Draft:
  column = "conversations" if value.get("conversations") is not None and value.get("messages") is None else "messages"
  chat = _with_pictures(value, tokenizer, column)[column] if isinstance(value.get(column), list) else (
      column_of(value, column))
  return _drafted(Listed(()), listed(chat, column), column, value)


def _prompt_completion(value: dict, tokenizer: Tokenizer | Pretrained, control_tokens: bool) -> Draft:
  kinds = [type(value.get(column)) for column in ("prompt", "completion")]
  if kinds == [list, list]:
    prompt, completion = map(_with_pictures(value, tokenizer, "prompt", "completion").get, ("prompt", "completion"))
    return _drafted(listed(prompt, "prompt"), listed(completion, "completion"), "completion", value)
  if list in kinds and str in kinds:
    raise BadRow("text and messages", f"prompt is {kind(value['prompt'])} and completion {kind(value['completion'])}, "
                                      "but both should be texts, or both lists of messages", "completion")
  _refuse_beside_texts(value)
  prompt, completion = text_of(value, "prompt"), text_of(value, "completion", empty=False)
  return _unrendered(prompt, completion, tokenizer, control_tokens)


def _plain(value: dict, tokenizer: Tokenizer | Pretrained, control_tokens: bool) -> Draft:
  _refuse_beside_texts(value)
  return _unrendered("", text_of(value, "text", empty=False), tokenizer, control_tokens)


def _chosen(value: dict, tokenizer: Tokenizer | Pretrained, control_tokens: bool) -> Draft:
  try:
    return _prompt_completion(sides_of(value)[0], tokenizer, control_tokens)
  except BadRow as error:
    raise BadRow(error.reason, str(error), error.column.replace("completion", CHOSEN)) from error


READERS: dict[str, Callable[[dict, Tokenizer | Pretrained, bool], Draft]] = {
    "messages": _messages, "prompt_completion": _prompt_completion, "text": _plain, CHOSEN: _chosen}


def _with_pictures(value: dict, tokenizer: Tokenizer | Pretrained, *columns: str) -> dict:
  """The row with its pictures in the messages of these columns. BadRow for pictures that nothing reads."""
  if tokenizer.reader is not None:
    return spread(value, columns)
  column = next((column for column in PICTURES if value.get(column) not in (None, [], "")), "")
  if column:
    raise BadRow("pictures", "has pictures, but the model reads text only: use a vision-language model, or leave the "
                 "column out", column)
  return value


def _refuse_beside_texts(value: dict) -> None:
  column = next((column for column in PICTURES if value.get(column) not in (None, [], "")), "")
  if column:
    raise BadRow("pictures beside texts", "has pictures, whose places are in messages, but the row is of texts: give "
                 "lists of messages", column)


def used(name: str, value: dict) -> set[str]:
  """The columns that a row of a format is read from."""
  if name == CHOSEN:
    return {"prompt", *SIDES, *PICTURES, *(BESIDE if isinstance(value.get(CHOSEN), list) else ())}
  columns = set(FORMATS[name]) | ({"conversations"} if name == "messages" and value.get("messages") is None else set())
  chat = name == "messages" or isinstance(value.get("prompt"), list)
  return columns | ({"system", "tools", "chat_template_kwargs", *PICTURES} if chat else set())


def _drafted(prompt: Listed, answer: Listed, column: str, value: dict) -> Draft:
  """Of the chat what comes up to the assistant's last message, after the prompt."""
  last = max((index for index, message in enumerate(answer.chat) if message.role == "assistant"), default=-1)
  if last < 0:
    raise BadRow("no assistant message", "has no message of the assistant, so there is nothing to learn", column)
  system = system_of(value, (*prompt.chat, *answer.chat))
  before = len(system) + len(prompt.chat)
  silent = {number + len(system) for number in prompt.silent} | {number + before for number in answer.silent}
  left = answer.chat[last + 1:]
  notes = ((TRAILING, f"{left[0].role}: {left[0].text[:60]!r}"),) if left else ()
  shown = tuple(number for numbers in (*prompt.shown, *answer.shown[: last + 1]) for number in numbers)
  ready = Example([], [], notes, (*prompt.ignored, *answer.ignored), shown)
  return Draft((*system, *prompt.chat, *answer.chat[: last + 1]), template_args(value), before if prompt.chat else 0,
               frozenset(silent), ready)


def system_of(value: dict, chat: Chat) -> Chat:
  """The message of a row's column `system`, unless the chat begins with it; () without one."""
  if not value.get("system"):
    return ()
  text = text_of(value, "system")
  if chat[0].role == "system":
    if chat[0].text.strip() != text.strip():
      raise BadRow("two system texts", "is another text than that of the chat's own system message", "system")
    return ()
  return (Message("system", text),)


def template_args(value: dict) -> dict:
  """What the chat template of a row gets besides its messages."""
  args = {}
  for column, shape in (("chat_template_kwargs", dict), ("tools", list)):
    content = value.get(column)
    if isinstance(content, str) and content.strip():
      try:
        content = json.loads(content)
      except ValueError as error:
        raise BadRow(f"no {column}", "is a text that is no JSON", column) from error
    if content in (None, "", [], {}):
      continue
    if not isinstance(content, shape):
      raise BadRow(f"no {column}", f"is {kind(content)}, but should be {kind(shape())}", column)
    args |= content if shape is dict else {column: content}
  wrong = [key for key in args if key in ("messages", "add_generation_prompt")]
  if wrong:
    raise BadRow("no chat_template_kwargs", f"sets {wrong[0]}, which the row itself says", "chat_template_kwargs")
  return args


def _unrendered(prompt: str, text: str, tokenizer: Tokenizer | Pretrained, control_tokens: bool) -> Draft:
  """No template surrounds a text: what follows the prompt, and an end, are learned."""
  notes = []
  if not isinstance(tokenizer, Pretrained):
    before, after = [*opening(tokenizer), *tokenizer.encode(prompt)], tokenizer.encode(text)
  else:
    before, after, crossed = tokenizer.seam(prompt, text, control_tokens)
    if crossed:
      notes.append((SEAM, f"{prompt[-20:]!r} and {text[:20]!r}, where the joint text has {crossed!r}"))
    if not control_tokens and (tokens := tokenizer.spelled(prompt + text)):
      notes.append((SPELLED, ", ".join(dict.fromkeys(tokens))))
  if not (control_tokens and after[-1:] == [tokenizer.eos]):
    after = [*after, tokenizer.eos]
  return Draft(ready=Example([*before, *after], [False] * len(before) + [True] * len(after), tuple(notes)))


def opening(tokenizer: Tokenizer) -> list[int]:
  """The ids that a text without a template begins with: <bos>, where the tokenizer has one."""
  return [] if tokenizer.bos is None else [tokenizer.bos]
