"""The results of a study of many methods: a row for each instead of a column, one colour and grey instead of many."""

import math

from sftrl_jax.report import labels
from sftrl_jax.report.figures import rows as figure_rows, study_figures, style
from sftrl_jax.report.pages import study_page
from sftrl_jax.report.pages.blocks import Heading, Picture, Table, Text

ACROSS = 4  # small panels in a row
FAINT = "#CDD2D8"


def ranked(study, effects):
  """The methods by what they end with in distribution at the lowest temperature, best first; without an end, last."""
  at = min(study.temperatures, default=0.0)

  def end(method):
    found = effects.find("end", method, study.id, at)
    return found.value if found else -math.inf
  return sorted(study.methods, key=lambda method: -end(method))


def results(study, effects, out):
  """A table a decoding, gaps to the reference, and figures of ends, curves and verdicts."""
  order = ranked(study, effects)
  blocks = [Heading("Results at equal compute"), Text(
    f"{len(study.methods)} methods, by success on {labels.variant_label(study.id)} "
    f"({labels.temperature_label(min(study.temperatures))}). {study_page.counted(study, effects, each=False)}")]
  blocks += [ends_table(study, effects, order, temperature) for temperature in study.temperatures]
  study_figures.write_csv(figure_rows.effects_table(effects, study), out / "effects.csv")
  rows = [row for row in figure_rows.effects_table(effects, study)
          if row["attempts"] == effects.attempts and row["quantity"] in ("start", "end")]
  figure = ends_figure(rows, study, order)
  greedy, *others = map(labels.temperature_label, study.temperatures)
  blocks.append(Picture(study_figures.save(figure, rows, out / "methods.png"), (
    f"Success at the end: filled {greedy}{''.join(f', open {other}' for other in others)}, with 95% bootstrap "
    f"intervals. Grey lines: the start ({greedy}{''.join(f'; dotted {other}' for other in others)}). Orange: "
    f"{study.reference_label}.")))
  blocks += curves(study, order, out)
  blocks.append(gaps_table(study, effects, order))
  return blocks + study_page.verdicts(study, effects, order, out)


def ends_table(study, effects, order, temperature):
  """A row a method: end and change of every variant at one temperature, and how far it went from the start."""
  drift = {row["method"]: row["kl"] for row in figure_rows.curves(study, "kl") if row["base"] == "mean"
           and (row["variant"], row["temperature"]) == (study.id, temperature)}
  header = [labels.temperature_label(temperature)]
  for variant in study.variants:
    header += [labels.variant_label(variant), "change (95%)"]
  begun = [start(study, effects, variant, temperature) for variant in study.variants]
  rows = [("start", *(cell for success in begun for cell in (success, "")))]
  for method in order:
    cells = [study.methods[method]]
    for variant in study.variants:
      end, change = (effects.find(quantity, method, variant, temperature) for quantity in ("end", "change"))
      cells += [labels.percent(end.value) if end else "–", study_page.cell(change)]
    rows.append(tuple(cells))
  if drift:
    header.append(f"KL, {labels.variant_label(study.id)}")
    rows = [rows[0] + ("",)] + [row + (f"{drift[method]:.2f}" if method in drift else "–",)
                                for method, row in zip(order, rows[1:], strict=True)]
  told = " KL: nats a response token from the start, on the model's own responses." if drift else ""
  return Table(tuple(header), tuple(rows), (
    f"Success within {labels.count(effects.attempts, 'attempt')}; changes in percentage points with a 95% bootstrap "
    f"interval. Every estimate, its t interval and the value of each base: effects.csv.{told}"
    f"{study_page.dagger(effects)}"))


def start(study, effects, variant, temperature):
  """Success before any training, as a percentage: the mean over the methods, which begin from the same models."""
  known = [e.value for e in (effects.find("start", method, variant, temperature) for method in study.methods) if e]
  return labels.percent(sum(known) / len(known)) if known else "–"


def gaps_table(study, effects, order):
  """A row a method: how far it ends from the reference, on the variant trained on and on the shifted one."""
  places = [(variant, temperature) for variant in dict.fromkeys((study.id, study.ood)) if variant in study.variants
            for temperature in study.temperatures]
  rows = [(study.methods[method], *(study_page.cell(effects.find("gap", method, *place)) for place in places))
          for method in order if method != study.reference]
  header = (f"minus {study.reference_label}",
            *(f"{labels.variant_label(variant)}, {labels.temperature_label(t)}" for variant, t in places))
  return Table(header, tuple(rows), (
    f"Each method's end minus that of {study.reference_label} from the same bases on the same episodes, in percentage "
    f"points with a 95% bootstrap interval.{study_page.dagger(effects)}"))


