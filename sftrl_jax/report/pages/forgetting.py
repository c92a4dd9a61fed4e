"""What is learned against what is forgotten: probes of the environment, and tasks of lm-eval, from before training."""

import pathlib

from sftrl_jax.report.figures import pareto_figure, study_figures, style, tasks_figure
from sftrl_jax.report.pages.blocks import Block, Heading, Picture
from sftrl_jax.report.pages.tables import tasks_table
from sftrl_jax.report.records import MEASURE_LABELS, Run, Study

AXES = {"in_distribution": "success in distribution", "flops": "FLOPs of post-training"}
TITLE = "What is learned against what is forgotten"


def study_blocks(study: Study, out: pathlib.Path) -> list[Block]:
  """Every method in one figure of probes and one of tasks; [] for a study with neither."""
  blocks: list[Block] = []
  inside, rows = f"{MEASURE_LABELS[study.measure]}, {study.labels.variant(study.id)}", pareto_figure.pareto_rows(study)
  if rows:
    variants = {variant: study.labels.variant(variant) for variant in dict.fromkeys(row["variant"] for row in rows)}
    methods = pareto_figure.with_ema(study.methods, rows)
    figure = pareto_figure.pareto(rows, methods, pareto_figure.looks(list(methods), study.reference), variants, inside)
    blocks.append(Picture(study_figures.save(figure, rows, out / "pareto.png"), (
        "Success under the shift and on probes, tasks from before this training, against success in distribution: "
        "mean over bases along each method's run, from the grey start to the dot. Further right at the same height: "
        "more learned at the price of no more forgetting.")))
  rows = tasks_figure.task_rows(study)
  if rows:
    methods = pareto_figure.with_ema(study.methods, rows)
    figure = tasks_figure.tasks(rows, methods, pareto_figure.looks(list(methods), study.reference), inside)
    blocks.append(Picture(study_figures.save(figure, rows, out / "tasks.png"), (
        "Tasks of lm-eval against success in distribution: mean over bases along each method's run, from the grey "
        "start to the dot.")))
  if any(run.tasks for run in study.runs.values()):
    blocks.append(tasks_table.study_table(study, list(study.methods)))
  return [Heading(TITLE), *blocks] if blocks else []


def run_blocks(run: Run, out: pathlib.Path) -> list[Block]:
  """The same of one run."""
  blocks: list[Block] = []
  inside = next((run.labels.variant(e.variant) for e in run.evaluations if not e.probe), "")
  rows = pareto_figure.pareto_rows_of_run(run)
  if rows:
    variants = {variant: run.labels.variant(variant) for variant in dict.fromkeys(row["variant"] for row in rows)}
    methods = pareto_figure.with_ema({run.name: run.name}, rows)
    figure = pareto_figure.pareto(rows, methods, _look(run, methods), variants, f"success, {inside}")
    blocks.append(Picture(study_figures.save(figure, rows, out / "pareto.png"), (
        "Success on probes, tasks from before this training, against success in distribution, from the grey start to "
        "the dot: what is learned against what is forgotten.")))
  rows = tasks_figure.task_rows_of_run(run)
  if rows:
    methods = pareto_figure.with_ema({run.name: run.name}, rows)
    figure = tasks_figure.tasks(rows, methods, _look(run, methods), f"success, {inside}")
    blocks += [Heading("Old tasks"), Picture(study_figures.save(figure, rows, out / "tasks.png"), (
        f"Tasks of lm-eval against {AXES[tasks_figure.axis_of(rows)]}, from the grey start to the dot.")),
               tasks_table.run_table(run)]
  return blocks


def _look(run: Run, methods: dict[str, str]) -> dict[str, tuple]:
  """{method: (colour, line style)}: the run in its own colour, its averaged parameters in another."""
  return dict(zip(methods, ((style.verb_colour(run.verb), "-"), (style.MORE[0], "-")), strict=False))
