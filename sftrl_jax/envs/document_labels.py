"""Classify a document: which of three topics has most of its words? The prompt gives every topic the name of its label.

  prompt    LABELS sport alpha food gamma money epsilon TEXT goal the soup match ... ASK
  response  TOPIC sport LABEL alpha
  feedback  OK, WRONG or ILLEGAL

Topic and label are two numbers: the topic is what was recognised in the text, the label what the prompt makes of it.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import ClassVar

from sftrl_jax.envs import fields, texts

OPTIONS = 3   # topics in a prompt


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
  """words: of the text. options: (topic, label) in the prompt's order. ranked: topics by their number of words."""

  words: tuple[str, ...]
  options: tuple[tuple[str, str], ...]
  ranked: tuple[str, ...]

  @property
  def keys(self) -> tuple[tuple[str, ...], ...]:
    return (self.ranked,)

  @property
  def habit(self) -> int:
    return tuple(texts.TOPICS).index(self.ranked[0])

  def prompt(self) -> str:
    listed = " ".join(f"{topic} {label}" for topic, label in self.options)
    return f"LABELS {listed} TEXT {' '.join(self.words)} ASK"

  def write(self, topic: str) -> str:
    return f"TOPIC {topic} LABEL {dict(self.options)[topic]}"

  def expert(self) -> str:
    return self.write(self.ranked[0])

  def careless(self) -> str:
    """The topic with the second most words."""
    return self.write(self.ranked[1])

  def misread(self, source: random.Random) -> str:
    return self.write(texts.pick(source, [topic for topic, _ in self.options if topic != self.ranked[0]]))


@dataclasses.dataclass(frozen=True)
class DocumentLabels(texts.TextTask):
  """Classification of documents; fields of texts.TextTask and these.

  length: words of a text, the fewest and the most
  longer: words of a text of the variant "length_ood"
  labels: names in the prompt: "usual" (each topic's own), "other" (names that training never has, in random order), or
    "mixed" (for a base model); the variant "label_ood" has the other ones
  rewards: of the right label, a wrong label of the right topic, a wrong label of a wrong topic, an illegal response
  """

  length: tuple[int, int] = (9, 12)
  longer: int = 18
  labels: str = "usual"
  rewards: tuple[float, ...] = (1.0, -0.2, -0.4, -0.6)

  variant_labels: ClassVar[dict[str, str]] = texts.TextTask.variant_labels | {"label_ood": "OOD, other label names"}
  code_labels: ClassVar[dict[str, str]] = {"correct": "correct", "label": "wrong label", "topic": "wrong topic",
                                           "illegal": "illegal format"}
  most: ClassVar[tuple[int, int]] = (8, 60)

  def _checked(self) -> dict:
    return {**super()._checked(), "labels": fields.choice("labels", self.labels, ("usual", "other", "mixed"))}

  def _draw(self, source: random.Random, length: int, wording: str, style: random.Random) -> Document:
    topics = texts.picks(source, tuple(texts.TOPICS), OPTIONS)
    first = (4 * length + 5) // 9
    counts = (first, first // 2, 1)
    places = {topic: texts.pick(source, range(5)) for topic in topics}
    numbered = [(topic, (places[topic] + number) % 5) for topic, count in zip(topics, counts, strict=False)
                for number in range(count)]
    fillers = [("", texts.pick(source, range(len(texts.FILLERS)))) for _ in range(length - sum(counts))]
    shift = 0 if wording == "plain" else 5
    words = [texts.TOPICS[topic][place + shift] if topic else texts.FILLERS[place]
             for topic, place in texts.picks(source, numbered + fillers, length)]
    listed = texts.picks(source, topics, OPTIONS)
    usual = [texts.LABELS[tuple(texts.TOPICS).index(topic)] for topic in listed]
    named = texts.names(style, "other" if self.variant == "label_ood" else self.labels, usual)
    return Document(tuple(words), tuple(zip(listed, named, strict=True)), tuple(topics))

  def _judge(self, text: Document, words: Sequence[str]) -> tuple[str, float, dict[str, bool]]:
    """Of a right label nothing else is looked at."""
    labels = dict(text.options)
    if (len(words) != 4 or words[0] != "TOPIC" or words[2] != "LABEL" or words[1] not in labels
        or words[3] not in labels.values()):
      return "illegal", 0.0, {"topic": False, "label": False}
    parts = {"topic": words[1] == text.ranked[0], "label": words[3] == labels[words[1]]}
    if words[3] == labels[text.ranked[0]]:
      return "correct", 1.0, parts
    return "label" if parts["topic"] else "topic", 0.0, parts

  def _reward(self, code: str, score: float, best: float) -> float:
    del score, best
    return self.rewards[self.codes.index(code)]
