"""What rendering a few known chats shows of a template: the token that ends a turn, and how an answer begins."""

import dataclasses
import re

from sftrl_jax.chat import Message
from sftrl_jax.text.jinja import NAME
from sftrl_jax.text.template import ANSWER, PROBE, PROBES, Template, name_of

_LONG = (*PROBE, Message("user", "Another question"), Message("assistant", "Another answer"),
         Message("user", "A last question"))


def make(title: str, source: str, variables: dict, added: dict[str, int], special: set[str],
         allowed: frozenset[str] = frozenset()) -> Template:
  """The template with its end and opener found by rendering.

  added: ids of the tokenizer's added tokens. special: those that count as control tokens whatever the template does.
  allowed: those of them that are control tokens in what the assistant says, too
  """
  everything = Template(title, source, variables, {token: name_of(number) for token, number in added.items()})
  text = _first(everything)
  after = re.findall(f"{NAME}[0-9]+{NAME}", text[text.rindex(ANSWER) + len(ANSWER):])
  tokens = {name: token for token, name in everything.controls.items()}
  ends = [name for name in after if tokens[name] in special] or [name for name in after if tokens[name].strip()]
  if not ends:
    raise ValueError(f"The chat template of {title} puts no end token after the assistant's turn, so a model would "
                     "never learn to stop: let it write one of the tokenizer's special tokens there (eos_token).")
  controls = {token: name for name, token in tokens.items() if token in special or name == ends[0]}
  closed = dataclasses.replace(everything, controls=controls, end=ends[0], allowed=allowed - {tokens[ends[0]]})
  template = opened(closed)
  _refuse_wrong_stretches(template)
  return template


def opened(template: Template) -> Template:
  """The template with what begins an answer, found by rendering: it may depend on its arguments."""
  prompt = _prompt(template)
  begun = dataclasses.replace(template, opener="", prompt=prompt, header="")
  return dataclasses.replace(begun, opener=_opener(begun), header=_header(begun))


def _first(template: Template) -> str:
  """The first probe that the template takes; the ValueError of the last one if it takes none."""
  for probe in PROBES:
    try:
      text = template.text(probe, False)
    except ValueError as error:
      refused = error
      continue
    if ANSWER not in text:
      raise ValueError(f"The chat template of {template.title} leaves out what the assistant says.")
    return text
  raise refused


def _prompt(template: Template) -> str:
  """The generation prompt, if it holds a control token, so that no message can contain it; else ""."""
  try:
    bare, asked = (template.text(_LONG[:1], prompt) for prompt in (False, True))
  except ValueError:
    return ""
  prompt = asked.removeprefix(bare) if asked.startswith(bare) else ""
  return prompt if NAME in prompt else ""


def _opener(template: Template) -> str:
  """The generation prompt, if it begins every response; else ""."""
  try:
    known = template.prompt and dataclasses.replace(template, opener=template.prompt)
    text = known and known.plain(_LONG)
    same = known and known._opened(text)[:-1] == known._grown(_LONG, text)
  except ValueError:
    return ""
  return template.prompt if same else ""


def _header(template: Template) -> str:
  """The longest beginning of the generation prompt that each turn of the assistant begins with, and nothing else; ""
  if there is none."""
  try:
    text = template.plain(_LONG)
  except ValueError:
    return ""
  answers = [message.text for message in _LONG if message.role == "assistant"]
  for length in range(len(template.prompt), 0, -1):
    header = template.prompt[:length]
    names = header.count(NAME)
    if not names or names % 2 or text.count(header) != len(answers) + 1:
      continue
    turns = text.split(header)[1:]
    if all(turn.partition(template.end)[0].strip().endswith(answer)
           for turn, answer in zip(turns, answers, strict=False)):
      return header
  return ""


def _refuse_wrong_stretches(template: Template) -> None:
  """ValueError if the written stretches of a known chat are not the assistant's messages in it."""
  try:
    text, stretches = template.written(_LONG)
  except ValueError:   # it refuses such a chat, or cannot find the stretches: then it refuses every chat like it
    return
  trained = [text[start:stop] for start, stop in stretches]
  answers = [message.text for message in _LONG if message.role == "assistant"]
  if template.marks_responses:   # it may want to have the last one learned only
    answers = answers[-1:]
  others = [message.text for message in _LONG if message.role != "assistant"]
  closed = all(words.endswith(template.end) for words in trained)
  if not closed or any(answer not in "".join(trained) for answer in answers) or any(
      hidden in words for hidden in others for words in trained):
    raise ValueError(f"The chat template of {template.title} does not show what the assistant wrote, its end token "
                     f"included: of a known chat, {trained} would be trained. Put {{% generation %}} and "
                     "{% endgeneration %} around the assistant's words and the end token.")
