"""The report of a study, chapter by chapter, as blocks."""

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Sequence

from sftrl_jax.report.figures import study_figures
from sftrl_jax.report.figures.rows import attempt_rows, curve_rows, effect_rows, verdict_groups, verdict_rows
from sftrl_jax.report.labels import EMA, count, percent, points, points_range, temperature_label
from sftrl_jax.report.pages import alarms_box
from sftrl_jax.report.pages.blocks import Block, Heading, Notice, Picture, Table, Text
from sftrl_jax.report.records import MEASURE_LABELS, PER_STEP, Study
from sftrl_jax.report.stats.bootstrap import MIN_BASES, Estimate
from sftrl_jax.report.stats.claims import Claim
from sftrl_jax.report.stats.effects import Effects


@dataclasses.dataclass(frozen=True)
class Chapter:
  """What every chapter of a study's report needs: the numbers, {method: colour} and the folder of the report."""

  study: Study
  effects: Effects
  colours: dict[str, str]
  out: pathlib.Path

  def labelled(self, variants: Iterable[str]) -> dict[str, str]:
    """{variant: label}, as figures take it."""
    return {variant: self.study.labels.variant(variant) for variant in variants}


def opening(study: Study, effects: Effects, claims: Sequence[Claim]) -> list[Block]:
  """Claim, alarms, what is missing, and the verdicts."""
  blocks = [Text(study.claim)] if study.claim else []
  blocks += alarms_box.notices([(run.name, run) for run in (*study.starts.values(), *study.runs.values())])
  if effects.comparison.bases == 1:
    blocks.append(Notice("One base model", (
        "Only one base was post-trained by every comparison below. Intervals are over episodes only and say nothing "
        "about other bases; no claim about the methods can rest on them.",)))
  elif effects.comparison.bases < MIN_BASES and effects.rows:
    blocks.append(Notice(f"{count(effects.comparison.bases, 'base model')} only", (
        f"So few bases support no interval over bases: at least {MIN_BASES} are needed. The intervals below are over "
        "episodes of these bases alone, and the values of the single bases stand beside them.",)))
  items = [f"Not started: {', '.join(study.missing)}."] if study.missing else []
  for run in study.runs.values():
    if not run.finished:
      left_out = "; left out of the tables" if run.name in effects.comparison.left_out else ""
      items.append(f"{run.name} is not finished ({run.phase or 'no progress.json'}, {run.done:.0%} done){left_out}.")
  items += effects.notes
  if study.measure != study.named_measure and study.runs:
    items.append(f"The report is to be headed by {MEASURE_LABELS[study.named_measure]}, which no evaluation holds: "
                 "these lines are of an older version, so success heads it.")
  if items:
    blocks.append(Notice("Not everything is there, or not everything could be compared directly", tuple(items)))
  if claims:
    blocks += _claims_table(study, claims)
  elif not effects.rows:
    blocks.append(Text("No run has been evaluated after its start yet, so there is nothing to compare."))
  return blocks


def _claims_table(study: Study, claims: Sequence[Claim]) -> list[Block]:
  """Every claim with its estimate, both intervals and verdict."""
  rows = []
  for claim in claims:
    estimate, few = claim.estimate, claim.estimate.unit == "episodes" and claim.estimate.bases
    amount, interval = (percent, _percent_range) if claim.is_level else (points, points_range)
    rows.append((claim.text, *([claim.prediction] if study.claims else []), temperature_label(claim.temperature),
                 amount(estimate.value), interval(estimate.low, estimate.high) + (" †" if few else ""),
                 interval(estimate.t_low, estimate.t_high), str(estimate.bases), claim.verdict))
  header = ("claim", *(["predicted"] if study.claims else []), "decoding", "estimate", "95% bootstrap",
            "95% t over bases", "bases", "verdict")
  recorded = ("These claims were recorded in study.json before the first run started; a study with other claims needs "
              "another directory. " if study.claims else "")
  side = "on the predicted side" if study.claims else "on its side of zero"
  holds = "is held" if study.claims else "holds"
  against = " It is contrary if both lie on the other side." if study.claims else ""
  few = f" † over the episodes of fewer than {MIN_BASES} bases." if any(" †" in row[-4] for row in rows) else ""
  return [Heading("Claims"), Table(header, tuple(rows), (
      f"{recorded}Differences in percentage points. The bootstrap is over bases, seeds and episodes. A claim {holds} "
      f"if both intervals lie {side} and at least {MIN_BASES} bases stand behind it.{against}{few}"))]


