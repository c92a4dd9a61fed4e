"""A chat template: what a chat looks like as text, and which stretches of it the assistant wrote.

The text has control tokens by names that no message can spell: the content of a message stays text, whatever it is.
"""

import dataclasses
import datetime
import functools
import json
import re
from typing import Any

from sftrl_jax.chat import Chat, Message

# Templates that ask for the date get this one: ids must not depend on the day on which a run is resumed. It is
# what Llama 3's template falls back to without a date.
DAY = datetime.datetime(2024, 7, 26)
# Four private characters. A message that has one of them is read with U+FFFD, the replacement character, instead.
OURS = "\U0010fffa\U0010fffb\U0010fffc\U0010fffd"
OPEN, CLOSE, BREAK, NAME = OURS
_OURS = re.compile(f"[{OURS}]")
_MARKS = re.compile(f"([{OPEN}{CLOSE}])")
_MARKED_BY_TEMPLATE = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_ANSWER = "An answer"
PROBE = (Message("user", "A question"), Message("assistant", _ANSWER))
_PROBES = (PROBE, (Message("system", "A rule"), *PROBE))
_LONG = (*PROBE, Message("user", "Another question"), Message("assistant", "Another answer"),
         Message("user", "A last question"))
# Replies that a longer chat has to repeat as they were; some templates drop the reasoning of earlier turns.
_REPLIES = {"": _ANSWER, ", reasoning left out": f"<think>\nA reason\n</think>\n\n{_ANSWER}"}


