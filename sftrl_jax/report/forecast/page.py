"""The chapter: a figure of bands, a table of forecasts, where methods pass one another, and the backtest."""

import math
import pathlib
from collections.abc import Mapping, Sequence

from sftrl_jax.forecast.crossing import LEAST_SHARE, Crossing, crossing, grid
from sftrl_jax.forecast.sigmoid import LEVEL, MIN_POINTS, band
from sftrl_jax.report.figures import study_figures, style
from sftrl_jax.report.forecast import backtest
from sftrl_jax.report.forecast.curves import AHEAD, MethodForecast, of_single, of_study
from sftrl_jax.report.forecast.figure import band_rows, bands
from sftrl_jax.report.labels import count, flops_text, percent, plain, points, points_range, temperature_label
from sftrl_jax.report.pages.blocks import Block, Bullets, Heading, Picture, Table, Text
from sftrl_jax.report.pages.study_page import Chapter
from sftrl_jax.report.records import MEASURE_LABELS, Run, Study
from sftrl_jax.report.stats.bootstrap import MIN_BASES

TITLE = "Forecast"
CANT_SAY = "the data can't say"
METHOD = (
    f"Each run's evaluations are fitted by a sigmoid of its FLOPs, R0 + (A - R0) / (1 + (M / C)^B), which may fall, by "
    "penalised least squares with the variance of the episodes, of what a run moves between evaluations, and of a "
    f"drift off the sigmoid, a random walk in FLOPs. The {LEVEL:.0%} bands hold the curves that these leave open, and "
    f"other bases where there are at least {MIN_BASES}. A sigmoid rises or falls and does not turn: where a curve will "
    "turn, the band holds it only by its width. "
    f"{MIN_POINTS} evaluations are the least. Nothing is forecast beyond the end of a budget, or {AHEAD:g} times the "
    "FLOPs of a finished run.")


def study_blocks(chapter: Chapter, price: float = 0.0) -> list[Block]:
  """The chapter of a study; [] where no run was evaluated after its start. price: dollars of a chip-hour, 0: unknown"""
  study = chapter.study
  forecasts = of_study(study)
  if not any(e.step > 0 for run in study.runs.values() for e in run.evaluations):
    return []
  panels = study.methods if study.has_many_methods else {
      variant: study.labels.variant(variant) for variant in dict.fromkeys((study.id, study.ood))}
  colours = {method: style.SFT if method == study.reference else style.RL for method in study.methods} if (
      study.has_many_methods) else chapter.colours
  labels = {**study.methods, **{variant: study.labels.variant(variant) for variant in (study.id, study.ood)}}
  rate = MEASURE_LABELS[study.measure]
  return [Heading(TITLE), *_bands(forecasts, panels, labels, colours, (study.id,), chapter.out, rate),
          _table(forecasts, labels, price), *_crossings(study, forecasts, price),
          *_backtest(list(study.runs.values()), (study.id, study.ood), labels, min(study.temperatures), study.measure),
          Text(f"{METHOD}{_price_words(price)} Success here is {rate}, "
               f"{temperature_label(min(study.temperatures))}.")]


def run_blocks(run: Run, out: pathlib.Path, price: float = 0.0) -> list[Block]:
  """The chapter of one run; [] where it was not evaluated after its start, or nothing says what is right."""
  forecasts = of_single(run)
  if not forecasts or not any(e.step > 0 for e in run.evaluations):
    return []
  labels = {run.name: plain(run.name, 40), **{f.variant: run.labels.variant(f.variant) for f in forecasts}}
  panels = {forecast.variant: labels[forecast.variant] for forecast in forecasts}
  temperature = forecasts[0].temperature
  return [Heading(TITLE),
          *_bands(forecasts, panels, labels, {run.name: style.verb_colour(run.verb)}, tuple(panels)[:1], out),
          _table(forecasts, labels, price), *_backtest([run], tuple(panels), labels, temperature, "success"),
          Text(f"{METHOD}{_price_words(price)} {temperature_label(temperature).capitalize()}.")]


def _price_words(price: float) -> str:
  return (f" Dollars: {price:g} a chip-hour, by the chip-hours that a run's own steps took for a FLOP, without "
          "evaluation and compilation." if price else " For dollars: sftrl report DIR --price=DOLLARS of a chip-hour.")