def ends_figure(rows, study, order):
  """A panel a variant, a row a method: success at the end with its interval, and lines at the start's."""
  figure, axes = style.new_figure(1, len(study.variants), height=0.9 + 0.24 * len(order), sharey=True)
  temperatures = sorted({row["temperature"] for row in rows})
  top = study_figures.ceiling([row["high"] for row in rows])
  for axis, variant in zip(axes.flat, study.variants, strict=True):
    axis.grid(axis="x", color=style.GRID, linewidth=0.8)
    style.rate_axis(axis, "x", top)
    style.title(axis, labels.variant_label(variant))
    for level, temperature in enumerate(temperatures):
      mine = [row for row in rows if (row["variant"], row["temperature"]) == (variant, temperature)]
      starts = [row["value"] for row in mine if row["quantity"] == "start"]
      if starts:
        axis.axvline(sum(starts) / len(starts), color=style.START, linewidth=1, linestyle=":" if level else "-")
      for row in mine:
        if row["quantity"] == "end":
          colour = style.SFT if row["method"] == study.reference else style.RL
          height = order.index(row["method"]) + 0.26 * (level - (len(temperatures) - 1) / 2)
          axis.plot([row["low"], row["high"]], [height] * 2, color=colour, linewidth=2.2, alpha=0.45)
          axis.plot(row["value"], height, "o", color=colour, markersize=4.5, zorder=3, clip_on=False,
                    markerfacecolor="white" if level else colour)
    axis.set_yticks(range(len(order)), [labels.drawn(study.methods[method], 28) for method in order], fontsize=8.5)
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.set_xlabel("success at the end")
  return figure


def curves(study, order, out):
  """Small panels of success against FLOPs, a method each; [] where no run has two evaluations."""
  rows = drawn_curves(study)
  if not rows:
    return []
  figure = panels(rows, study, [method for method in order if any(row["method"] == method for row in rows)])
  shifted = f", dashed {labels.variant_label(study.ood)}" if study.ood in study.variants else ""
  return [Picture(study_figures.save(figure, rows, out / "curves.png"), (
    f"Success against post-training FLOPs, {labels.temperature_label(min(study.temperatures))}, mean over bases: solid "
    f"{labels.variant_label(study.id)}{shifted}; the other methods in grey. Orange: {study.reference_label}."))]


def drawn_curves(study):
  """Rows of the panels: the mean over bases at the lowest temperature, in distribution and shifted."""
  return [row for row in figure_rows.curves(study) if row["base"] == "mean" and row["variant"] in (study.id, study.ood)
          and row["temperature"] == min(study.temperatures)]


def panels(rows, study, order):
  """One method in colour over the others in grey, a panel each."""
  lines = -(-len(order) // ACROSS)
  figure, axes = style.new_figure(lines, ACROSS, height=0.4 + 1.45 * lines, sharex=True, sharey=True)
  largest, top = max(row["flops"] for row in rows), study_figures.ceiling([row["success"] for row in rows])
  drawn = study_figures.lines_of(rows, "flops", "success", "method", "variant")
  for axis, chosen in zip(axes.flat, order):  # noqa: B905 (the last line of panels may not be full)
    style.rate_axis(axis, top=top)
    style.flops_axis(axis, largest)
    style.title(axis, labels.plain(study.methods[chosen], 24))
    for (method, variant), (x, y) in drawn.items():
      mine = method == chosen
      colour = (style.SFT if method == study.reference else style.RL) if mine else FAINT
      axis.plot(x, y, color=colour, linestyle=style.line_of(variant, (study.id,)), linewidth=1.8 if mine else 0.8,
                zorder=3 if mine else 1)
  for axis in axes.flat[len(order):]:
    axis.set_visible(False)
  study_figures.hide_inner_labels(axes)
  for axis in axes[-1]:
    axis.set_xlabel(axis.get_xlabel().replace("post-training compute ", "").strip("()"))
  for axis in axes[:, 0]:
    axis.set_ylabel("success")
  return figure


def summary_rows(study, effects):
  """Header and a line a method for a console: the rate and the end on every variant and decoding."""
  places = [(variant, temperature) for temperature in study.temperatures for variant in study.variants]
  header = ("method", *(f"{variant} {labels.temperature_label(t)}" for variant, t in places))
  rows = [header, ("(start)", *(start(study, effects, variant, t) for variant, t in places))]
  for method in ranked(study, effects):
    found = [effects.find("end", method, variant, t) for variant, t in places]
    rows.append((study.methods[method], *(labels.percent(end.value) if end else "–" for end in found)))
  return rows
