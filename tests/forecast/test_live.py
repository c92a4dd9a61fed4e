"""What a run says of its end, by its evals.jsonl."""

import json
import re

import pytest

from sftrl_jax.forecast.live import line

RATES = {"id_seen": (0.3, 0.5, 0.62, 0.7), "rule_ood": (0.3, 0.28, 0.22, 0.15)}


def records(points=4, temperatures=(0.0, 1.0), **fields):
  return [{"step": point, "variant": variant, "temperature": temperature, "flops": 1e11 * point, "episodes": 500,
           "successes": round(500 * rates[point] * (1 - temperature / 2)), **fields}
          for point in range(points) for variant, rates in RATES.items() for temperature in temperatures]


@pytest.fixture
def write(tmp_path):
  def write(lines, end=""):
    path = tmp_path / "evals.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in lines) + end)
    return path
  return write


def numbers(text, variant):
  return tuple(map(int, re.search(rf"{variant} (\d+)% \((\d+) to (\d+)\)", text).groups()))


def test_the_end_of_every_variant_is_forecast_greedy(write):
  text = line(write(records()), 6e11)
  assert text.startswith("forecast of success at 6.00e+11 FLOPs (80% band): id_seen ")
  middle, low, high = numbers(text, "id_seen")
  assert low <= middle <= high and 70 <= middle <= 85
  assert numbers(text, "rule_ood")[0] < 15
  assert numbers(line(write(records(temperatures=(1.0,))), 6e11), "id_seen")[0] < 50   # where nothing is greedy


def test_too_few_evaluations_say_nothing(write, tmp_path):
  assert line(write(records(3)), 6e11) == "" and line(write([]), 6e11) == ""
  assert line(tmp_path / "none.jsonl", 1.0) == ""
  assert line(write(records()), 3e11) == ""   # nor does a run at its end


def test_lines_of_another_kind_and_torn_ones_are_left_out(write):
  whole = line(write(records()), 6e11)
  lines = [*records(probe=True), *records(verifies=False), {"pairs": 3, "variant": "id_seen"}, [], 7,
           *({**record, "variant": "ema:id_seen", "successes": 0} for record in records())]
  assert line(write([*lines, *records()], '{"step": 4, "vari'), 6e11) == whole
  assert line(write([*records(), {**records()[0], "flops": 1e999}, {**records()[0], "successes": 501}]), 6e11) == whole


def test_the_order_of_lines_is_nothing(write):
  def parts(text):
    return sorted(text.partition("band): ")[2].split(", "))
  assert parts(line(write(records()), 6e11)) == parts(line(write(records()[::-1]), 6e11))


def test_a_line_stays_a_line(write):
  many = [{**record, "variant": f"variant_{number}"} for number in range(30) for record in records() if
          record["variant"] == "id_seen"]
  assert line(write(many), 6e11).count("%") == 1 + 6
