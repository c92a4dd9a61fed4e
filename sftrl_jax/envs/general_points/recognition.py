"""Judges responses about a picture: what was seen comes before what was made of it, and is reported apart."""

from __future__ import annotations

import random
from types import ModuleType

from sftrl_jax.envs import arithmetic
from sftrl_jax.envs.general_points import cards, verdicts

CODE_LABELS = {"correct": "correct", "value": "wrong value", "numbers": "wrong numbers", "rule": "wrong number line",
               "misread": "cards misread", "illegal": "illegal format"}
PART_LABELS = {"cards": "hands read", "rule": "number lines by the rule"}
MISREAD = 0.3   # of the reward of a correct response, taken away: -1.5 of 5 in the paper


def parts(style: ModuleType, ranks: tuple[str, ...], rule: cards.Rule, response: str) -> dict[str, bool]:
  """{"cards": the cards line is right, "rule": the number line is what the rule makes of the recited cards}.

  Both are looked for in any response, whatever else is wrong with it; a line that cannot be read is wrong. Order counts
  where the style says so.
  """
  shown, numbers = style.recited(response)
  known = shown is not None and set(shown) <= {*cards.RANKS, *cards.LARGE}
  return {"cards": known and _alike(style, shown, ranks),
          "rule": known and numbers is not None and _alike(style, numbers, cards.points(
              tuple(cards.Card(rank, "") for rank in shown), rule))}


def judge(style: ModuleType, ranks: tuple[str, ...], values: tuple[int, ...], target: int, response: str
          ) -> tuple[str, str]:
  """The code of a response and, for a wrong one, the clause that completes 'you failed because'.

  The order: form, cards, number line (where the style scores it), numbers of the formula, value.
  """
  shown, _ = style.recited(response)
  code, reason = verdicts.judge(style, values, target, response)
  if code == "illegal":
    return code, reason
  if shown is None:
    return "illegal", "the answer has no list of cards"
  if not _alike(style, shown, ranks):
    return "misread", "the cards of the answer are not those of the picture"
  return ("rule", reason) if code == "misread" else (code, reason)


def judge_cards(style: ModuleType, ranks: tuple[str, ...], response: str) -> tuple[str, str]:
  """As `judge`, of a response that is a cards line alone."""
  try:
    shown = style.read_cards(response)
  except arithmetic.FormulaError as error:
    return "illegal", str(error)
  return ("correct", "") if shown == ranks else ("misread", "the cards of the answer are not those of the picture")


def misread(source: random.Random, ranks: tuple[str, ...], rule: cards.Rule) -> tuple[tuple[str, ...], tuple[int, ...]]:
  """The ranks with one of them replaced by another, and their values."""
  place = int(source.random() * len(ranks))
  others = [rank for rank in cards.RANKS if rank != ranks[place]]
  shown = (*ranks[:place], others[int(source.random() * len(others))], *ranks[place + 1:])
  return shown, cards.points(tuple(cards.Card(rank, "") for rank in shown), rule)


def any_formula(source: random.Random, values: tuple[int, ...]) -> str:
  """A legal formula over any values: for a target from 1 to 30 where they reach one, else their sum."""
  return verdicts.any_formula(source, values, 0) if verdicts.reachable(tuple(sorted(values))) else "+".join(
      map(str, values))


def _alike(style: ModuleType, left: tuple, right: tuple) -> bool:
  return left == tuple(right) if style.ORDERED else sorted(left) == sorted(right)
