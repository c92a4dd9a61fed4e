"""GeneralPoints: make a target from a hand of cards, each used once; the value of the face cards is the rule.

The tasks in and out of distribution are one class with another `variant`, so SFT, RL and evaluation share every line.
Where the paper's released verifier differs from its text or is wrong, this one follows the text: values are exact,
spaces are legal, each failure costs one reward, and the last attempt is scored like the others.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import random
import re
from typing import ClassVar

from sftrl_jax.chat import Chat, Message
from sftrl_jax.envs import arithmetic
from sftrl_jax.envs.env import Verdict
from sftrl_jax.envs.general_points import cards, compact, legacy, looks, recite, recognition, verdicts
from sftrl_jax.envs.general_points.validation import CLOSED, SHIFT_LABELS, STYLES, VARIANT_LABELS, as_rule, checked

CODE_LABELS = {"correct": "correct", "value": "wrong value", "numbers": "wrong numbers", "misread": "wrong numbers",
               "illegal": "illegal format"}
DRAWS = 20_000  # hands drawn for one reset before the conditions count as impossible

# The index into `rewards` of each verdict.
_REWARD = {"correct": 0, "value": 1, "numbers": 2, "misread": 2, "rule": 2, "illegal": 3}
_RESET, _CARELESS, _MISREAD, _PICTURE = 0, 1, 2, 3  # purposes of the random streams


@dataclasses.dataclass(frozen=True, slots=True)
class Hand:
  """The state of an episode. `values` are those of the cards under `rule`, in order; `attempt` counts the responses."""

  cards: tuple[cards.Card, ...]
  rule: cards.Rule
  values: tuple[int, ...]
  target: int
  chat: Chat
  attempt: int = 0
  ended: bool = False
  success: bool = False

  @property
  def ranks(self) -> tuple[str, ...]:
    return tuple([card[0] for card in self.cards])


@dataclasses.dataclass(frozen=True)
class GeneralPoints:
  """The task of making `target` from `cards` cards.

  target: an integer, or "any": uniform over the integers 1 to 30 that the hand can reach.
  cards: 2 to 5 cards in a hand.
  faces: what J, Q, K count as: one integer, three, a name of cards.RULES, "diverse" (one of cards.DIVERSE, drawn per
    hand), or "mixed" (drawn per hand: half the time each from 10 to 13, else each from 1 to 13).
  deck: "uniform" deals with replacement (the released code), "52" without (the paper's text).
  attempts: responses of an episode at most, each with a score; but under `legacy` the last has none, so that the
    released code has attempts=6.
  style: "paper" (English and JSON), "short" (a line and JSON), "compact" (59 words) or, with vision, "recite" (60).
  holdout: share of the (sorted values, target) pairs that training never sees, chosen by a hash of the pair.
  rewards: of a correct response, a wrong value, wrong or misread numbers, an illegal formula; with vision a fifth, of
    misread cards, is minus 3/10 of the first if left out.
  variant: "train" (all but held-out pairs), "id_seen" (the same), "id_unseen" (held-out pairs only), or "rule_ood" (the
    faces count as 11, 12, 13; where they already do, as 10). The last three have a face card in every hand, so
    that they differ in the rule alone. Hands without a solution are never dealt.
  shifts: names of SHIFT_LABELS that are variants too: a hand with a face under another rule ("all_5" and its like),
    with a card from 14 to 19 ("large"), of one card more ("five"), or under a prompt that states the rule of `rule_ood`
    while the verifier keeps the training rule ("fake": who reads the prompt fails, who has memorised succeeds), or of
    a rule drawn as for "mixed", under which no face of the hand counts as in training ("other_rules").
  earlier: careless responses, with the feedback on each, that the first prompt holds: the task of another try. The
    policy still has `attempts` of its own.
  hints: what the feedback on a wrong answer says: "full" (why it is wrong, without the solver), "paper" (also which
    beginning of the formula is that of a solution) or "none".
  reasoning: the expert writes the steps of its formula before the formula.
  careless_by: what is wrong with a careless response: its "target" (a formula for another one), or a "slip" (a formula
    of the expert with its first operator turned into the opposite; under `reasoning`, after the steps of that).
  legacy: the verifier of the paper's released code, with its defects, for the paper's style.
  vision: the hand is shown as a picture, the prompt does not name it, and the answer says which cards were seen. The
    other look of `red`, `deck1` and `night` are variants then, with the hands of `id_seen`.
  pixels: of a side of the table; in style "recite", of a card's cell. 0 for 1200, as in the paper, or 32.
  look: the deck of training: "plain", "deck1", "night", or "any" (drawn per hand).
  suits: "black" (as in the paper), "red" or "any" (drawn per card).
  noise: standard deviation of noise on the picture, whose values lie in -1..1.
  contrast: of the picture; below 1 leaves room for noise, see pictures/noise.py.
  jitter: cards are moved, each by up to a sixteenth of its cell.
  answer: "formula", or "cards": in style "recite" the cards line is the whole answer, and nothing else is judged.
  """

  target: int | str = 24
  cards: int = 4
  faces: int | tuple[int, int, int] | str = 10
  deck: str = "uniform"
  attempts: int = 5
  style: str = "paper"
  holdout: float = 0.25
  rewards: tuple[float, ...] = (5.0, -1.0, -2.0, -3.0)
  variant: str = "train"
  shifts: tuple[str, ...] = ()
  earlier: int = 0
  hints: str = "full"
  reasoning: bool = False
  careless_by: str = "target"
  legacy: bool = False
  vision: bool = False
  pixels: int = 0
  look: str = "plain"
  suits: str = "black"
  noise: float = 0.0
  contrast: float = 1.0
  jitter: bool = False
  answer: str = "formula"

  thread_safe: ClassVar[bool] = True

  def __post_init__(self):
    for name, value in checked(self).items():
      object.__setattr__(self, name, value)
    top = max(10, *self._rules()[0], *self._rules()[1])
    # No formula over n numbers of at most m, m >= 2, exceeds m^n.
    if self.target != "any" and self.target > top**self.cards:
      raise ValueError(f"target is {self.target}, but {self.cards} cards of at most {top} reach no more than "
                       f"{top**self.cards}: use a smaller target or more cards.")
    if self.style in CLOSED and self.target != "any" and self.target > compact.LARGEST:
      raise ValueError(f"target is {self.target}, but the {self.style} style has words for numbers up to "
                       f"{compact.LARGEST}: use a target from 1 to {compact.LARGEST}, or style='paper'.")
    for name, usual in (("legacy", False), ("hints", "full")):
      if getattr(self, name) != usual and self.style != "paper":
        raise ValueError(f"{name} is {getattr(self, name)!r}, but style is {self.style!r}: it is for style='paper'.")
    if self.variant == "id_unseen" and not self.holdout:
      raise ValueError("variant is 'id_unseen', but holdout is 0, so no hand is held out: use holdout=0.25.")

  @property
  def variants(self) -> tuple[str, ...]:
    return tuple(self.variant_labels)

  @property
  def variant_labels(self) -> dict[str, str]:
    visual = looks.shifts(self.look, self.suits) if self.vision else ()
    return VARIANT_LABELS | {name: looks.LABELS[name] for name in visual} | {
        name: SHIFT_LABELS[name] for name in self.shifts}

  @property
  def codes(self) -> tuple[str, ...]:
    return tuple(self.code_labels)

  @property
  def code_labels(self) -> dict[str, str]:
    return recognition.CODE_LABELS if self.vision else CODE_LABELS

  @property
  def part_labels(self) -> dict[str, str]:
    return recognition.PART_LABELS if self.vision else {}

  @property
  def words(self) -> tuple[str, ...]:
    """The vocabulary of a style with a closed one; () in the others."""
    return CLOSED.get(self.style, ()) + compact.STEP_WORDS * (self.style == "compact" and self.reasoning)

  def reset(self, seed: int | str) -> tuple[Hand, Chat]:
    """A hand and its prompt, the same for the same seed; ValueError when no hand meets the conditions."""
    source = cards.stream(seed, _RESET)
    for _ in range(DRAWS):
      rule = self._rule(source)
      dealt = cards.deal(source, self.cards + (self.variant == "five"), self.deck, large=self.variant == "large")
      if self.variant != "train" and not (cards.any_large if self.variant == "large" else cards.any_face)(dealt):
        continue
      values = cards.points(dealt, rule)
      if self.variant == "other_rules" and cards.shares_face_value(dealt, rule, self._rules()[0]):
        continue
      target = self._target(source, tuple(sorted(values)))
      if target:
        shown = self._rules()[1] if self.variant == "fake" else rule
        dealt, chat = self._opening(seed, dealt, shown, target)
        hand = self._failed(seed, Hand(dealt, rule, values, target, chat))
        return hand, hand.chat
    raise ValueError(f"no hand of {self.cards} cards met target={self.target!r}, faces={self.faces!r}, "
                     f"holdout={self.holdout}, variant={self.variant!r} in {DRAWS} draws: use another target, more "
                     "cards, or a holdout nearer to 0.25.")

  def _failed(self, seed: int | str, hand: Hand) -> Hand:
    """The hand after `earlier` wrong responses, which do not count as attempts."""
    for number in range(self.earlier):
      name = f"{seed} earlier {number}"
      after, verdict = self.step(hand, self.careless(hand, name))
      if verdict.correct:   # a careless formula is right by chance
        after, _ = self.step(hand, self.misread(hand, name))
      hand = dataclasses.replace(after, attempt=0, ended=False)
    return hand

  def _opening(self, seed: int | str, dealt: tuple[cards.Card, ...], rule: cards.Rule, target: int
               ) -> tuple[tuple[cards.Card, ...], Chat]:
    """The cards as they are shown, and the prompt."""
    style, ranks = STYLES[self.style], [card[0] for card in dealt]
    if not self.vision:
      return dealt, (Message("user", style.prompt(ranks, rule, target)),)
    look = looks.look_of(self)
    dealt = look.recoloured(dealt)
    picture = look.picture(dealt, cards.stream(seed, _PICTURE))
    return dealt, (Message("user", style.prompt(ranks, rule, target, vision=True), picture),)

  def step(self, state: Hand, response: str) -> tuple[Hand, Verdict]:
    """Judges a response; ValueError when the episode of `state` has ended."""
    if state.ended:
      raise ValueError("this episode has ended: call reset(seed) for a new one, or step an earlier state.")
    if not isinstance(response, str):
      raise TypeError(f"response is a {type(response).__name__}, but it must be a str.")
    style = STYLES[self.style]
    attempt, parts = state.attempt + 1, None
    if self.legacy:
      ranks = state.ranks if self.vision else ()
      code, reward, reason = legacy.judge(state.values, state.target, response, attempt < self.attempts, ranks)
      parts = recognition.parts(style, ranks, state.rule, response) if self.vision else None
    elif self.vision:
      code, reason, parts = self._judge_seen(state, response)
      reward = self._seen_reward(code)
    else:
      code, reason = verdicts.judge(style, state.values, state.target, response)
      reward = self.rewards[_REWARD[code]]
    correct = code == "correct"
    truncated = not correct and attempt >= self.attempts
    ended = correct or truncated
    if self.hints == "paper" and code == "value":
      reason = verdicts.with_hint(style, state.values, state.target, response, reason)
    feedback = style.feedback(code, reason if self.hints != "none" else "", state.target)
    chat = (*state.chat, Message("assistant", response), Message("user", feedback))
    verdict = Verdict(reward, correct, truncated, correct, correct, feedback, None if ended else chat, code, parts)
    return Hand(state.cards, state.rule, state.values, state.target, chat, attempt, ended, correct), verdict

  def expert(self, state: Hand, choice: int = 0) -> str:
    """A correct response: the `choice`-th of the at most 4 formulas of the hand, modulo their number."""
    formulas = verdicts.formulas_of(tuple(sorted(state.values)), state.target)
    formula = formulas[choice % len(formulas)]
    return self._answer(state, formula, arithmetic.steps(formula) if self.reasoning else ())

  def _answer(self, state: Hand, formula: str, steps: tuple[str, ...] = ()) -> str:
    """The response with the right cards and numbers and this formula."""
    if self.answer == "cards":
      return recite.write_cards(state.ranks)
    if self.legacy and self.vision:
      return legacy.write(state.ranks, state.values, formula, state.target)
    return STYLES[self.style].write(state.ranks, state.values, formula, state.target, steps)

  def _judge_seen(self, state: Hand, response: str) -> tuple[str, str, dict[str, bool]]:
    """(code, reason, parts) of a response about a picture."""
    style = STYLES[self.style]
    parts = recognition.parts(style, state.ranks, state.rule, response)
    if self.answer == "cards":
      return *recognition.judge_cards(style, state.ranks, response), {"cards": parts["cards"]}
    return *recognition.judge(style, state.ranks, state.values, state.target, response), parts

  def _seen_reward(self, code: str) -> float:
    if code == "misread":
      return self.rewards[4] if len(self.rewards) > 4 else -recognition.MISREAD * self.rewards[0]
    return self.rewards[_REWARD[code]]

  def action_start(self, response: str) -> int:
    """The index at which the scored part of a response starts, after what only leads to it; 0 where it has none."""
    return STYLES[self.style].action_start(response)

  def careless(self, state: Hand, seed: int | str) -> str:
    """The right numbers and a legal formula that is right by chance only; `careless_by` says how it is drawn."""
    source = cards.stream(seed, _CARELESS)
    if self.careless_by == "target":
      formula, steps = verdicts.any_formula(source, state.values, state.target), ()
    else:
      formula = verdicts.slip(source, state.values, state.target)
      steps = verdicts.steps_of(formula) if self.reasoning else ()
    return self._answer(state, formula, steps)

  def misread(self, state: Hand, seed: int | str) -> str:
    """As `careless`, with one recited number replaced by another from 1 to 13; always wrong. With vision it is one card
    that is taken for another, and the formula uses what it counts as."""
    source = cards.stream(seed, _MISREAD)
    if self.vision:
      ranks, values = recognition.misread(source, state.ranks, state.rule)
      seen = dataclasses.replace(state, cards=tuple(cards.Card(rank, "") for rank in ranks), values=values)
      return self._answer(seen, recognition.any_formula(source, values))
    formula = verdicts.any_formula(source, state.values, state.target)
    place = int(source.random() * len(state.values))
    right = state.values[place]
    # 1 to 13 without `right`, which may itself be above 13.
    wrong = 1 + int(source.random() * (12 if right <= 13 else 13))
    wrong += wrong >= right
    style = STYLES[self.style]
    if not style.RECITED:  # only the formula is scored, so the misread number must enter it
      formula = re.sub(rf"\b{right}\b", str(wrong), formula, count=1)
    numbers = (*state.values[:place], wrong, *state.values[place + 1:])
    return style.write(state.ranks, numbers, formula, state.target)

  def _rules(self) -> tuple[cards.Rule, cards.Rule]:
    """The rule of training and the shifted one; for mixed rules the largest of them."""
    rule = (13, 13, 13) if self.faces in ("mixed", "diverse") else as_rule(self.faces)
    return rule, cards.TENS if rule == cards.DISTINCT else cards.DISTINCT

  def _rule(self, source: random.Random) -> cards.Rule:
    if self.variant == "rule_ood":
      return self._rules()[1]
    if self.variant in cards.RULES:
      return cards.RULES[self.variant]
    if self.faces == "diverse":
      return cards.DIVERSE[int(source.random() * len(cards.DIVERSE))]
    if self.faces != "mixed" and self.variant != "other_rules":
      return as_rule(self.faces)
    low, count = (10, 4) if source.random() < 0.5 else (1, 13)
    return tuple([low + int(source.random() * count) for _ in range(3)])

  def _target(self, source: random.Random, values: tuple[int, ...]) -> int:
    """The target for a hand with these sorted values; 0 when the hand must be dealt again."""
    target = self.target
    if target == "any":
      targets = verdicts.reachable(values)
      if not targets:
        return 0
      target = targets[int(source.random() * len(targets))]
    inside = self.variant in ("train", "id_seen", "id_unseen", *looks.LABELS)
    if inside and (_share(values, target) < self.holdout) != (self.variant == "id_unseen"):
      return 0
    return target if self.target == "any" or verdicts.formulas_of(values, target) else 0


@functools.lru_cache(maxsize=1 << 16)
def _share(values: tuple[int, ...], target: int) -> float:
  """A number in [0, 1) that depends on the pair alone, on every machine; below `holdout`, it is held out."""
  digest = hashlib.sha256(f"{values} {target}".encode()).digest()
  return int.from_bytes(digest[:6], "big") / 2**48
