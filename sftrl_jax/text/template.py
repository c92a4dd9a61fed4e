"""A chat template: what a chat looks like as text, and which stretches of it the assistant wrote.

The text has control tokens by names that no message can spell: the content of a message stays text, whatever it is.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

from sftrl_jax.chat import Chat, Message
from sftrl_jax.text.jinja import BREAK, CLOSE, NAME, OPEN, OURS, compiled, library

_OURS = re.compile(f"[{OURS}]")
_MARKS = re.compile(f"([{OPEN}{CLOSE}])")
_MARKED_BY_TEMPLATE = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_PIECES = re.compile(r"</?[\w|]+>|\n")   # what lies between them is words
ANSWER = "An answer"
PROBE = (Message("user", "A question"), Message("assistant", ANSWER))
PROBES = (PROBE, (Message("system", "A rule"), *PROBE))
# Replies that a longer chat has to repeat as they were; some templates drop the reasoning of earlier turns.
REPLIES = {"": ANSWER, ", reasoning left out": f"<think>\nA reason\n</think>\n\n{ANSWER}"}
def name_of(token: int) -> str:
  """How a control token is called in a rendered text."""
  return f"{NAME}{token}{NAME}"


@dataclasses.dataclass(frozen=True, eq=False)
class Template:
  """A compiled template and what rendering probes with it has shown.

  title: whose it is, for messages
  variables: what the template may read besides the chat (bos_token, ...)
  controls: texts of control tokens -> their names
  end: name of the token that closes the assistant's turns
  opener: text that begins each of them; "" if that is not known, or messages could spell it
  prompt: the generation prompt, if it holds a control token
  header: how prompt and the assistant's turns begin alike, where the prompt goes on in another way than the turns
  allowed: control tokens that are such in what the assistant says, too
  args: of one chat, besides `variables`: its tools, enable_thinking, ...
  """

  title: str
  source: str
  variables: dict
  controls: dict[str, str]
  end: str = ""
  opener: str = ""
  prompt: str = ""
  header: str = ""
  allowed: frozenset[str] = frozenset()
  args: dict = dataclasses.field(default_factory=dict)

  @functools.cached_property
  def _spelled(self) -> tuple[re.Pattern, re.Pattern, re.Pattern]:
    """(where a control token begins, where one that the assistant may not write begins, one that no message spells)."""
    forbidden = [token for token in self.controls if token not in self.allowed]
    return (re.compile(f"(?={_longest_first(self.controls)})"), re.compile(f"(?={_longest_first(forbidden)})"),
            re.compile(f"(?<!{BREAK})(?:{_longest_first(self.controls)})"))

  @functools.cached_property
  def marks_responses(self) -> bool:
    return _MARKED_BY_TEMPLATE.search(self.source) is not None

  @property
  def _begun(self) -> str:
    """How the generation prompt goes on behind the header."""
    return self.prompt[len(self.header):] if self.header else ""

  def spelled(self, text: str, by_assistant: bool = False) -> list[str]:
    """The control tokens whose names a text holds, and which are read as letters."""
    tokens = self._spelled[2].findall(text)
    return [token for token in tokens if not by_assistant or token not in self.allowed]

  def text(self, chat: Chat, prompt: bool) -> str:
    """The whole chat, with the generation prompt or without; {% generation %} stands between OPEN and CLOSE."""
    jinja2 = library()
    messages = [self._safe(self._as_fields(message), message.role == "assistant") for message in chat]
    try:
      text = compiled(self.source).render(**{"tools": None, "documents": None, **self.variables,
                                             **self._safe(self.args, False)},
                                          messages=messages, add_generation_prompt=prompt)
    except (jinja2.TemplateError, TypeError, AttributeError, LookupError, ValueError, ArithmeticError,
            RecursionError, MemoryError) as error:
      raise ValueError(f"The chat template of {self.title} refuses a chat of {roles(chat)}: {error}") from error
    return self._named(text).replace(BREAK, "")

  def _as_fields(self, message: Message) -> Mapping:
    """A message as the template reads it. A picture is a part of its content, before the text."""
    if message.fields is not None:
      text = message.fields.get("content")
      return ({**message.fields, "content": [{"type": "text", "text": text}]} if isinstance(text, str)
              and self._reads_parts else message.fields)
    if message.image is None and not self._reads_parts:
      return {"role": message.role, "content": message.text}
    picture = [] if message.image is None else [{"type": "image"}]
    return {"role": message.role, "content": [*picture, {"type": "text", "text": message.text}]}

  @functools.cached_property
  def _reads_parts(self) -> bool:
    """Whether the template reads a content in parts alone, and drops one that is a text."""
    jinja2, message = library(), {"role": PROBE[0].role, "content": PROBE[0].text}
    if "type" not in self.source:
      return False
    try:
      return PROBE[0].text not in compiled(self.source).render(
          **{"tools": None, "documents": None, **self.variables}, messages=[message], add_generation_prompt=True)
    except (jinja2.TemplateError, TypeError, AttributeError, LookupError, ValueError, ArithmeticError):
      return False

  def _named(self, text: str) -> str:
    return self._spelled[2].sub(lambda match: self.controls[match[0]], text)

  def _safe(self, value: Any, by_assistant: bool) -> Any:
    """A value in whose texts no control token is spelled, but those that the assistant may write."""
    if isinstance(value, str):
      return self._spelled[1 if by_assistant else 0].sub(BREAK, _OURS.sub("\ufffd", value))
    if isinstance(value, Mapping):
      return {self._safe(key, by_assistant): self._safe(item, by_assistant) for key, item in value.items()}
    return [self._safe(item, by_assistant) for item in value] if isinstance(value, (list, tuple)) else value

  def written(self, chat: Chat) -> tuple[str, list[tuple[int, int]]]:
    """(text, stretches): of each assistant message what a policy writes after the generation prompt, its end included.

    With the generation prompt if the chat awaits an answer. ValueError if the stretches are not certain. Reasoning that
    the template drops of the last message is written all the same, since a policy writes it.
    """
    if not chat:
      raise ValueError("A chat needs a message.")
    text = self.text(chat, chat[-1].role != "assistant")
    plain, stretches = self._stretches(chat, text)
    if self._loses(chat, plain, stretches) and (kept := self._with_reasoning(chat)) is not None:
      return self._stretches(chat, kept)
    return plain, stretches

  def _loses(self, chat: Chat, text: str, stretches: list[tuple[int, int]]) -> bool:
    """Whether the last message is an answer whose reasoning the template drops."""
    last = chat[-1].text if chat[-1].role == "assistant" else ""
    return bool(stretches) and "</" in last and _lost(last, self.readable(text[slice(*stretches[-1])]))

  @functools.cached_property
  def drops_reasoning(self) -> bool:
    """Whether the template drops the reasoning of the last answer too."""
    chat = (PROBE[0], dataclasses.replace(PROBE[1], text=REPLIES[", reasoning left out"]))
    try:
      return self._loses(chat, *self._stretches(chat, self.text(chat, False)))
    except ValueError:   # it refuses such a chat
      return False

  def _stretches(self, chat: Chat, text: str) -> tuple[str, list[tuple[int, int]]]:
    awaits = chat[-1].role != "assistant"
    if self.marks_responses:
      return self._marked(chat, text)
    wanted = sum(message.role == "assistant" for message in chat)
    if not wanted:
      return text, []
    starts = self._opened(text)
    if len(starts) != wanted + awaits:
      starts = self._grown(chat, text)
    stretches = []
    for start, limit in zip(starts[:wanted], [*starts[1:], len(text)], strict=False):
      stop = text.find(self.end, start, limit)
      if stop < 0:
        raise ValueError(f"The chat template of {self.title} leaves a turn of the assistant open in a chat of "
                         f"{roles(chat)}: no turn but the one that is being written may lack its end.")
      stretches.append((start, stop + len(self.end)))
    return text, stretches

  def _with_reasoning(self, chat: Chat) -> str | None:
    """The text of the chat with all that its last message says; None if the template writes that nowhere."""
    number, texts = 0, [message.text for message in chat]
    while any(f"Reply {number}." in text for text in texts):
      number += 1
    hold, last = f"Reply {number}.", chat[-1]
    fields = None if last.fields is None else {**last.fields, "content": hold}
    text = self.text((*chat[:-1], dataclasses.replace(last, text=hold, fields=fields)), False)
    if text.count(hold) != 1:
      return None
    answer = self._named(self._safe(last.text, True)).replace(BREAK, "")
    begun = self._begun
    if begun.strip() and begun.strip() not in answer:   # as it was sampled: behind a prompt that opens the reasoning
      answer = begun + answer
    return text.replace(hold, answer)

  def _opened(self, text: str) -> list[int]:
    """Ends of the openers: they hold a control token, so no message has one."""
    return [match.end() for match in re.finditer(re.escape(self.opener), text)] if self.opener else []

  def _grown(self, chat: Chat, text: str) -> list[int]:
    """Where responses begin: where the chat before each of them, with its generation prompt, ends; or, where turns do
    not repeat that prompt, behind the words that both begin with."""
    starts = []
    for number, message in enumerate(chat):
      if message.role == "assistant":
        before = self.plain(chat[:number]) if number else ""
        if not number or not text.startswith(before):
          headed = self._headed(text)
          if len(headed) == sum(each.role == "assistant" for each in chat) + (chat[-1].role != "assistant"):
            return headed
          raise ValueError(f"The chat template of {self.title} does not show what the assistant wrote in a chat of "
                           f"{roles(chat)}: message {number + 1} does not follow the prompt that asks for it. Put "
                           "{% generation %} and {% endgeneration %} around the assistant's words in the template.")
        starts.append(len(before))
    return starts

  def _headed(self, text: str) -> list[int]:
    """Ends of the headers, or of the whole generation prompt where a turn begins with it."""
    places = [match.start() for match in re.finditer(re.escape(self.header), text)] if self.header else []
    return [place + len(self.prompt if text.startswith(self.prompt, place) else self.header) for place in places]

  def _marked(self, chat: Chat, text: str) -> tuple[str, list[tuple[int, int]]]:
    """What {% generation %} marks: from behind the generation prompt to the end of the turn, and not beyond it."""
    pieces, stretches, length, start = [], [], 0, 0
    for piece in _MARKS.split(text):
      if piece == OPEN:
        start = length
      elif piece == CLOSE:
        stretches.append((start, length))
      else:
        pieces.append(piece)
        length += len(piece)
    text = "".join(pieces)
    if not any(start < stop for start, stop in stretches) and any(message.role == "assistant" for message in chat):
      raise ValueError(f"The chat template of {self.title} marks nothing by {{% generation %}} in a chat of "
                       f"{roles(chat)}.")
    return text, [self._fitted(text, start, stop) for start, stop in stretches if start < stop]

  def _fitted(self, text: str, start: int, stop: int) -> tuple[int, int]:
    start += len(self.opener) if text.startswith(self.opener, start, stop) else 0
    begun = self._begun   # a mark may stand where turns begin, while the prompt goes on
    start += len(begun) if text.startswith(begun, start, stop) and text.endswith(self.header, 0, start) else 0
    place = text.find(self.end, start)
    blank = not text[stop:place].strip()   # the end may stand behind the mark
    return start, place + len(self.end) if place >= 0 and blank else stop

  def readable(self, text: str) -> str:
    """A rendered text with control tokens as they are spelled."""
    tokens = {name: token for token, name in self.controls.items()}
    return re.sub(f"{NAME}[0-9]+{NAME}", lambda match: tokens.get(match[0], match[0]), text)

  @functools.cached_property
  def fault(self) -> str:
    """Why a longer chat does not begin with the ids of the shorter one and its response; "" if it does."""
    for condition, reply in REPLIES.items():
      for probe in PROBES:
        chat = probe[:-1]
        try:
          before = self.plain(chat)
        except ValueError:   # no system role: then no chat has one
          continue
        for question in ("Another question", "A last question"):
          chat = (*chat, Message("assistant", reply), Message("user", question))
          longer = self.plain(chat)
          if not longer.startswith(before + reply + self.end):
            return f"earlier turns are rendered otherwise once the chat has gone on{condition}"
          before = longer
    return ""

  def plain(self, chat: Chat) -> str:
    """The chat with the generation prompt, and without what marks the assistant's words."""
    return _MARKS.sub("", self.text(chat, True))


def _longest_first(tokens) -> str:
  return "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)"


def missing(text: str, part: str) -> str:
  """The first words of a message that are not in a part of a text; "" if all are."""
  return next((words.strip() for words in _PIECES.split(text) if words.strip() not in part), "")


def _lost(text: str, part: str) -> bool:
  """Whether of a message what stands before a closing tag, such as </think>, is not in its turn, but the rest is."""
  head, tag, tail = text.rpartition("</")
  return bool(tag and missing(head, part) and not missing(f"</{tail}", part))


def roles(chat: Chat) -> str:
  return ", ".join(message.role for message in chat) or "no messages"