def _percent_range(low: float, high: float) -> str:
  return f"{percent(low)} to {percent(high)}" if math.isfinite(low) and math.isfinite(high) else "–"


def start_rate(study: Study, effects: Effects, variant: str, temperature: float, measure: str = "") -> float:
  """The rate before any training, of the bases of the study: the mean over the methods that begin from them, or NaN."""
  methods = next(iter(study.start_groups.values()))
  estimates = [effects.find("start", method, variant, temperature, measure=measure) for method in methods]
  known = [estimate.value for estimate in estimates if estimate is not None]
  return sum(known) / len(known) if known else math.nan


def result_rows(study: Study, effects: Effects,
                measure: str = "") -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
  """(header, a row a variant and decoding): start, then end and change of every method, then the gaps."""
  header = ["variant", "decoding", "start"]
  for method in study.methods:
    header += [f"{study.methods[method]} end", f"{study.methods[method]} change"]
  compared = [method for method in study.compared_methods if study.share_bases(method, study.reference)]
  header += [f"{study.methods[method]} − {study.reference_label}" for method in compared]
  rows = []
  for variant in study.variants:
    for temperature in study.temperatures:
      start = start_rate(study, effects, variant, temperature, measure)
      row = [study.labels.variant(variant), temperature_label(temperature), percent(start)]
      for method in study.methods:
        end, change = (effects.find(quantity, method, variant, temperature, measure=measure)
                       for quantity in ("end", "change"))
        row += [percent(end.value) if end else "–", cell(change)]
      row += [cell(effects.find("gap", method, variant, temperature, measure=measure)) for method in compared]
      if not math.isnan(start):
        rows.append(tuple(row))
  return tuple(header), tuple(rows)


def cell(estimate: Estimate | None) -> str:
  """A change or gap with its interval.

  † marks one that is over the episodes of fewer than MIN_BASES bases; the values of these are in brackets.
  """
  if estimate is None or not estimate.bases:
    return "–"
  interval = f"({points_range(*estimate.wider)})"
  if estimate.unit == "bases":
    return f"{points(estimate.value)} {interval}"
  single = f" [{', '.join(map(points, estimate.per_base))}]" if estimate.bases > 1 else ""
  return f"{points(estimate.value)}{single} {interval} †"


def dagger(effects: Effects, rows: Iterable[Sequence[str]] | None = None) -> str:
  """The footnote of †, where some estimate has it, or some cell of a table's rows."""
  if rows is not None and not any("†" in text for row in rows for text in row):
    return ""
  few = {row.estimate.bases for row in effects.rows if row.estimate.unit == "episodes" and row.estimate.bases}
  if not few:
    return ""
  if few == {1}:
    return " † one base: the interval is over its episodes only."
  return (f" † fewer than {MIN_BASES} bases, which support no interval over bases: in brackets the single bases, in "
          "parentheses the 95% bootstrap interval over their episodes only.")


def interval_words(effects: Effects) -> str:
  """What the intervals of a table are, in words."""
  if effects.comparison.bases < MIN_BASES:
    return "a 95% bootstrap interval over episodes only"
  return "a 95% interval: the wider of the bootstrap over bases, seeds and episodes and the t interval over bases"


def measure_words(study: Study, effects: Effects, measure: str) -> str:
  """What a measure counts, as the beginning of a caption."""
  if measure == PER_STEP:
    return "Right responses of all responses, per step"
  if measure != "success":
    return f"{study.measure_label(measure)[:1].upper()}{study.measure_label(measure)[1:]}, of " + (
        "all responses at points that have one" if study.of_points else "first responses")
  within = "tries" if study.of_points and effects.attempts != 1 else "try" if study.of_points else ""
  return (f"Success (every point of an episode right) within {effects.attempts} {within} a point" if within else
          f"Success within {count(effects.attempts, 'attempt')}")


