"""Reports from workdirs: of a study, of a run, of runs over one another, a quick first curve and a console summary."""

import math
import pathlib
from collections.abc import Iterable, Sequence

from sftrl_jax import paths
from sftrl_jax.report.figures import study_figures, style
from sftrl_jax.report.figures.rows import curve_rows
from sftrl_jax.report.forecast import page as forecast_page
from sftrl_jax.report.labels import percent, plain, temperature_label
from sftrl_jax.report.pages import many_methods, matched, preferences, provenance, run_page, study_page
from sftrl_jax.report.pages.alarms_box import console_line
from sftrl_jax.report.pages.blocks import Bullets, Heading, write
from sftrl_jax.report.pages.data_box import data_blocks
from sftrl_jax.report.pages.tables.methods_table import methods_table
from sftrl_jax.report.read_workdir import read_run, read_study
from sftrl_jax.report.records import Study
from sftrl_jax.report.stats import claims, effects
from sftrl_jax.report.stats.bootstrap import MIN_BASES
from sftrl_jax.report.weights import page as weights_page

Directory = pathlib.PurePath | str


def write_study(directory: Directory, out: pathlib.Path | str | None = None, price: float = 0.0) -> pathlib.Path:
  """Writes the report (report.md, report.html, figures) of what there is of a study; returns the path of report.html.

  `out` is DIRECTORY/report by default, `price` in dollars of a chip-hour (0: no dollars). Missing and unfinished runs
  are named in the report. ValueError, naming file, line, rule and way out, for damaged input.
  """
  study = read_study(directory)
  out = pathlib.Path(out) if out else study.directory / "report"
  measured = effects.measure(study)
  judged = claims.judge_claims(study, measured)
  chapter = study_page.Chapter(study, measured, style.method_colours(study.methods, study.reference), out)
  blocks = study_page.opening(study, measured, judged)
  if study.has_many_methods:
    blocks += many_methods.results(chapter)
  else:
    if study.is_registered or any(math.isfinite(e.updates) for run in study.runs.values() for e in run.evaluations):
      blocks += [Heading("Methods"), *methods_table(study, measured, list(study.methods))]
    blocks += study_page.results(chapter)
    if measured.rows:
      blocks += matched.trade(chapter) + study_page.inside(chapter) + provenance.episode(study)
  blocks += forecast_page.study_blocks(chapter, price)
  blocks += preferences.blocks(chapter) + weights_page.study_blocks(chapter)
  blocks += [Heading("What does not hold"), Bullets(claims.limits(study, measured, judged))]
  return write(study.name, [*blocks, *provenance.method(study, measured), *provenance.appendix(study)], out)


def write_run(workdir: Directory, out: pathlib.Path | str | None = None, price: float = 0.0) -> pathlib.Path:
  """Writes the report of one run into `out` or its workdir's report/; returns the path of report.html. price: dollars
  of a chip-hour, 0: no dollars."""
  run = read_run(workdir)
  out = pathlib.Path(out) if out else run.directory / "report"
  return write(run.name, [
      *run_page.state(run), *run_page.evaluations(run, out), *forecast_page.run_blocks(run, out, price),
      *run_page.scores(run, out), *run_page.training(run, out), *weights_page.run_blocks(run, out),
      *run_page.conversation(run), *data_blocks(run), *run_page.configuration(run)], out)


def write_overlay(directories: Sequence[Directory], out: pathlib.Path | str) -> pathlib.Path:
  """Writes one report of several runs with the config keys in which they differ; returns the path of report.html.

  A study's directory stands for its runs. ValueError if there is no run.
  """
  runs, out = [], pathlib.Path(out)
  for directory in map(paths.as_path, directories):
    if (directory / "study.json").exists():
      runs += list(read_study(directory).runs.values())
    else:
      runs.append(read_run(directory))
  runs = list({run.directory.resolve(): run for run in runs}.values())
  if not runs:
    raise ValueError(f"There is no run in {', '.join(map(str, directories))}: name the workdirs of runs, or a study "
                     "with some.")
  return write(f"{len(runs)} runs over one another", run_page.disagreement(runs) + run_page.overlay(runs, out), out)