def _bands(forecasts: Sequence[MethodForecast], panels: Mapping[str, str], labels: Mapping[str, str],
           colours: Mapping[str, str], inside: tuple[str, ...], out: pathlib.Path,
           rate: str = "success") -> list[Block]:
  rows = band_rows(forecasts)
  if not rows:
    return []
  by = "method" if any(row["method"] in panels for row in rows) else "variant"
  drawn = {name: plain(title, 24 if by == "method" else 60) for name, title in panels.items()
           if any(row[by] == name for row in rows)}
  methods = {row["method"]: labels[row["method"]] for row in rows}
  figure = bands(rows, drawn, methods, colours, inside, rate)
  dashed = " Dashed: shifted." if by == "method" else ""
  return [Picture(study_figures.save(figure, rows, out / "forecast.png"), (
      f"Medians and {LEVEL:.0%} bands of the mean over bases; dots: evaluations of single bases; the grey line: the "
      f"last one.{dashed}"))]


def _table(forecasts: Sequence[MethodForecast], labels: Mapping[str, str], price: float) -> Table:
  """A row a variant and method: what is measured, what is forecast, and what that costs."""
  rows = []
  for forecast in forecasts:
    name = (labels[forecast.variant], labels[forecast.method])
    if not forecast.runs:
      rows.append((*name, "–", "–", "–", f"{CANT_SAY}: fewer than {MIN_POINTS} evaluations", "–",
                   *(["–"] if price else [])))
      continue
    reached, target = forecast.reached, forecast.target
    rates_DG = forecast.rates([reached, target])
    low, middle, high = band(rates_DG[:, 1])
    gains = band(rates_DG[:, 1] - rates_DG[:, 0])
    dollars = (target - reached) * forecast.chip_hours() * price
    without = f", {forecast.without} without" if forecast.without else ""
    rows.append((*name, f"{count(len(forecast.bases), 'base')}{without}", f"{percent(forecast.measured())} at "
                 f"{flops_text(reached)}", flops_text(target), f"{percent(middle)} ({percent(low)} to {percent(high)})",
                 f"{points(gains[1])} ({points_range(gains[0], gains[2])})",
                 *([dollars_text(dollars)] if price else [])))
  header = ("variant", "method", "bases", "measured, at FLOPs", "forecast at FLOPs", f"rate there ({LEVEL:.0%})",
            f"points more ({LEVEL:.0%})", *(["dollars a run"] if price else []))
  few = any(0 < len(forecast.bases) < MIN_BASES for forecast in forecasts)
  return Table(header, tuple(rows), (
      "Forecast at the end of the budget of runs that are not at their end"
      f", else at {AHEAD:g} times their FLOPs. Points more: by the fit, from the FLOPs measured to those forecast."
      + (f" Fewer than {MIN_BASES} bases: the band says nothing about other bases." if few else "")))


def _crossings(study: Study, forecasts: Sequence[MethodForecast], price: float) -> list[Block]:
  """From where on each method is above the reference, or the reverse, or that the data can't say."""
  known = {(forecast.variant, forecast.method): forecast for forecast in forecasts if forecast.runs}
  rows = []
  for variant in dict.fromkeys((study.id, study.ood)):
    for method in study.compared_methods:
      pair = [known.get((variant, name)) for name in (method, study.reference)]
      if any(forecast.variant == variant and forecast.method == method for forecast in forecasts):
        rows.append((study.labels.variant(variant), study.methods[method], *_crossing_cells(study, pair, price)))
  if not rows:
    return []
  return [Heading(f"Where methods pass {study.reference_label}", 3), Table(
      ("variant", "method", "answer", "FLOPs", f"{LEVEL:.0%} interval", "draws above at the horizon",
       *(["dollars a run"] if price else [])), tuple(rows), (
           "The FLOPs from which on the mean over bases of the one is above that of the other, by paired draws of both "
           f"bands up to the horizon. The data can't say unless {LEAST_SHARE:.0%} of the draws agree which is above "
           "there; then the whole interval lies within the horizon."))]


