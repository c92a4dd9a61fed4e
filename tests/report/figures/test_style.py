import numpy as np

from sftrl_jax.report.figures import style


def test_colour_is_the_method_and_line_the_distribution():
  assert style.method_colours({"ppo": "", "sft": "", "grpo": ""}, "sft") == {
    "ppo": style.RL, "sft": style.SFT, "grpo": style.MORE[0]}
  lines = {str(style.line_of(variant)) for variant in ("id_seen", "id_unseen", "rule_ood")}
  assert len(lines) == 3 and style.line_of("id_seen") == "-"


def test_where_training_is_on_another_variant_the_usual_one_is_a_shift():
  inside, shift = (style.line_of(variant, ("rule_ood",)) for variant in ("rule_ood", "id_seen"))
  assert inside == "-" and shift == style.line_of("rule_ood")


def test_there_are_colours_for_any_number_of_methods():
  assert len(style.method_colours(dict.fromkeys(map(str, range(40))), "0")) == 40


def test_labels_that_would_touch_are_moved_apart():
  figure, axes = style.new_figure(1, 1)
  axis = axes[0, 0]
  axis.set_ylim(0, 1)
  style.end_labels(axis, [(1, y, str(y), "black") for y in (0.98, 0.99, 0.5, 0.51, 0.0)])
  heights = sorted(text.xy[1] for text in axis.texts)
  assert all(b - a >= 0.06 - 1e-9 for a, b in zip(heights, heights[1:], strict=False)) and heights[-1] <= 1
  style.end_labels(axis, [])


def test_a_label_inside_a_panel_stands_below_the_lines_that_pass_and_one_at_its_edge_stays():
  figure, axes = style.new_figure(1, 1)
  axis = axes[0, 0]
  axis.set(xlim=(0, 100), ylim=(0, 1))
  passing = [((0, 100), (0.9, 0.8))]
  lowered = style.free_height(axis, 20, 0.9, "PPO", 0.06, passing)
  assert 0.7 < lowered < 0.84
  assert style.free_height(axis, 99, 0.9, "PPO", 0.06, passing) == 0.9
  assert style.free_height(axis, 20, 0.5, "PPO", 0.06, passing) == 0.5
  assert style.free_height(axis, 20, 0.9, "PPO", 0.06, [((0, 100), (y, y)) for y in np.arange(0, 1, 0.02)]) == 0.9


def test_a_group_of_panels_begins_a_line_and_the_lowest_ones_are_known():
  figure, groups = style.new_panels(5, 0.4, 1.0, groups=2)
  assert [len(group) for group in groups] == [5, 5] and len(figure.axes) == 10 and figure.get_figheight() == 4.4
  assert all(group[0].get_subplotspec().is_first_col() for group in groups)
  assert [style.is_lowest(axis) for axis in groups[1]] == [False, False, True, True, True]
  assert not any(map(style.is_lowest, groups[0]))
  figure, ((*_, last),) = style.new_panels(4, 0.4, 1.0)
  assert last.get_subplotspec().colspan.start == 1 and style.is_lowest(last)


def test_a_legend_has_as_few_lines_as_fit_and_ends_inside_the_figure():
  long = ["a look that has a long name"]
  for texts, lines in ((["ID", "OOD, other words"], 1), (5 * long, 2), (7 * long, 3)):
    figure, _ = style.new_figure(1, 1)
    style.key(figure, [(text, style.RL, "-", 2.0) for text in texts])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    assert len({round(text.get_window_extent().y0) for text in legend.get_texts()}) == lines
