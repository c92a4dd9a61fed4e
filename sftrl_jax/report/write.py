"""Reports from workdirs: of a study, of a run, of runs over one another, a quick first curve and a console summary."""

import pathlib

from sftrl_jax import paths
from sftrl_jax.report import labels, read_workdir
from sftrl_jax.report.figures import rows as figure_rows, study_figures, style
from sftrl_jax.report.pages import many_methods, provenance, run_page, study_page
from sftrl_jax.report.pages.alarms_box import line as alarm_line
from sftrl_jax.report.pages.blocks import Bullets, Heading, write
from sftrl_jax.report.pages.data_box import data as read_data
from sftrl_jax.report.stats import claims, effects


def write_study(directory, out=None):
  """Writes DIR/report (report.md, report.html, figures) of what there is of a study; the path of report.html.

  Runs that are missing or unfinished are named in it. ValueError, naming file, line, rule and way out, for damaged
  input.
  """
  study = read_workdir.read_study(directory)
  out = pathlib.Path(out) if out else study.directory / "report"
  out.mkdir(parents=True, exist_ok=True)
  measured = effects.measure(study)
  judged = claims.claims(study, measured)
  colours = style.method_colours(study.methods, study.reference)
  blocks = study_page.opening(study, measured, judged)
  if study.crowd:
    blocks += many_methods.results(study, measured, out) if measured.rows else []
  else:
    blocks += study_page.results(study, measured, colours, out)
  if measured.rows and not study.crowd:
    blocks += study_page.trade(study, measured, colours, out) + study_page.inside(study, measured, colours, out)
    blocks += provenance.played(study)
  blocks += [Heading("What does not hold"), Bullets(claims.limits(study, measured, judged))]
  return write(study.name, [*blocks, *provenance.method(study, measured), *provenance.appendix(study)], out)


def write_run(workdir, out=None):
  """Writes the report of one run into `out` or its workdir's report/; the path of report.html."""
  run = read_workdir.read_run(workdir)
  out = pathlib.Path(out) if out else run.directory / "report"
  out.mkdir(parents=True, exist_ok=True)
  blocks = run_page.state(run) + run_page.evaluations(run, out) + run_page.training(run, out) + run_page.conversation(run)
  return write(run.name, [*blocks, *read_data(run), *run_page.configuration(run)], out)


def write_overlay(directories, out):
  """Writes one report of several runs (a study's directory stands for its runs) with the config keys in which they
  differ.
  """
  runs, out = [], pathlib.Path(out)
  for directory in map(paths.as_path, directories):
    if (directory / "study.json").exists():
      runs += list(read_workdir.read_study(directory).runs.values())
    else:
      runs.append(read_workdir.read_run(directory))
  runs = list({run.directory.resolve(): run for run in runs}.values())
  if not runs:
    raise ValueError(
      f"There is no run in {', '.join(map(str, directories))}: name the workdirs of runs, or a study with some."
    )
  out.mkdir(parents=True, exist_ok=True)
  return write(f"{len(runs)} runs over one another", run_page.disagreement(runs) + run_page.overlay(runs, out), out)


def draw_curve(directory, out):
  """Draws success against FLOPs, greedy, of what a study has so far to `out` (.png, and .csv beside it); its path.

  ValueError if no run has two evaluations yet.
  """
  study, out = read_workdir.read_study(directory), pathlib.Path(out)
  rows = figure_rows.curves(study)
  rows = [
    row for row in rows if row["temperature"] == min(study.temperatures) and row["variant"] in (study.id, study.ood)
  ]
  if not rows:
    raise ValueError(f"No run in {directory} has two evaluations of {study.id} or {study.ood} yet; try again later.")
  if study.crowd:
    begun = [method for method in study.methods if any(row["method"] == method for row in rows)]
    drawn = many_methods.drawn_curves(study)
    return study_figures.save(many_methods.panels(drawn, study, begun), drawn, out)
  variants = [variant for variant in (study.id, study.ood) if any(row["variant"] == variant for row in rows)]
  colours = style.method_colours(study.methods, study.reference)
  return study_figures.save(study_figures.curves(rows, variants, study.methods, colours, (study.id,)), rows, out)


def summary(directory):
  """The study's table and verdicts as plain text for a console."""
  study = read_workdir.read_study(directory)
  measured = effects.measure(study)
  if not measured.rows:
    return f"{labels.plain(study.name)}: no run has been evaluated after its start yet."
  judged = claims.claims(study, measured)
  header = ("method", "variant", "decoding", "start", "end", "change (95%)")
  rows = [row for method in study.methods for row in method_rows(study, measured, method)]
  lines = aligned(many_methods.summary_rows(study, measured) if study.crowd else [header, *rows])
  lines.insert(1, "-" * max(map(len, lines)))
  for method in () if study.crowd else study.others:
    for temperature in study.temperatures:
      gap = measured.find("matched", method, study.ood, temperature)
      if gap is not None:
        lines.append(f"{study.methods[method]} - {study.reference_label} on {study.ood} at matched {study.id}, "
                     f"{labels.temperature_label(temperature)}: {study_page.cell(gap)}")
  several = max(row.estimate.bases for row in measured.rows) > 1
  unit = "bases, seeds and episodes" if several else "EPISODES OF ONE BASE ONLY"
  over = f" Intervals over {unit}, in percentage points.{study_page.dagger(measured)}"
  lines += ["", study_page.counted(study, measured, each=not study.crowd) + ("" if study.crowd else over), ""]
  lines += aligned([(claim.verdict.upper(), f"{claim.text} ({labels.temperature_label(claim.temperature)})",
                     study_page.cell(claim.estimate)) for claim in judged])
  alarmed = alarm_line([(run.name, run) for run in (*study.starts.values(), *study.runs.values())])
  lines += ["", alarmed] if alarmed else []
  if study.missing:
    lines += ["", f"Missing runs: {', '.join(study.missing)}"]
  return "\n".join(labels.plain(line, 400) for line in [study.name, "", *lines])


def method_rows(study, measured, method):
  """Lines of the console table for one method."""
  rows = []
  for variant in study.variants:
    for temperature in study.temperatures:
      start, end, change = (measured.find(q, method, variant, temperature) for q in ("start", "end", "change"))
      if change is not None:
        rows.append((study.methods[method], variant, labels.temperature_label(temperature), labels.percent(start.value),
                     labels.percent(end.value), study_page.cell(change)))
  return rows


def aligned(rows):
  """Rows of text in columns."""
  widths = [max(len(labels.plain(row[i])) for row in rows) for i in range(len(rows[0]))] if rows else []
  return [
    "  ".join(labels.plain(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
  ]
