import csv
import itertools

from sftrl_jax.report.figures import study_figures, style
from sftrl_jax.report.labels import GENERAL_POINTS

COLOURS = {"sft": style.SFT, "ppo": style.RL}
VARIANTS = {"id_seen": "ID", "rule_ood": "OOD"}
LABELS = {"sft": "SFT $x$", "ppo": "PPO"}


def curve_rows():
  return [{"variant": v, "temperature": t, "method": m, "base": b, "flops": f * 1e12, "success": 0.2 + 0.1 * f}
          for v in ("id_seen", "rule_ood") for t in (0.0, 1.0) for m in COLOURS for b in ("base-0", "mean")
          for f in (0, 1, 2)]


def test_a_panel_a_variant_and_temperature_with_rates_from_zero():
  figure = study_figures.curves(curve_rows(), VARIANTS, LABELS, COLOURS, ("id_seen",))
  assert len(figure.axes) == 4
  for axis in figure.axes:
    assert axis.get_ylim()[0] == 0 and axis.get_ylim()[1] <= 1
    assert {line.get_color() for line in axis.lines} == {style.SFT, style.RL, style.START}
  assert {line.get_linestyle() for line in figure.axes[0].lines} == {"-"}
  assert "--" in {line.get_linestyle() for line in figure.axes[1].lines}


def test_curves_over_updates_say_so():
  rows = [{**{key: value for key, value in row.items() if key != "flops"}, "updates": row["flops"] / 1e9}
          for row in curve_rows()]
  axes = study_figures.curves(rows, VARIANTS, LABELS, COLOURS, ("id_seen",)).axes
  assert axes[-1].get_xlabel().startswith("updates") and axes[-1].get_xlim()[1] > 2000
  of_responses = [{**row, "per_step": row["success"]} for row in curve_rows()]
  for row in of_responses:
    del row["success"]
  assert study_figures.curves(of_responses, VARIANTS, LABELS, COLOURS, ()).axes[0].get_ylabel() == "right responses"


def test_words_at_line_ends_lie_inside_the_figure():
  figure = study_figures.curves(curve_rows(), VARIANTS, {"sft": "SFT", "ppo": "a method of a long name"},
                          COLOURS, ("id_seen",))
  figure.canvas.draw()
  texts = [text.get_window_extent() for axis in figure.axes for text in axis.texts]
  assert texts and max(box.x1 for box in texts) <= figure.bbox.x1 - 0.07 * figure.dpi


def test_saving_writes_the_picture_and_exactly_the_rows_drawn(tmp_path):
  rows = curve_rows()
  figure = study_figures.curves(rows, VARIANTS, LABELS, COLOURS, ("id_seen",))
  path = study_figures.save(figure, rows, tmp_path / "new" / "curves.png")
  assert path.read_bytes()[:4] == b"\x89PNG"
  with open(path.with_suffix(".csv")) as file:
    read = list(csv.DictReader(file))
  assert len(read) == len(rows) and float(read[5]["success"]) == rows[5]["success"]


def test_a_cell_is_no_formula_of_a_spreadsheet():
  cells = list(map(study_figures.csv_cell, ("=1+1", -0.5, "base-0")))
  assert cells == ["'=1+1", "-0.5", "base-0"]


def test_the_top_of_a_rate_axis():
  assert study_figures.ceiling([0.01]) == 0.1 and study_figures.ceiling([0.9]) == 1.0
  assert 0.4 < study_figures.ceiling([0.4]) < 0.5
  assert study_figures.ceiling([float("nan")]) == 1.0