def _crossing_cells(study: Study, pair: Sequence[MethodForecast | None], price: float) -> tuple[str, ...]:
  """answer, FLOPs, interval, share, and dollars if there is a price; pair: the method and the reference."""
  blank = ("–", "–", "–", *(["–"] if price else []))
  if None in pair:
    return (f"{CANT_SAY}: fewer than {MIN_POINTS} evaluations", *blank)
  if not study.share_bases(pair[0].method, pair[1].method):
    return ("other bases", *blank)
  bases = tuple(base for base in pair[0].bases if base in pair[1].bases)
  if not bases:
    return (f"{CANT_SAY}: no base has both", *blank)
  first = min(flops for forecast in pair for run in forecast.runs for flops in run.curve.flops if flops > 0)
  flops_G = grid(first, max(forecast.target for forecast in pair))
  rates = [forecast.rates(flops_G, bases) for forecast in pair]
  ahead, behind = crossing(*rates, flops_G), crossing(*rates[::-1], flops_G)
  share = f"{ahead.share:.0%} at {flops_text(ahead.horizon)}"
  for passing, upper, lower in ((ahead, *pair), (behind, *pair[::-1])):
    if passing.is_known:
      dollars = upper.chip_hours() * price
      names = study.methods[upper.method], study.methods[lower.method]
      answer = "{} passes {}" if passing.interval()[2] else "{} is above {} from the first evaluation on"
      return (answer.format(*names), *_where(passing, first), share,
              *([_dollars_interval(passing, first, dollars)] if price else []))
  return (CANT_SAY, "–", "–", share, *(["–"] if price else []))


def _where(passing: Crossing, first: float) -> tuple[str, str]:
  """The median and the interval; a crossing before the first evaluation is none that was seen."""
  low, middle, high = (flops_text(flops) if flops else f"before {flops_text(first)}" for flops in passing.interval())
  return middle, f"{low} to {high}"


def _dollars_interval(passing: Crossing, first: float, dollars: float) -> str:
  """The same in dollars; dollars: of a FLOP."""
  if not math.isfinite(dollars):
    return "–"
  low, middle, high = (dollars_text(flops * dollars) if flops else f"below {dollars_text(first * dollars)}"
                       for flops in passing.interval())
  return f"{middle} ({low} to {high})"


def dollars_text(amount: float) -> str:
  """Dollars to two digits, whole above ten; a dash if unknown."""
  if not math.isfinite(amount):
    return "–"
  return f"${amount:,.0f}" if amount >= 10 else f"${amount:.2g}"


def _backtest(runs: Sequence[Run], variants: Sequence[str], labels: Mapping[str, str], temperature: float,
              measure: str) -> list[Block]:
  """How often the band from the first half of finished runs held their measured end."""
  heading, table = Heading("Backtest of the forecast", 3), []
  variants = tuple(dict.fromkeys(variants))
  results, short = backtest.cases(runs, variants, temperature, measure)
  left_out = f"{count(short, 'finished curve')} with fewer than {MIN_POINTS} evaluations in the first half left out."
  if not results:
    why = left_out if short else "No run is finished."
    return [heading, Text(f"There is none: {why[0].lower()}{why[1:]}")]
  groups = [(labels[variant], [case for case in results if case.variant == variant]) for variant in variants]
  groups += [("all", results)] if len(variants) > 1 else []
  for name, members in groups:
    if members:
      score = backtest.score(members)
      table.append((name, f"{score.inside} of {score.cases}", percent(score.inside / score.cases),
                    f"{percent(score.low)} to {percent(score.high)}", points(score.width)[1:],
                    points(score.error)[1:], points(score.error_of_half)[1:]))
  header = ("variant", f"inside the {LEVEL:.0%} band", "share", "95% Wilson", "mean width of bands", "mean error",
            "mean error of the rate at the half")
  missed = [f"{plain(case.run, 60)}, {labels[case.variant]}: {percent(case.low)} to {percent(case.high)}, measured "
            f"{percent(case.end)}." for case in results if not case.is_inside]
  more = [f"And {len(missed) - 8} more."] if len(missed) > 8 else []
  return [heading, Table(header, tuple(table), (
      "Each finished run is fitted on its evaluations up to half of its FLOPs, and its end is forecast as an "
      f"evaluation would measure it. A good forecaster is right in {LEVEL:.0%} and nearer than the rate at the half. "
      "Widths and errors in points. Curves of one run or base are not independent, which the Wilson interval takes "
      f"them for; every evaluation plays the same episodes, which the bands take for fresh ones and are wider for."
      + (f" {left_out}" if short else ""))),
      *([Text("Outside:"), Bullets((*missed[:8], *more))] if missed else [])]
