"""How the study looks: colours, words for variants, numbers with units, axes.

Colour = method, line = distribution (solid in, dashed shifted); the same in every figure. matplotlib is imported inside
the functions that draw, so that reading a study costs nothing more than numpy.
"""

import math
import unicodedata

# GeneralPoints' verdicts as they are stacked, from right to wrong: label, colour, the codes it holds.
CODES = (
  ("correct", "#3F8F63", ("correct",)),
  ("wrong value", "#E0B35A", ("value",)),
  ("wrong numbers", "#B5523B", ("numbers", "misread")),
  ("illegal format", "#6B7280", ("illegal",)),
)
OTHER_CODES = ("other", "#C9CDD3", ())
LIGHT = ("#E0B35A", "#C9CDD3")  # on which words are dark
RIGHT, WRONG = "#3F8F63", ("#B5523B", "#E0B35A", "#6B7280", "#805AD5", "#2C7A7B", "#97266D", "#2B6CB0")

VARIANTS = {
  "id_seen": "ID, seen pairs",
  "id_unseen": "ID, held-out pairs",
  "rule_ood": "OOD, new rule",
  "visual_ood": "OOD, new pictures",
}


def variant_label(variant):
  """What a reader calls a variant; unknown names stay as they are."""
  return VARIANTS.get(variant) or plain(variant, 40)


def verdicts(seen):
  """The stack for the codes that runs counted: CODES where it holds them all, else a colour a code, `correct` first."""
  seen = dict.fromkeys(seen)
  if {code for _, _, codes in CODES for code in codes}.issuperset(seen):
    return (*CODES, OTHER_CODES)
  right = [("correct", RIGHT, ("correct",))] if "correct" in seen else []
  wrong = zip((code for code in seen if code != "correct"), WRONG)  # noqa: B905 (codes without a colour are "other")
  return (*right, *((plain(code, 40), colour, (code,)) for code, colour in wrong), OTHER_CODES)


def temperature_label(temperature):
  return "greedy" if temperature == 0 else f"T={temperature:g}"


def plain(text, limit=4000):
  """Text of a run made safe to print anywhere: no control, bidi or surrogate characters, at most `limit` characters."""
  kept = []
  for character in str(text)[:limit]:
    odd = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") and character not in "\n\t"
    kept.append("\ufffd" if odd else character)
  return "".join(kept) + (" …" if len(str(text)) > limit else "")


def drawn(text, limit=40):
  """The same for matplotlib, which would read `$` as the start of a formula."""
  return plain(text, limit).replace("\n", " ").replace("$", r"\$")


def percent(rate):
  """A rate in [0, 1] as a percentage; a dash if there is none."""
  return "–" if not math.isfinite(rate) else f"{100 * rate:.1f}%"


def points(difference):
  """A difference of rates in signed percentage points."""
  return "–" if not math.isfinite(difference) else f"{100 * difference:+.1f}".replace("-", "−")


def points_range(low, high):
  return "–" if not (math.isfinite(low) and math.isfinite(high)) else f"{points(low)} to {points(high)}"


def count(number, word):
  """1 base, 2 bases."""
  return f"{number} {word}" if number == 1 else f"{number} {word}s"


def flops_text(flops):
  """FLOPs to three digits, e.g. 2.4e12."""
  return "–" if not math.isfinite(flops) else f"{flops:.3g}".replace("e+", "e")


def seconds_text(seconds):
  """Seconds for people: 42 s, 3 min 20 s, 2 h 5 min."""
  if not math.isfinite(seconds):
    return "–"
  whole = round(seconds)
  if whole < 60:
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
  return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