def test_the_other_figures_draw(tmp_path):
  path = [{"temperature": 0.0, "method": m, "base": b, "in_distribution": 0.3, "shifted": 0.2} for m in COLOURS
          for b in ("base-0", "mean")]
  tries = [{"variant": "x", "temperature": 0.0, "group": g, "attempt": u, "success": 0.1 * u} for g in ("start", "sft")
           for u in (1, 2)]
  verdicts = [{"variant": "x", "group": "start", "verdict": name, "share": 0.25}
              for name in ("correct", "illegal format")]
  pairs = [{"temperature": 0.0, "method": "ppo", "base": "mean", "in_distribution": 0.5, "shifted_method": 0.4,
            "shifted_sft": 0.3, "gap": 0.1}]
  nan = float("nan")
  forest = [{"quantity": "change", "method": "sft", "variant": "x", "temperature": 0.0, "value": 0.1, "low": 0.0,
             "high": 0.2, "t_low": nan, "t_high": nan}]
  distance = [{"variant": "x", "method": "sft", "base": "mean", "flops": f, "kl": 0.1 * f} for f in (0, 1)]
  x = {"x": "$x$"}
  for index, figure in enumerate((
      study_figures.frontier(path, LABELS, COLOURS, "a $", "b"), study_figures.attempts(tries, x, LABELS, COLOURS, ()),
      study_figures.verdicts(verdicts, x, LABELS, GENERAL_POINTS.verdict_groups(())),
      study_figures.matched(pairs, LABELS, COLOURS, "sft", "b"),
      study_figures.divergence(distance, x, LABELS, COLOURS, ()),
      study_figures.effects(forest, COLOURS, {("change", "sft", "x"): "SFT"}))):
    assert study_figures.save(figure, [], tmp_path / f"{index}.png").stat().st_size > 2000


def test_the_matched_pairs_of_many_methods_stand_in_two_columns_whose_texts_are_apart():
  pairs = [{"temperature": temperature, "method": method, "base": base, "in_distribution": 0.5, "shifted_method": 0.4,
            "shifted_sft": 0.3, "gap": 0.1}
           for method in ("a", "b", "c") for temperature in (0.0, 1.0) for base in ("base-0", "mean")]
  labels = {"sft": "SFT"} | {name: f"A method that is named {name}" for name in "abc"}
  figure = study_figures.matched(pairs, labels, dict.fromkeys(labels, "#000000"), "sft", "b")
  figure.draw_without_rendering()
  boxes = [axis.get_tightbbox() for axis in figure.axes if axis.get_visible()]
  assert len(boxes) == 6 and len({round(box.y0) for box in boxes}) == 3
  assert not any(left.overlaps(right) for left, right in itertools.combinations(boxes, 2))


def test_methods_that_begin_from_unlike_models_have_a_start_line_each():
  rows = [{**row, "success": row["success"] + (0.3 if row["method"] == "ppo" else 0.0)} for row in curve_rows()]
  grey = lambda rows: [line.get_ydata()[0] for line in study_figures.curves(
      rows, VARIANTS, LABELS, COLOURS, ("id_seen",)).axes[0].lines if line.get_color() == style.START]
  assert len(grey(curve_rows())) == 1 and len(grey(rows)) == 2


def test_panels_of_six_variants_and_the_legend_of_their_verdicts_are_apart():
  variants = {f"v{number}": f"OOD, a look number {number}" for number in range(6)}
  rows = [{**row, "variant": variant, "kl": 0.1} for variant in variants for row in curve_rows()
          if row["variant"] == "rule_ood"]
  groups = GENERAL_POINTS.verdict_groups(())
  shares = [{"variant": variant, "group": "start", "verdict": group.label, "share": 0.1}
            for variant in variants for group in groups]
  for figure, lines in ((study_figures.curves(rows, variants, LABELS, COLOURS, ()), 4),
                        (study_figures.verdicts(shares, variants, LABELS, groups), 2),
                        (study_figures.divergence(rows, variants, LABELS, COLOURS, ()), 2)):
    figure.draw_without_rendering()
    boxes = [axis.get_tightbbox() for axis in figure.axes]
    assert len({round(axis.get_position().y0, 2) for axis in figure.axes}) == lines
    assert not any(left.overlaps(right) for left, right in itertools.combinations(boxes, 2))
    assert all(legend.get_window_extent().x1 <= figure.bbox.x1 for legend in figure.legends)