def sample_sizes(study: Study, effects: Effects, by_method: bool = True) -> str:
  """How many bases, runs (of each method, or all together) and episodes stand behind the table, in words."""
  keys = list(effects.comparison.at)
  runs = ", ".join(f"{sum(key[1] == m for key in keys)} {label}" for m, label in study.methods.items())
  episodes = " / ".join(map(str, sorted({row.estimate.episodes for row in effects.rows}))) or "no"
  bases = count(effects.comparison.bases, "base")
  return f"{bases}, runs: {runs if by_method else len(keys)}, {episodes} episodes a variant and decoding."


def results(chapter: Chapter) -> list[Block]:
  """The tables of ends and changes, the figure of effects and the curves."""
  study, effects, out = chapter.study, chapter.effects, chapter.out
  blocks: list[Block] = [Heading("Results at equal compute")]
  for measure in study.measures:
    header, rows = result_rows(study, effects, measure)
    if rows:
      blocks.append(Table(header, rows, (
          f"{measure_words(study, effects, measure)}; changes and gaps in percentage points with "
          f"{interval_words(effects)}. {sample_sizes(study, effects)} Every estimate, both intervals and the value of "
          f"each base: effects.csv.{dagger(effects, rows)}")))
      study_figures.write_csv(effect_rows(effects), out / "effects.csv")
  outer = [v for v in study.variants if v in (study.id, study.ood)] or list(study.variants)
  for along, name in (("flops", "curves"), ("updates", "curves_updates")):
    drawn = [row for row in curve_rows(study, x=along) if row["variant"] in outer]
    if drawn:
      figure = study_figures.curves(drawn, chapter.labelled(outer), study.methods, chapter.colours, (study.id,))
      unit = "post-training FLOPs" if along == "flops" else "updates, of which equal FLOPs buy unequal numbers"
      blocks.append(Picture(study_figures.save(figure, drawn, out / f"{name}.png"), (
          f"{measure_words(study, effects, study.measure)} against {unit}. Thin lines: bases (their seeds averaged); "
          "thick: mean over bases; grey: the start. Solid in distribution, dashed shifted.")))
  if effects.rows:
    blocks.append(_effects_picture(chapter))
  return blocks


def _effects_picture(chapter: Chapter) -> Picture:
  study, effects = chapter.study, chapter.effects
  lines = {}
  for method in (study.reference, *study.compared_methods):
    for variant in study.variants:
      lines["change", method, variant] = f"{study.methods[method]}: change on {study.labels.variant(variant)}"
  for method in study.compared_methods:
    gap = f"{study.methods[method]} − {study.reference_label} on {study.labels.variant(study.ood)}"
    lines["gap", method, study.ood] = f"{gap}, equal FLOPs"
    lines["matched", method, study.ood] = f"{gap}, matched ID"
  rows = [row for row in effect_rows(effects) if row["attempts"] == effects.attempts
          and row["measure"] == effects.measure and not row["comparison"]
          and (row["quantity"], row["method"], row["variant"]) in lines]
  figure = study_figures.effects(rows, chapter.colours, lines)
  decodings = ", ".join(f"{'open' if index else 'filled'} {temperature_label(temperature)}"
                        for index, temperature in enumerate(study.temperatures))
  return Picture(study_figures.save(figure, rows, chapter.out / "effects_drawn.png"), (
      f"Changes from the start and gaps between methods ({decodings}) in {MEASURE_LABELS[study.measure]}. Thick bars: "
      + ("95% bootstrap over episodes alone; small dots: the single bases." if effects.comparison.bases < MIN_BASES else
         "95% bootstrap; thin: 95% t interval over bases (cut at the edge if wider than the figure).")))


