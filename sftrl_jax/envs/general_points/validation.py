"""The fields of GeneralPoints: names that they may have, and the error for a value that has no meaning."""

from __future__ import annotations

from typing import Any

from sftrl_jax.envs import fields
from sftrl_jax.envs.general_points import cards, compact, looks, paper, recite, short

STYLES = {"paper": paper, "short": short, "compact": compact, "recite": recite}
CLOSED = {"compact": compact.WORDS, "recite": recite.WORDS}   # the vocabularies of styles that have one
VARIANT_LABELS = {"id_seen": "ID, seen pairs", "id_unseen": "ID, held-out pairs", "rule_ood": "OOD, new rule"}
SHIFT_LABELS = {"all_5": "OOD, faces are 5", "all_7": "OOD, faces are 7", "all_12": "OOD, faces are 12",
                "large": "OOD, cards 14 to 19", "five": "OOD, one card more", "fake": "OOD, a rule that does not hold",
                "other_rules": "other rules"}


def checked(env: Any) -> dict:
  """The normalised fields; ValueError for the first that is wrong."""
  numeric = not isinstance(env.target, str)
  count = 5 if env.vision and isinstance(env.rewards, (list, tuple)) and len(env.rewards) == 5 else 4
  rewards = fields.items("rewards", env.rewards, count, "correct, wrong value, wrong numbers, illegal")
  seen = looks.checked(env)
  return {
      **seen,
      "target": fields.integer("target", env.target, 1, 10**9) if numeric else fields.choice(
          "target", env.target, ("any",)),
      "cards": fields.integer("cards", env.cards, 2, 5),
      "faces": _faces(env.faces),
      "deck": fields.choice("deck", env.deck, cards.DECKS),
      "attempts": fields.integer("attempts", env.attempts, 1, 1000),
      "style": fields.choice("style", env.style, tuple(STYLES)),
      "holdout": _holdout(env.holdout),
      "rewards": tuple(fields.real("rewards", reward, "use for example (5, -1, -2, -3)") for reward in rewards),
      "shifts": (shifts := _shifts(env)),
      "earlier": fields.integer("earlier", env.earlier, 0, 100),
      "hints": fields.choice("hints", env.hints, ("full", "paper", "none")),
      "reasoning": fields.flag("reasoning", env.reasoning),
      "careless_by": fields.choice("careless_by", env.careless_by, ("target", "slip")),
      "legacy": fields.flag("legacy", env.legacy),
      "variant": fields.choice("variant", env.variant, (
          "train", *VARIANT_LABELS, *(looks.shifts(env.look, env.suits) if env.vision else ()), *shifts))}


def _faces(faces):
  if isinstance(faces, str):
    name = fields.choice("faces", faces, (*cards.RULES, "diverse", "mixed"))
    return cards.RULES.get(name, name)
  if isinstance(faces, (list, tuple)):
    return tuple(fields.integer("faces", face, 1, compact.LARGEST) for face in fields.items(
        "faces", faces, 3, "what J, Q and K count as, for example (11, 12, 13)"))
  return fields.integer("faces", faces, 1, compact.LARGEST)


def _shifts(env: Any) -> tuple[str, ...]:
  if not isinstance(env.shifts, (list, tuple)):
    raise ValueError(f"shifts is {env.shifts!r}, but it must be a tuple of names, for example ('all_5', 'fake').")
  shifts = tuple(fields.choice("shifts", name, tuple(SHIFT_LABELS)) for name in env.shifts)
  if "large" in shifts and env.style in CLOSED:
    raise ValueError(f"shifts has 'large', but the {env.style} style has no words for cards above 10: use "
                     "style='short'.")
  if "five" in shifts and env.cards > 4:
    raise ValueError(f"shifts has 'five', one card more than cards={env.cards}, but hands have at most 5: use cards=4.")
  return shifts


def _holdout(holdout) -> float:
  share = fields.real("holdout", holdout, "use a share such as 0.25")
  if not 0 <= share < 1:
    raise ValueError(f"holdout is {holdout!r}, but it must be at least 0 and below 1: use a share such as 0.25.")
  return share


def as_rule(faces: int | cards.Rule) -> cards.Rule:
  """One value for all faces, or one for each, as the rule (J, Q, K)."""
  return faces if isinstance(faces, tuple) else (faces, faces, faces)
