"""Extract the triples of a knowledge graph from a text. The prompt gives every verb the name of its relation.

  prompt    SCHEMA runs leader joins member owns holder TEXT ann owns acme bob saw barn eve runs bolt ASK
  response  ann holder acme ; eve leader bolt END
  feedback  OK, WRONG or ILLEGAL

In the other wording a sentence begins with its object (`acme owned_by ann`). The order of the triples is free. The
score of a response is F1 over triples, 2 |right| / (|listed| + |true|), where a triple that is listed twice counts
twice among those listed and once among those that are right. Entities are right if exactly the true pairs of subject
and object are listed; relations, if all true pairs that are listed have theirs.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import ClassVar

from sftrl_jax.envs import fields, texts

MOST_TRIPLES = 20   # of a response; more are illegal


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
  """sentences: (subject, number of a verb or -1, object), in the text's order. schema: (number of a verb,
  name of its relation), in the prompt's order."""

  sentences: tuple[tuple[str, int, str], ...]
  schema: tuple[tuple[int, str], ...]
  wording: str

  @property
  def stated(self) -> tuple[tuple[str, int, str], ...]:
    """The sentences that state a relation."""
    return tuple([sentence for sentence in self.sentences if sentence[1] >= 0])

  @property
  def keys(self) -> tuple[tuple[str, ...], ...]:
    return tuple([(subject, str(verb), thing) for subject, verb, thing in self.stated])

  @property
  def habit(self) -> int:
    return texts.PEOPLE.index(self.stated[0][0])

  @property
  def triples(self) -> tuple[tuple[str, str, str], ...]:
    names = dict(self.schema)
    return tuple([(subject, names[verb], thing) for subject, verb, thing in self.stated])

  def prompt(self) -> str:
    listed = " ".join(f"{texts.VERBS['plain'][verb]} {name}" for verb, name in self.schema)
    return f"SCHEMA {listed} TEXT {' '.join(map(self._sentence, self.sentences))} ASK"

  def _sentence(self, sentence: tuple[str, int, str]) -> str:
    subject, verb, thing = sentence
    if verb < 0:
      return f"{subject} {texts.SAW} {thing}"
    word = texts.VERBS[self.wording][verb]
    return f"{subject} {word} {thing}" if self.wording == "plain" else f"{thing} {word} {subject}"

  def expert(self) -> str:
    return write(self.triples)

  def careless(self) -> str:
    """Every triple but the last has the object of the triple behind it."""
    triples = self.triples
    behind = (*(triple[2] for triple in triples[1:]), triples[-1][2])
    return write([(subject, relation, thing) for (subject, relation, _), thing in zip(triples, behind, strict=True)])

  def misread(self, source: random.Random) -> str:
    """One triple has another relation of the schema."""
    triples = list(self.triples)
    place = texts.pick(source, range(len(triples)))
    subject, relation, thing = triples[place]
    triples[place] = subject, texts.pick(source, [name for _, name in self.schema if name != relation]), thing
    return write(triples)


@dataclasses.dataclass(frozen=True)
class Triples(texts.TextTask):
  """Extraction of triples; fields of texts.TextTask and these.

  length: sentences of a text, the fewest and the most; all but one state a relation
  longer: sentences of a text of the variant "length_ood"
  labels: names of the relations: "usual", "other" (names that training never has, in random order), or "mixed" (for a
    base model); the variant "label_ood" has the other ones
  rewards: of F1 = 1, of F1 = 0, of an illegal response. A later try is paid for what it adds to the best F1 of the
    episode: else a partly right response before a right one would be worth more than the right one alone.
  """

  length: tuple[int, int] = (3, 4)
  longer: int = 6
  labels: str = "usual"
  rewards: tuple[float, ...] = (1.0, 0.0, -0.6)

  variant_labels: ClassVar[dict[str, str]] = texts.TextTask.variant_labels | {
      "label_ood": "OOD, other names of relations"}
  code_labels: ClassVar[dict[str, str]] = {"correct": "correct", "partial": "some triples right",
                                           "wrong": "no triple right", "illegal": "illegal format"}
  most: ClassVar[tuple[int, int]] = (3, 9)

  def _checked(self) -> dict:
    checked = {**super()._checked(), "labels": fields.choice("labels", self.labels, ("usual", "other", "mixed"))}
    right, wrong, illegal = checked["rewards"]
    if not right > wrong >= 0 >= illegal:
      raise ValueError(f"rewards is {self.rewards!r}, but the reward of F1 = 1 must lie above that of F1 = 0, which is "
                       "at least 0, and an illegal response gets at most 0: use (1.0, 0.0, -0.6).")
    return checked

  def _draw(self, source: random.Random, length: int, wording: str, style: random.Random) -> Facts:
    people, firms = (texts.picks(source, words, length) for words in (texts.PEOPLE, texts.FIRMS))
    silent = texts.pick(source, range(length))
    sentences = [(person, texts.pick(source, range(3)), firm) for person, firm in zip(people, firms, strict=True)]
    sentences[silent] = people[silent], -1, texts.pick(source, texts.PLACES)
    listed = texts.picks(source, range(3), 3)
    named = texts.names(style, "other" if self.variant == "label_ood" else self.labels,
                        [texts.RELATIONS[verb] for verb in listed])
    return Facts(tuple(sentences), tuple(zip(listed, named, strict=True)), wording)

  def _judge(self, text: Facts, words: Sequence[str]) -> tuple[str, float, dict[str, bool]]:
    listed = read(words)
    if listed is None:
      return "illegal", 0.0, {"entities": False, "relations": False}
    true = text.triples
    score = 2 * len(set(listed) & set(true)) / (len(listed) + len(true))
    relations = {triple[::2]: triple[1] for triple in true}
    linked = [triple for triple in listed if triple[::2] in relations]
    parts = {"entities": len(linked) == len(listed) and {triple[::2] for triple in linked} == set(relations),
             "relations": bool(linked) and all(relations[triple[::2]] == triple[1] for triple in linked)}
    return "correct" if score == 1 else "partial" if score else "wrong", score, parts

  def _reward(self, code: str, score: float, best: float) -> float:
    right, wrong, illegal = self.rewards
    return illegal if code == "illegal" else wrong + (right - wrong) * max(0.0, score - best)


def write(triples: Sequence[tuple[str, str, str]]) -> str:
  """The response with these triples."""
  return f"{' ; '.join(map(' '.join, triples))} END"


def read(words: Sequence[str]) -> list[tuple[str, str, str]] | None:
  """The triples of a response that reads `A B C ; D E F END`; None for another."""
  if len(words) % 4 or not 0 < len(words) <= 4 * MOST_TRIPLES:
    return None
  triples = [tuple(words[place:place + 3]) for place in range(0, len(words), 4)]
  marks = words[3::4]
  if marks[-1] != "END" or any(mark != ";" for mark in marks[:-1]):
    return None
  known = frozenset(texts.WORDS) - {";", "END", ""}
  return triples if all(word in known for triple in triples for word in triple) else None