def draw_curve(directory: Directory, out: pathlib.Path | str) -> pathlib.Path:
  """Draws success against FLOPs, greedy, of what a study has so far to `out` (.png, and .csv beside it).

  Returns the path of the .png. ValueError if no run has two evaluations yet.
  """
  study, out = read_study(directory), pathlib.Path(out)
  rows = [row for row in curve_rows(study)
          if row["temperature"] == min(study.temperatures) and row["variant"] in (study.id, study.ood)]
  if not rows:
    raise ValueError(f"No run in {directory} has two evaluations of {study.id} or {study.ood} yet; try again later.")
  if study.has_many_methods:
    begun = [method for method in study.methods if any(row["method"] == method for row in rows)]
    rows = many_methods.mean_curve_rows(study)
    return study_figures.save(many_methods.curve_panels(rows, study, begun), rows, out)
  variants = {variant: study.labels.variant(variant) for variant in (study.id, study.ood)
              if any(row["variant"] == variant for row in rows)}
  colours = style.method_colours(study.methods, study.reference)
  return study_figures.save(study_figures.curves(rows, variants, study.methods, colours, (study.id,)), rows, out)


def summary(directory: Directory) -> str:
  """The study's table and verdicts as plain text for a console."""
  study = read_study(directory)
  measured = effects.measure(study)
  if not measured.rows:
    return f"{plain(study.name)}: no run has been evaluated after its start yet."
  judged = claims.judge_claims(study, measured)
  lines = _aligned(many_methods.summary_rows(study, measured) if study.has_many_methods else
                   _method_rows(study, measured))
  lines.insert(1, "-" * max(map(len, lines)))
  for method in () if study.has_many_methods else study.compared_methods:
    for temperature in study.temperatures:
      gap = measured.find("matched", method, study.ood, temperature)
      if gap is not None:
        lines.append(f"{study.methods[method]} - {study.reference_label} on {study.ood} at matched {study.id}, "
                     f"{temperature_label(temperature)}: {study_page.cell(gap)}")
  lines += ["", study_page.sample_sizes(study, measured, by_method=not study.has_many_methods)]
  if not study.has_many_methods:
    bases = max(row.estimate.bases for row in measured.rows)
    unit = "bases, seeds and episodes" if bases >= MIN_BASES else (
        "EPISODES OF ONE BASE ONLY" if bases < 2 else f"EPISODES OF {bases} BASES ONLY")
    lines[-1] += (f" {study_page.measure_words(study, measured, study.measure)}. Intervals over {unit}, in percentage "
                  f"points.{study_page.dagger(measured)}")
  lines += ["", *_aligned([(claim.verdict.upper(), f"{claim.text} ({temperature_label(claim.temperature)})",
                            percent(claim.estimate.value) if claim.is_level else study_page.cell(claim.estimate))
                           for claim in judged])] if judged else []
  alarms = console_line([(run.name, run) for run in (*study.starts.values(), *study.runs.values())])
  lines += ["", alarms] if alarms else []
  if study.missing:
    lines += ["", f"Missing runs: {', '.join(study.missing)}"]
  return "\n".join(plain(line, 400) for line in [study.name, "", *lines])


def _method_rows(study: Study, measured: effects.Effects) -> list[tuple[str, ...]]:
  """Header and lines of the console table."""
  rows = [("method", "variant", "decoding", "start", "end", "change (95%)")]
  for method, label in study.methods.items():
    for variant in study.variants:
      for temperature in study.temperatures:
        start, end, change = (measured.find(q, method, variant, temperature) for q in ("start", "end", "change"))
        if change is not None:
          rows.append((label, variant, temperature_label(temperature), percent(start.value), percent(end.value),
                       study_page.cell(change)))
  return rows


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
  """Rows of text in columns."""
  rows = [[plain(cell) for cell in row] for row in rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
