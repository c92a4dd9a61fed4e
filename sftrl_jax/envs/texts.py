"""What the tasks on generated texts share: words, random streams, and episodes of several tries.

A text is drawn from a seed by a small grammar over WORDS, the closed vocabulary of all three tasks, so that a single
base model can know them all. What a text says depends on the seed and its length alone: `id`, `wording_ood` and
`label_ood` show the same texts, and differ in how they are written.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import random
from collections.abc import Sequence
from typing import Any, ClassVar

from sftrl_jax.chat import Chat, Message
from sftrl_jax.envs import fields
from sftrl_jax.envs.env import Verdict

LONGEST = 400   # characters of the longest response that is read
DRAWS = 10_000  # texts drawn for a reset before the conditions count as impossible
GOLDEN = 0.6180339887498949  # its multiples, modulo 1, are spread evenly
WORDINGS = ("plain", "other")

# {topic: words}: the first five in the plain wording, the others in the other one.
TOPICS = {
    "sport": "goal match coach race team pitch medal rower sprint league".split(),
    "music": "song drum choir piano band flute opera tune violin chorus".split(),
    "food": "bread soup apple cheese cook onion stew pear butter baker".split(),
    "travel": "train hotel map coast guide ferry inn road island pilot".split(),
    "money": "bank coin price loan trade fund tax wage credit broker".split(),
    "nature": "tree river bird rain fox moss lake owl storm deer".split()}
FILLERS = "the was near with old new".split()
PEOPLE = "ann bob cara dan eve finn gus hana ivo jill".split()
THINGS = "key ring book lamp rope cup hat box pen watch".split()
PLACES = "barn park shop hall attic cellar garden tower porch mill".split()
FIRMS = "acme bolt cedar delphi ember forge grove helix iris jade".split()
NAMES = "red blue green white black brown grey pink gold teal".split()   # labels that training never has
LABELS = "alpha beta gamma delta epsilon zeta".split()   # of the topics, in training
RELATIONS = "leader holder member".split()   # of the verbs, in training
VERBS = {"plain": "runs owns joins".split(), "other": "run_by owned_by joined_by".split()}
DEEDS = {"plain": "hid left put".split(), "other": "keeps stores holds".split()}
ASKED = {"plain": {"place": "WHERE", "person": "WHO"}, "other": {"place": "PLACE_OF", "person": "OWNER_OF"}}
NUMBERS = tuple(map(str, range(1, 10)))   # no task has them now; without them, ids of the other tasks' runs change
SAW = "saw"   # the verb of a sentence that states no relation
FEEDBACK = {"correct": "OK", "illegal": "ILLEGAL"}   # on all other codes: WRONG

WORDS = (
    *"LABELS SCHEMA TEXT ASK END TOPIC LABEL LINE ANSWER ; OK WRONG ILLEGAL".split(), SAW, *NUMBERS, *TOPICS,
    *(word for words in TOPICS.values() for word in words), *FILLERS, *PEOPLE, *THINGS, *PLACES, *FIRMS, *NAMES,
    *LABELS, *RELATIONS, *VERBS["plain"], *VERBS["other"], *DEEDS["plain"], *DEEDS["other"],
    *ASKED["plain"].values(), *ASKED["other"].values())


@dataclasses.dataclass(frozen=True, slots=True)
class State:
  """The state of an episode.

  text: what was drawn; each task has its own class, with `prompt`, `expert`, `careless` (responses), `keys` (the
    combinations that may be held out) and `habit` (a number by which responses are careless more or less often)
  best: the highest score of the responses so far, in [0, 1]
  """

  text: Any
  chat: Chat
  attempt: int = 0
  best: float = 0.0
  ended: bool = False
  success: bool = False


@dataclasses.dataclass(frozen=True)
class TextTask(abc.ABC):
  """The part of a task that does not depend on what is asked; not an environment by itself.

  attempts: responses of an episode at most; each has a verdict
  wording: of the text and the question: "plain", "other" (the shift), or "mixed" (drawn a text, for a base model)
  holdout: share of the combinations that training never sees, chosen by a hash
  variant: "train" and "id" (no held-out combination), "heldout" (at least one), "wording_ood" (the other wording),
    "length_ood" (a longer text); tasks with labels add "label_ood" (other names for them, given in the prompt)
  """

  attempts: int = 3
  wording: str = "plain"
  holdout: float = 0.25
  variant: str = "train"

  variant_labels: ClassVar[dict[str, str]] = {
      "id": "ID", "heldout": "ID, held-out combinations", "wording_ood": "OOD, other wording",
      "length_ood": "OOD, longer texts"}
  code_labels: ClassVar[dict[str, str]] = {}
  words: ClassVar[tuple[str, ...]] = WORDS
  thread_safe: ClassVar[bool] = True
  most: ClassVar[tuple[int, int]] = (1, 1)   # the shortest and the longest text of a task

  def __post_init__(self):
    for name, value in self._checked().items():
      object.__setattr__(self, name, value)

  @property
  def variants(self) -> tuple[str, ...]:
    return tuple(self.variant_labels)

  @property
  def codes(self) -> tuple[str, ...]:
    return tuple(self.code_labels)

  def reset(self, seed: int | str) -> tuple[State, Chat]:
    """A text and its prompt, the same for the same seed; ValueError when no text meets the conditions."""
    if not isinstance(seed, (int, str)):
      raise TypeError(f"seed is a {type(seed).__name__}, but it must be an int or a str.")
    source, style = random.Random(f"text {seed}"), random.Random(f"style {seed}")
    wording = ("other" if self.variant == "wording_ood" else
               pick(style, WORDINGS) if self.wording == "mixed" else self.wording)
    for _ in range(DRAWS):
      text = self._draw(source, self._length(source), wording, style)
      heldout = any(share(key) < self.holdout for key in text.keys)
      if heldout == (self.variant == "heldout"):
        chat = (Message("user", text.prompt()),)
        return State(text, chat), chat
    raise ValueError(f"no text met holdout={self.holdout}, variant={self.variant!r} in {DRAWS} draws: use a holdout "
                     "nearer to 0.25.")

  def step(self, state: State, response: str) -> tuple[State, Verdict]:
    """Judges a response; ValueError when the episode of `state` has ended."""
    if state.ended:
      raise ValueError("this episode has ended: call reset(seed) for a new one, or step an earlier state.")
    if not isinstance(response, str):
      raise TypeError(f"response is a {type(response).__name__}, but it must be a str.")
    words = response.split(" ") if len(response) <= LONGEST else []
    code, score, parts = self._judge(state.text, words)
    reward = self._reward(code, score, state.best)
    attempt, correct = state.attempt + 1, code == "correct"
    truncated = not correct and attempt >= self.attempts
    ended, feedback = correct or truncated, FEEDBACK.get(code, "WRONG")
    chat = (*state.chat, Message("assistant", response), Message("user", feedback))
    verdict = Verdict(reward, correct, truncated, correct, correct, feedback, None if ended else chat, code, parts)
    return State(state.text, chat, attempt, max(state.best, score), ended, correct), verdict

  def expert(self, state: State, choice: int = 0) -> str:
    """The correct response; there is one, whatever the choice."""
    del choice
    return state.text.expert()

  def careless(self, state: State, seed: int | str) -> str:
    """A well-formed response by a habit that does not depend on wording, labels or seed; always wrong."""
    del seed
    return state.text.careless()

  def misread(self, state: State, seed: int | str) -> str:
    """A well-formed response about something else in the text, drawn by the seed; always wrong."""
    return state.text.misread(random.Random(f"misread {seed}"))

  def careless_bias(self, state: State) -> float:
    """From -1 to 1, by what is asked about: the same in every wording and under all labels."""
    return 2 * (GOLDEN * (state.text.habit + 1) % 1) - 1

  @abc.abstractmethod
  def _draw(self, source: random.Random, length: int, wording: str, style: random.Random) -> Any:
    """A text. source: of what it says. style: of how its labels are named"""

  @abc.abstractmethod
  def _judge(self, text: Any, words: Sequence[str]) -> tuple[str, float, dict[str, bool]]:
    """(code, score in [0, 1], parts) of a response."""

  @abc.abstractmethod
  def _reward(self, code: str, score: float, best: float) -> float:
    """The reward of a response. best: the highest score of the episode's earlier responses"""

  def _length(self, source: random.Random) -> int:
    low, high = (self.longer, self.longer) if self.variant == "length_ood" else self.length
    return low + int(source.random() * (high - low + 1))

  def _checked(self) -> dict:
    low, high = self.most
    length = tuple(fields.integer("length", value, low, high) for value in fields.items(
        "length", self.length, 2, f"the shortest and the longest text, for example {type(self).length}"))
    if length[0] > length[1]:
      raise ValueError(f"length is {length}, but the shortest text comes first: use {length[::-1]}.")
    return dict(
        attempts=fields.integer("attempts", self.attempts, 1, 1000),
        wording=fields.choice("wording", self.wording, (*WORDINGS, "mixed")),
        holdout=self._holdout(), length=length, longer=fields.integer("longer", self.longer, low, high),
        variant=fields.choice("variant", self.variant, ("train", *self.variants)),
        rewards=tuple(fields.real("rewards", value, f"use for example {type(self).rewards}") for value in fields.items(
            "rewards", self.rewards, len(type(self).rewards), f"for example {type(self).rewards}")))

  def _holdout(self) -> float:
    holdout = fields.real("holdout", self.holdout, "use a share from 0 to 0.5")
    if not 0 <= holdout <= 0.5:
      raise ValueError(f"holdout is {self.holdout!r}, but it must be a share from 0 to 0.5: use 0.25.")
    if self.variant == "heldout" and not holdout:
      raise ValueError("variant is 'heldout', but holdout is 0, so nothing is held out: use holdout=0.25.")
    return holdout


def pick(source: random.Random, options: Sequence) -> Any:
  """One of the options; the same in every version of Python, because it uses random() alone."""
  return options[int(source.random() * len(options))]


def picks(source: random.Random, options: Sequence, count: int) -> list:
  """`count` different ones of the options, in random order."""
  left = list(options)
  return [left.pop(int(source.random() * len(left))) for _ in range(count)]


def names(style: random.Random, labels: str, usual: Sequence[str]) -> tuple[str, ...]:
  """The names of a prompt's labels, as many as there are usual ones.

  labels: "usual", "other" (of NAMES, in random order) or "mixed" (of both lists, in random order; a
    quarter of the time the usual ones)
  """
  if labels == "usual" or (labels == "mixed" and style.random() < 0.25):
    return tuple(usual)
  return tuple(picks(style, NAMES if labels == "other" else (*usual, *NAMES), len(usual)))


def share(key: tuple[str, ...]) -> float:
  """A number in [0, 1) that depends on the combination alone, on every machine; below `holdout`, it is held out."""
  return int.from_bytes(hashlib.sha256(" ".join(key).encode()).digest()[:6], "big") / 2**48
