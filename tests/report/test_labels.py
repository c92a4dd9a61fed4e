import math

from sftrl_jax.report import labels


def test_numbers_read_with_their_signs_and_units():
  assert labels.points(0.082) == "+8.2" and labels.points(-0.262) == "−26.2" and labels.points(math.nan) == "–"
  assert labels.points_range(-0.01, 0.02) == "−1.0 to +2.0" and labels.percent(0.5) == "50.0%"
  assert labels.flops_text(2.4e12) == "2.4e12" and labels.seconds_text(3725) == "1 h 2 min"
  assert labels.seconds_text(59.7) == "1 min 0 s" and labels.count(1, "base") == "1 base"


def test_text_of_runs_is_made_safe_and_short():
  assert labels.plain("a\x00\x1b[1m\u202eb\n") == "a\ufffd\ufffd[1m\ufffdb\n"
  assert len(labels.plain("x" * 10**6)) < 5000
  assert labels.drawn("$\\frac") == r"\$\frac"


def test_the_stack_of_verdicts_follows_the_environment():
  known = labels.verdicts(("illegal", "correct", "value"))
  assert known == (*labels.CODES, labels.OTHER_CODES)
  own = labels.verdicts(("wrong", "correct", "too late", "wrong"))
  assert [(name, codes) for name, _, codes in own] == [
    ("correct", ("correct",)), ("wrong", ("wrong",)), ("too late", ("too late",)), ("other", ())]
  assert len({colour for _, colour, _ in own}) == 4
  assert len(labels.verdicts(map(str, range(50)))) == len(labels.WRONG) + 1
