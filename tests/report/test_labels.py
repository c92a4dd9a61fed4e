import math

from sftrl_jax.report import labels
from sftrl_jax.report.figures import style


def test_numbers_read_with_their_signs_and_units():
  assert labels.points(0.082) == "+8.2" and labels.points(-0.262) == "−26.2" and labels.points(math.nan) == "–"
  assert labels.points_range(-0.01, 0.02) == "−1.0 to +2.0" and labels.percent(0.5) == "50.0%"
  assert labels.flops_text(2.4e12) == "2.4e12" and labels.seconds_text(3725) == "1 h 2 min"
  assert labels.seconds_text(59.7) == "1 min 0 s" and labels.count(1, "base") == "1 base"


def test_text_of_runs_is_made_safe_and_short():
  assert labels.plain("a\x00\x1b[1m\u202eb\n") == "a\ufffd\ufffd[1m\ufffdb\n"
  assert len(labels.plain("x" * 10**6)) < 5000
  assert labels.drawn("$\\frac") == r"\$\frac"


def test_colour_is_the_method_and_line_the_distribution():
  assert style.method_colours({"ppo": "", "sft": "", "grpo": ""}, "sft") == {
    "ppo": style.RL, "sft": style.SFT, "grpo": style.MORE[0]}
  lines = {str(style.line_of(variant)) for variant in ("id_seen", "id_unseen", "rule_ood")}
  assert len(lines) == 3 and style.line_of("id_seen") == "-"


def test_the_stack_of_verdicts_follows_the_environment():
  known = labels.verdicts(("illegal", "correct", "value"))
  assert known == (*labels.CODES, labels.OTHER_CODES)
  own = labels.verdicts(("wrong", "correct", "too late", "wrong"))
  assert [(name, codes) for name, _, codes in own] == [
    ("correct", ("correct",)), ("wrong", ("wrong",)), ("too late", ("too late",)), ("other", ())]
  assert len({colour for _, colour, _ in own}) == 4
  assert len(labels.verdicts(map(str, range(50)))) == len(labels.WRONG) + 1


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
