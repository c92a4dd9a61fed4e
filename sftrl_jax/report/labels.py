"""Text of a report: an environment's words for variants and verdicts, numbers with units, and safe text.

An environment's words come from the run's labels.json. Colours belong to the report.
"""

import dataclasses
import math
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

MAX_LABELS = 200  # read from one labels.json
LABEL_LENGTH = 40
EMA = "ema:"   # before the name of a variant on which the average of the parameters was evaluated
PROBE = "probe, "   # before the label of a probe

CORRECT = "correct"
CORRECT_COLOUR = "#3F8F63"
WRONG_COLOURS = ("#B5523B", "#E0B35A", "#6B7280", "#805AD5", "#2C7A7B", "#97266D", "#2B6CB0")
GENERAL_POINTS_COLOURS = {"correct": CORRECT_COLOUR, "value": "#E0B35A", "numbers": "#B5523B", "misread": "#B5523B",
                          "illegal": "#6B7280"}
LIGHT_COLOURS = ("#E0B35A", "#C9CDD3")  # text on these is dark


class VerdictGroup(NamedTuple):
  """One segment of a bar of verdicts: its label, its colour and the verdict codes that it counts."""

  label: str
  colour: str
  codes: tuple[str, ...]


REMAINDER = VerdictGroup("other", "#C9CDD3", ())


@dataclasses.dataclass(frozen=True)
class EnvLabels:
  """An environment's labels by variant, by verdict code, and by those parts of verdicts that are measures, in the
  environment's order."""

  variants: Mapping[str, str] = dataclasses.field(default_factory=dict)
  codes: Mapping[str, str] = dataclasses.field(default_factory=dict)
  parts: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def variant(self, name: str) -> str:
    """The label of a variant; a name without a label stands for itself."""
    if name.startswith(EMA):
      return f"{self.variant(name.removeprefix(EMA))}, EMA"
    return self.variants.get(name) or _label(name)

  def verdict_groups(self, codes: Iterable[str]) -> tuple[VerdictGroup, ...]:
    """The segments of a bar for the verdict codes that runs counted: `correct` first, any uncoloured code last.

    Codes with the same label share a segment. Labelled codes keep the environment's order.
    """
    seen, table = dict.fromkeys(codes), self.codes
    if self is GENERAL_POINTS and not seen.keys() <= table.keys():
      table = {}  # an old workdir of another task
    fixed = GENERAL_POINTS_COLOURS.keys() >= {*seen, *table}
    groups: dict[str, list[str]] = {}
    for code in dict.fromkeys((CORRECT, *table, *seen)):
      if fixed or code in seen:
        groups.setdefault(table.get(code) or _label(code), []).append(code)
    groups.pop(REMAINDER.label, None)  # its codes are counted in the remainder
    colours = iter(WRONG_COLOURS)
    segments = []
    for label, members in groups.items():
      if fixed:
        colour = GENERAL_POINTS_COLOURS[members[0]]
      else:
        colour = CORRECT_COLOUR if CORRECT in members else next(colours, None)
      if colour:
        segments.append(VerdictGroup(label, colour, tuple(members)))
    return (*segments, REMAINDER)


# The labels of workdirs without a labels.json: those from before that file, which are of GeneralPoints.
GENERAL_POINTS = EnvLabels(
    variants={"id_seen": "ID, seen pairs", "id_unseen": "ID, held-out pairs", "rule_ood": "OOD, new rule",
              "visual_ood": "OOD, new pictures"},
    codes={"correct": "correct", "value": "wrong value", "numbers": "wrong numbers", "misread": "wrong numbers",
           "illegal": "illegal format"},
    parts={"cards": "hands read"})


def parse_labels(content: Mapping[str, Any]) -> EnvLabels:
  """EnvLabels from the content of a labels.json; GENERAL_POINTS if one of its tables is damaged.

  At most MAX_LABELS of a table are read, and made safe to print; a label that is no text is left out. A file of an
  older version has no parts: then they are those of GENERAL_POINTS.
  """
  tables = [content.get("variants"), content.get("codes"), content.get("parts", GENERAL_POINTS.parts)]
  if not all(isinstance(table, dict) for table in tables):
    return GENERAL_POINTS
  return EnvLabels(*({name: _label(label) for name, label in list(table.items())[:MAX_LABELS] if isinstance(label, str)}
                     for table in tables))


def merge_labels(tables: Iterable[EnvLabels]) -> EnvLabels:
  """The labels of several runs in one, of those that have a labels.json; where these disagree, the first one counts."""
  variants, codes, parts = {}, {}, {}
  recorded = [labels for labels in tables if labels is not GENERAL_POINTS]
  for labels in reversed(recorded):
    variants, codes = {**variants, **labels.variants}, {**codes, **labels.codes}
    parts = {**parts, **labels.parts}
  return EnvLabels(variants, codes, parts) if recorded else GENERAL_POINTS


def _label(text: str) -> str:
  return " ".join(plain(text, LABEL_LENGTH).split())


def temperature_label(temperature: float) -> str:
  return "greedy" if temperature == 0 else f"T={temperature:g}"


def plain(text: object, limit: int = 4000) -> str:
  """Text of a run made safe to print anywhere: no control, bidi or surrogate characters, at most `limit` characters."""
  kept = []
  for character in str(text)[:limit]:
    unsafe = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") and character not in "\n\t"
    kept.append("\ufffd" if unsafe else character)
  return "".join(kept) + (" …" if len(str(text)) > limit else "")


def plot_text(text: object, limit: int = 40) -> str:
  """The same for matplotlib, which would read `$` as the start of a formula."""
  return plain(text, limit).replace("\n", " ").replace("$", r"\$")


def percent(rate: float) -> str:
  """A rate in [0, 1] as a percentage; a dash if there is none."""
  return "–" if not math.isfinite(rate) else f"{100 * rate:.1f}%"


def points(difference: float) -> str:
  """A difference of rates in signed percentage points."""
  return "–" if not math.isfinite(difference) else f"{100 * difference:+.1f}".replace("-", "−")


def points_range(low: float, high: float) -> str:
  return "–" if not (math.isfinite(low) and math.isfinite(high)) else f"{points(low)} to {points(high)}"


def count(number: int, noun: str) -> str:
  """1 base, 2 bases."""
  return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def flops_text(flops: float) -> str:
  """FLOPs to three digits, e.g. 2.4e12."""
  return "–" if not math.isfinite(flops) else f"{flops:.3g}".replace("e+0", "e").replace("e+", "e")


def seconds_text(seconds: float) -> str:
  """A duration for people: 42 s, 3 min 20 s, 2 h 5 min."""
  if not math.isfinite(seconds):
    return "–"
  whole = round(seconds)
  if whole < 60:
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
  return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
