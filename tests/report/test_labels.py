import math

import pytest

from sftrl_jax.envs.general_points import env
from sftrl_jax.report import labels
from sftrl_jax.report.labels import GENERAL_POINTS


def test_numbers_read_with_their_signs_and_units():
  assert labels.points(0.082) == "+8.2" and labels.points(-0.262) == "−26.2" and labels.points(math.nan) == "–"
  assert labels.points_range(-0.01, 0.02) == "−1.0 to +2.0" and labels.percent(0.5) == "50.0%"
  assert labels.flops_text(2.4e12) == "2.4e12" and labels.seconds_text(3725) == "1 h 2 min"
  assert labels.seconds_text(59.7) == "1 min 0 s" and labels.count(1, "base") == "1 base"


def test_text_of_runs_is_made_safe_and_short():
  assert labels.plain("a\x00\x1b[1m\u202eb\n") == "a\ufffd\ufffd[1m\ufffdb\n"
  assert len(labels.plain("x" * 10**6)) < 5000
  assert labels.plot_text("$\\frac") == r"\$\frac"


def codes_of(groups):
  return [(group.label, group.codes) for group in groups]


def test_without_labels_general_points_has_its_words_and_other_codes_their_names():
  groups = GENERAL_POINTS.verdict_groups(("illegal", "correct", "value"))
  assert codes_of(groups) == [("correct", ("correct",)), ("wrong value", ("value",)),
                              ("wrong numbers", ("numbers", "misread")), ("illegal format", ("illegal",)),
                              ("other", ())]
  groups = GENERAL_POINTS.verdict_groups(("value", "correct", "too late", "value"))
  assert codes_of(groups) == [("correct", ("correct",)), ("value", ("value",)), ("too late", ("too late",)),
                              ("other", ())]
  assert len({group.colour for group in groups}) == 4
  assert len(GENERAL_POINTS.verdict_groups(map(str, range(50)))) == len(labels.WRONG_COLOURS) + 1
  assert [GENERAL_POINTS.variant(name) for name in ("rule_ood", "four\n")] == ["OOD, new rule", "four"]


def test_the_words_of_labels_json_come_in_its_order_and_other_names_stay():
  words = labels.parse_labels({"variants": {"rule_ood": "four numbers"},
                               "codes": {"late": "too late", "value": "wrong", "numbers": "wrong", "unseen": "unseen"}})
  assert [words.variant(name) for name in ("rule_ood", "id_seen")] == ["four numbers", "id_seen"]
  groups = words.verdict_groups(("numbers", "odd", "value", "correct", "late"))
  assert codes_of(groups) == [("correct", ("correct",)), ("too late", ("late",)), ("wrong", ("value", "numbers")),
                              ("odd", ("odd",)), ("other", ())]
  merged = labels.merge_labels([GENERAL_POINTS, words, labels.EnvLabels({"rule_ood": "x", "five": "y"}, {}, {
      "cards": "x", "sign": "signs read"})])
  assert merged.parts == {"cards": "hands read", "sign": "signs read"}   # those of an older version are of cards
  assert merged.variants == {"rule_ood": "four numbers", "five": "y"} and merged.codes == words.codes
  assert labels.merge_labels([GENERAL_POINTS, GENERAL_POINTS]) is GENERAL_POINTS


def test_an_environment_without_labels_keeps_its_names():
  words = labels.parse_labels({"codes": {}, "variants": {}})
  assert words.variant("id_seen") == "id_seen"
  assert codes_of(words.verdict_groups(("value", "correct"))) == [("correct", ("correct",)), ("value", ("value",)),
                                                                 ("other", ())]


def test_general_points_looks_as_in_old_reports():
  words = labels.EnvLabels(env.VARIANT_LABELS, env.CODE_LABELS)
  assert words.variants.items() <= GENERAL_POINTS.variants.items()
  for codes in (("correct", "illegal"), ("correct", "value", "numbers", "misread", "illegal")):
    assert words.verdict_groups(codes) == GENERAL_POINTS.verdict_groups(codes)


@pytest.mark.parametrize("content", [
    {}, {"codes": 3, "variants": ["a"]}, {"codes": {}}, {"codes": {}, "variants": None},
    {"codes": {}, "variants": {}, "parts": ["sign"]}])
def test_damaged_tables_are_those_of_general_points(content):
  assert labels.parse_labels(content) is GENERAL_POINTS


def test_hostile_labels_are_made_safe_and_few():
  words = labels.parse_labels({"variants": {"a": 1, "b": None, "c": [], "d": {}, "e": "", "f": " \n"}, "codes": {
      str(n): f"{n}\x1b\n\u202e" + "x" * 10**5 for n in range(10**4)}})
  assert [words.variant(name) for name in "abcdef"] == list("abcdef") and len(words.codes) == labels.MAX_LABELS
  assert all(len(label) < 50 and label.isprintable() for label in words.codes.values())
  remainder = labels.parse_labels({"variants": {}, "codes": {"a": "other"}})
  assert remainder.verdict_groups(("a",)) == (labels.REMAINDER,)
