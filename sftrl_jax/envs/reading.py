"""Answer a short question about a text of numbered sentences.

  prompt    TEXT 1 ann hid key barn 2 bob left cup park 3 eve put hat mill ASK WHERE cup
  response  LINE 2 ANSWER park
  feedback  OK, WRONG or ILLEGAL

In the other wording a sentence begins with its place (`park stores cup bob`), and questions have other words. The line
is what was recognised, the answer what was asked for.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from sftrl_jax.envs import texts

KINDS = (("place", "thing"), ("person", "thing"))   # asked, given


class Line(NamedTuple):
  """What a sentence says."""

  person: str
  thing: str
  place: str


@dataclasses.dataclass(frozen=True, slots=True)
class Story:
  """deeds: numbers of the verbs. line: the one that is asked about. asked, given: fields of it."""

  lines: tuple[Line, ...]
  deeds: tuple[int, ...]
  line: int
  asked: str
  given: str
  wording: str

  @property
  def keys(self) -> tuple[tuple[str, ...], ...]:
    line = self.lines[self.line]
    return ((getattr(line, self.given), getattr(line, self.asked)),)

  @property
  def habit(self) -> int:
    return texts.THINGS.index(getattr(self.lines[self.line], self.given))

  def prompt(self) -> str:
    sentences = [f"{number} {self._sentence(line, texts.DEEDS[self.wording][deed])}" for number, line, deed in
                 zip(texts.NUMBERS, self.lines, self.deeds, strict=False)]
    given = getattr(self.lines[self.line], self.given)
    return f"TEXT {' '.join(sentences)} ASK {texts.ASKED[self.wording][self.asked]} {given}"

  def _sentence(self, line: Line, deed: str) -> str:
    first, *rest = line if self.wording == "plain" else reversed(line)
    return " ".join((first, deed, *rest))

  def write(self, line: int) -> str:
    return f"LINE {line + 1} ANSWER {getattr(self.lines[line], self.asked)}"

  def expert(self) -> str:
    return self.write(self.line)

  def careless(self) -> str:
    """The line before; of the first line, the last."""
    return self.write((self.line - 1) % len(self.lines))

  def misread(self, source: random.Random) -> str:
    return self.write((self.line + 1 + texts.pick(source, range(len(self.lines) - 1))) % len(self.lines))


@dataclasses.dataclass(frozen=True)
class Reading(texts.TextTask):
  """Questions about a text; fields of texts.TextTask and these.

  length: sentences of a text, the fewest and the most
  longer: sentences of a text of the variant "length_ood"
  rewards: of the right answer, a wrong one from the right line, one from a wrong line, an illegal response
  """

  length: tuple[int, int] = (3, 4)
  longer: int = 6
  rewards: tuple[float, ...] = (1.0, -0.2, -0.4, -0.6)

  code_labels: ClassVar[dict[str, str]] = {"correct": "correct", "answer": "wrong answer", "line": "wrong line",
                                           "illegal": "illegal format"}
  most: ClassVar[tuple[int, int]] = (2, len(texts.NUMBERS))

  def _draw(self, source: random.Random, length: int, wording: str, style: random.Random) -> Story:
    del style
    columns = [texts.picks(source, words, length) for words in (texts.PEOPLE, texts.THINGS, texts.PLACES)]
    lines = tuple(map(Line, *columns))
    deeds = tuple(texts.pick(source, range(3)) for _ in range(length))
    asked, given = texts.pick(source, KINDS)
    return Story(lines, deeds, texts.pick(source, range(length)), asked, given, wording)

  def _judge(self, text: Story, words: Sequence[str]) -> tuple[str, float, dict[str, bool]]:
    """Of a right answer nothing else is looked at."""
    known = {word for line in text.lines for word in line}
    lines = texts.NUMBERS[:len(text.lines)]
    if len(words) != 4 or (words[0], words[2]) != ("LINE", "ANSWER") or words[1] not in lines or words[3] not in known:
      return "illegal", 0.0, {"line": False, "answer": False}
    read = text.lines[int(words[1]) - 1]
    parts = {"line": int(words[1]) - 1 == text.line, "answer": words[3] == getattr(read, text.asked)}
    if words[3] == getattr(text.lines[text.line], text.asked):
      return "correct", 1.0, parts
    return "answer" if parts["line"] else "line", 0.0, parts

  def _reward(self, code: str, score: float, best: float) -> float:
    del score, best
    return self.rewards[self.codes.index(code)]