def inside(chapter: Chapter) -> list[Block]:
  """Attempts, verdicts, KL, seen against held-out."""
  study, effects, out = chapter.study, chapter.effects, chapter.out
  blocks: list[Block] = [Heading("What changed inside")]
  rows = attempt_rows(study, effects.comparison)
  if rows and effects.attempts > 1:
    unit = "tries at each point" if study.of_points else "attempts"
    figure = study_figures.attempts(rows, chapter.labelled(study.variants), study.methods, chapter.colours, (study.id,),
                                    unit)
    blocks.append(Picture(study_figures.save(figure, rows, out / "attempts.png"), (
        f"Success within so many {unit}, by the start and at the end of each method; mean over bases.")))
    blocks.append(_first_attempts(study, effects))
  blocks += verdicts(chapter, study.methods)
  rows = curve_rows(study, "kl")
  if rows:
    measured = chapter.labelled(v for v in study.variants if any(row["variant"] == v for row in rows))
    figure = study_figures.divergence(rows, measured, study.methods, chapter.colours, (study.id,))
    blocks.append(Picture(study_figures.save(figure, rows, out / "kl.png"), (
        "KL from the start on the model's own responses at T=1, by variant; thin lines are bases.")))
  rows = [row for row in curve_rows(study) if row["variant"] != study.ood]
  middle = [v for v in study.variants if v not in (study.id, study.ood, *study.probes) and not v.startswith(EMA)]
  if middle and rows:
    variants = chapter.labelled((study.id, *middle))
    figure = study_figures.curves(rows, variants, study.methods, chapter.colours, (study.id,))
    if study.held_out:
      blocks += [Heading("Seen against held-out, same distribution", 3), Text(
          "A method that stored what it was trained on gains more there than on what was held out of training. Where "
          "the shifted variant falls and this difference stays small, what was lost is a rule rather than what was "
          "gained being a list."), _seen_table(study, effects)]
    blocks.append(Picture(study_figures.save(figure, rows, out / "unseen.png"),
                          f"{measure_words(study, effects, study.measure)} on the other variants, against FLOPs: solid "
                          "in distribution, dotted held out, dashed shifted."))
  return blocks


def verdicts(chapter: Chapter, methods: Iterable[str]) -> list[Block]:
  """Verdicts by the start and the methods, in the order passed; [] if none were counted.

  They are of all responses where an episode has many points, else of first attempts.
  """
  study = chapter.study
  groups = verdict_groups(study.runs.values())
  rows = verdict_rows(study, chapter.effects.comparison, groups)
  if not rows:
    return []
  order = {group: index for index, group in enumerate((*study.start_groups, *methods))}
  rows.sort(key=lambda row: order[row["group"]])
  figure = study_figures.verdicts(rows, chapter.labelled(study.own_variants), study.methods, groups)
  of_cards = any(group.label == "wrong numbers" for group in groups)
  return [Picture(study_figures.save(figure, rows, chapter.out / "codes.png"), (
      f"Verdicts of {'all responses' if study.of_points else 'first attempts'}, in percent, mean over bases."
      + (" Wrong numbers: the cards were not used as dealt, or were misread." if of_cards else "")))]


def _seen_table(study: Study, effects: Effects) -> Table:
  rows = []
  for temperature in study.temperatures:
    cells = [cell(effects.find("memory", method, study.id, temperature)) for method in study.methods]
    rows.append((temperature_label(temperature), *cells))
  return Table(("change on seen minus change on held-out", *study.methods.values()), tuple(rows),
               f"Percentage points with {interval_words(effects)}.{dagger(effects, rows)}")


def _first_attempts(study: Study, effects: Effects) -> Table:
  rows = []
  for variant in study.variants:
    for temperature in study.temperatures:
      cells = [cell(effects.find("change", method, variant, temperature, 1, "success")) for method in study.methods]
      rows.append((study.labels.variant(variant), temperature_label(temperature), *cells))
  first = "right at the first try everywhere" if study.of_points else "first attempt only"
  return Table((first, "decoding", *(f"{label} change" for label in study.methods.values())), tuple(rows))
