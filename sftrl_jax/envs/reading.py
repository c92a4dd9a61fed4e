"""Answer a short question about a text: quote the sentence that says it, then answer.

  prompt    TEXT key hid barn ann cup left park bob hat put mill eve ASK WHERE cup
  response  LINE cup left park bob ANSWER park
  feedback  OK, WRONG or ILLEGAL

In the other wording the verbs, the order after the thing (`cup bob stores park`) and the words of the question are
others. A sentence begins with its thing, and a question ends with one, so a quote starts with the question's last word.
The line is what was recognised, the answer what was asked for.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from sftrl_jax.envs import texts

ASKED = ("place", "person")
ORDERS = {"plain": ("thing", "deed", "place", "person"), "other": ("thing", "person", "deed", "place")}


class Line(NamedTuple):
  """What a sentence says. deed: the number of its verb"""

  person: str
  thing: str
  place: str
  deed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Story:
  """line: the number of the one that is asked about, by its thing. asked: the field of it that is the answer"""

  lines: tuple[Line, ...]
  line: int
  asked: str
  wording: str

  @property
  def keys(self) -> tuple[tuple[str, ...], ...]:
    line = self.lines[self.line]
    return ((line.thing, getattr(line, self.asked)),)

  @property
  def habit(self) -> int:
    return texts.THINGS.index(self.lines[self.line].thing)

  def prompt(self) -> str:
    sentences = [word for line in self.lines for word in self.sentence(line)]
    return f"TEXT {' '.join(sentences)} ASK {texts.ASKED[self.wording][self.asked]} {self.lines[self.line].thing}"

  def sentence(self, line: Line) -> tuple[str, ...]:
    words = line._asdict() | dict(deed=texts.DEEDS[self.wording][line.deed])
    return tuple([words[field] for field in ORDERS[self.wording]])

  def write(self, number: int) -> str:
    line = self.lines[number]
    return f"LINE {' '.join(self.sentence(line))} ANSWER {getattr(line, self.asked)}"

  def expert(self) -> str:
    return self.write(self.line)

  def careless(self) -> str:
    """The first line; in place of the first, the last."""
    return self.write(0 if self.line else -1)

  def misread(self, source: random.Random) -> str:
    return self.write((self.line + 1 + texts.pick(source, range(len(self.lines) - 1))) % len(self.lines))


@dataclasses.dataclass(frozen=True)
class Reading(texts.TextTask):
  """Questions about a text; fields of texts.TextTask and these.

  length: sentences of a text, the fewest and the most
  longer: sentences of a text of the variant "length_ood"
  rewards: of the right answer, a wrong one after the right quote, one after a wrong quote, an illegal response
  """

  length: tuple[int, int] = (3, 4)
  longer: int = 6
  rewards: tuple[float, ...] = (1.0, -0.2, -0.4, -0.6)

  code_labels: ClassVar[dict[str, str]] = {"correct": "correct", "answer": "wrong answer", "line": "wrong quote",
                                           "illegal": "illegal format"}
  most: ClassVar[tuple[int, int]] = (2, len(texts.THINGS))   # no thing twice

  def _draw(self, source: random.Random, length: int, wording: str, style: random.Random) -> Story:
    del style
    columns = [texts.picks(source, words, length) for words in (texts.PEOPLE, texts.THINGS, texts.PLACES)]
    deeds = [texts.pick(source, range(3)) for _ in range(length)]
    asked = texts.pick(source, ASKED)
    return Story(tuple(map(Line, *columns, deeds)), texts.pick(source, range(length)), asked, wording)

  def _judge(self, text: Story, words: Sequence[str]) -> tuple[str, float, dict[str, bool]]:
    """Of a right answer nothing else is looked at. An answer is judged apart by the quote that it follows."""
    known = {word for line in text.lines for word in text.sentence(line)}
    if len(words) != 7 or (words[0], words[5]) != ("LINE", "ANSWER") or not known.issuperset((*words[1:5], words[6])):
      return "illegal", 0.0, {"line": False, "answer": False}
    line, quote, answer = text.lines[text.line], tuple(words[1:5]), words[6]
    parts = {"line": quote == text.sentence(line), "answer": answer == quote[ORDERS[text.wording].index(text.asked)]}
    if answer == getattr(line, text.asked):
      return "correct", 1.0, parts
    return "answer" if parts["line"] else "line", 0.0, parts

  def _reward(self, code: str, score: float, best: float) -> float:
    del score, best
    return self.rewards[self.codes.index(code)]