NEEDS = "chats and tokenizers of pretrained models need transformers and jinja2: pip install 'sftrl-jax[hf]'"


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
  """

  title: str
  source: str
  variables: dict
  controls: dict[str, str]
  end: str = ""
  opener: str = ""

  @functools.cached_property
  def _spelled(self) -> tuple[re.Pattern, re.Pattern]:
    """(where a control token begins, a control token that no message spells)."""
    longest_first = "|".join(map(re.escape, sorted(self.controls, key=len, reverse=True))) or "(?!)"
    return re.compile(f"(?={longest_first})"), re.compile(f"(?<!{BREAK})(?:{longest_first})")

  @functools.cached_property
  def _marks_responses(self) -> bool:
    return _MARKED_BY_TEMPLATE.search(self.source) is not None

  def text(self, chat: Chat, prompt: bool) -> str:
    """The whole chat, with the generation prompt or without; {% generation %} stands between OPEN and CLOSE."""
    jinja2 = _jinja2()
    begins, written = self._spelled
    messages = [{"role": message.role, "content": begins.sub(BREAK, _OURS.sub("\ufffd", message.text))}
                for message in chat]
    try:
      text = compiled(self.source).render(messages=messages, tools=None, documents=None, add_generation_prompt=prompt,
                                          **self.variables)
    except (jinja2.TemplateError, TypeError, AttributeError, LookupError, ValueError, ArithmeticError,
            RecursionError) as error:
      raise ValueError(f"The chat template of {self.title} refuses a chat of {_roles(chat)}: {error}") from error
    return written.sub(lambda match: self.controls[match[0]], text).replace(BREAK, "")

  def written(self, chat: Chat) -> tuple[str, list[tuple[int, int]]]:
    """(text, stretches): of each assistant message what a policy writes after the generation prompt, its end included.

    With the generation prompt if the chat awaits an answer. ValueError if the stretches are not certain.
    """
    if not chat:
      raise ValueError("A chat needs a message.")
    awaits = chat[-1].role != "assistant"
    text = self.text(chat, awaits)
    if self._marks_responses:
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
                         f"{_roles(chat)}: no turn but the one that is being written may lack its end.")
      stretches.append((start, stop + len(self.end)))
    return text, stretches

  def _opened(self, text: str) -> list[int]:
    """Ends of the openers: they hold a control token, so no message has one."""
    return [match.end() for match in re.finditer(re.escape(self.opener), text)] if self.opener else []

  def _grown(self, chat: Chat, text: str) -> list[int]:
    """Where responses begin: where the chat before each of them, with its generation prompt, ends."""
    starts = []
    for number, message in enumerate(chat):
      if message.role == "assistant":
        before = self.plain(chat[:number]) if number else ""
        if not number or not text.startswith(before):
          raise ValueError(f"The chat template of {self.title} does not show what the assistant wrote in a chat of "
                           f"{_roles(chat)}: message {number + 1} does not follow the prompt that asks for it. Put "
                           "{% generation %} and {% endgeneration %} around the assistant's words in the template.")
        starts.append(len(before))
    return starts

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
                       f"{_roles(chat)}.")
    return text, [self._fitted(text, start, stop) for start, stop in stretches if start < stop]

  def _fitted(self, text: str, start: int, stop: int) -> tuple[int, int]:
    start += len(self.opener) if text.startswith(self.opener, start, stop) else 0
    place = text.find(self.end, start)
    blank = not text[stop:place].strip()   # the end may stand behind the mark
    return start, place + len(self.end) if place >= 0 and blank else stop

  @functools.cached_property
  def fault(self) -> str:
    """Why a longer chat does not begin with the ids of the shorter one and its response; "" if it does."""
    for condition, reply in _REPLIES.items():
      for probe in _PROBES:
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


def make(title: str, source: str, variables: dict, added: dict[str, int], special: set[str]) -> Template:
  """The template with its end and opener found by rendering.

  added: ids of the tokenizer's added tokens. special: those that count as control tokens whatever the template does.
  """
  everything = Template(title, source, variables, {token: name_of(number) for token, number in added.items()})
  text = _first(everything)
  after = re.findall(f"{NAME}[0-9]+{NAME}", text[text.rindex(_ANSWER) + len(_ANSWER):])
  tokens = {name: token for token, name in everything.controls.items()}
  ends = [name for name in after if tokens[name] in special] or [name for name in after if tokens[name].strip()]
  if not ends:
    raise ValueError(f"The chat template of {title} puts no end token after the assistant's turn, so a model would "
                     "never learn to stop: let it write one of the tokenizer's special tokens there (eos_token).")
  controls = {token: name for name, token in tokens.items() if token in special or name == ends[0]}
  closed = dataclasses.replace(everything, controls=controls, end=ends[0])
  template = dataclasses.replace(closed, opener=_opener(closed))
  _refuse_wrong_stretches(template)
  return template


def _first(template: Template) -> str:
  """The first probe that the template takes; the ValueError of the last one if it takes none."""
  for probe in _PROBES:
    try:
      text = template.text(probe, False)
    except ValueError as error:
      refused = error
      continue
    if _ANSWER not in text:
      raise ValueError(f"The chat template of {template.title} leaves out what the assistant says.")
    return text
  raise refused


def _opener(template: Template) -> str:
  """The generation prompt, if no message can contain it, so that it marks every response; else ""."""
  try:
    bare, asked = (template.text(_LONG[:1], prompt) for prompt in (False, True))
    opener = asked.removeprefix(bare) if asked.startswith(bare) else ""
    known = NAME in opener and dataclasses.replace(template, opener=opener)
    text = known and known.plain(_LONG)
    same = known and known._opened(text)[:-1] == known._grown(_LONG, text)
  except ValueError:
    return ""
  return opener if same else ""


def _refuse_wrong_stretches(template: Template) -> None:
  """ValueError if the written stretches of a known chat are not the assistant's messages in it."""
  try:
    text, stretches = template.written(_LONG)
  except ValueError:   # it refuses such a chat, or cannot find the stretches: then it refuses every chat like it
    return
  trained = [text[start:stop] for start, stop in stretches]
  answers = [message.text for message in _LONG if message.role == "assistant"]
  if template._marks_responses:   # it may want to have the last one learned only
    answers = answers[-1:]
  others = [message.text for message in _LONG if message.role != "assistant"]
  closed = all(words.endswith(template.end) for words in trained)
  if not closed or any(answer not in "".join(trained) for answer in answers) or any(
      hidden in words for hidden in others for words in trained):
    raise ValueError(f"The chat template of {template.title} does not show what the assistant wrote, its end token "
                     f"included: of a known chat, {trained} would be trained. Put {{% generation %}} and "
                     "{% endgeneration %} around the assistant's words and the end token.")


@functools.cache
def compiled(source: str) -> Any:
  """A template as transformers compiles it: sandboxed, with its additions. Its data are plain strings and lists."""
  jinja2 = _jinja2()

  class Generation(jinja2.ext.Extension):
    """{% generation %} ... {% endgeneration %}: leaves marks around what the assistant wrote."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
      line = next(parser.stream).lineno
      body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
      return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller):
      return f"{OPEN}{caller()}{CLOSE}"

  def refuse(message: str) -> None:
    raise jinja2.TemplateError(message)

  def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)

  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
      trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
  environment.filters["tojson"] = to_json
  environment.globals.update(raise_exception=refuse, strftime_now=DAY.strftime)
  try:
    return environment.from_string(source)
  except jinja2.TemplateError as error:
    raise ValueError(f"A chat template does not compile: {error}") from error


def _jinja2():
  try:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox
  except ImportError as error:
    raise ImportError(NEEDS) from error
  return jinja2


def _roles(chat: Chat) -> str:
  return ", ".join(message.role for message in chat) or "no messages"
