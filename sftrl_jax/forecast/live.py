"""What a run says after an evaluation: where its success will be at the end of its budget, by its evals.jsonl alone."""

import contextlib
import json
import math
from pathlib import Path

from sftrl_jax import jsonl
from sftrl_jax.forecast.sigmoid import LEVEL, Curve, band, fit

MOST_VARIANTS = 6   # a line stays a line


def line(path: Path, end: float) -> str:
  """The forecast of greedy success, or of the lowest temperature, by variant; "" with too few evaluations.

  path: evals.jsonl
  end: FLOPs at the end of the run
  """
  curves = {}
  lines = _lines(path)
  lowest = min((line["temperature"] for line in lines), default=0.0)
  for record in lines:
    if record["temperature"] == lowest:
      curves.setdefault(record["variant"], {})[record["flops"]] = record   # of two at one step, the later one
  parts = []
  for variant, records in list(curves.items())[:MOST_VARIANTS]:
    columns = [tuple(record[key] for record in records.values()) for key in ("flops", "successes", "episodes")]
    forecast = fit(Curve(*columns))
    if forecast and end > max(columns[0]):
      low, middle, high = (100 * value for value in band(forecast.measured(end, columns[2][-1])))
      parts.append(f"{variant} {middle:.0f}% ({low:.0f} to {high:.0f})")
  return f"forecast of success at {end:.2e} FLOPs ({LEVEL:.0%} band): {', '.join(parts)}" if parts else ""


def _lines(path: Path) -> list[dict]:
  """The lines of what was trained for and of its shifts; a torn line, and one that says no success, is none."""
  lines = []
  for text in (text for file in jsonl.files(path) for text in jsonl.read_text(file).splitlines()):
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
      record = json.loads(text)
      numbers = [float(record[key]) for key in ("flops", "successes", "episodes", "temperature")]
      own = not record.get("probe") and record.get("verifies", True) and not str(record["variant"]).startswith("ema:")
      flops, right, episodes, _ = numbers
      if own and all(map(math.isfinite, numbers)) and flops >= 0 and 0 <= right <= episodes and episodes:
        lines.append({**dict(zip(("flops", "successes", "episodes", "temperature"), numbers, strict=True)),
                      "variant": str(record["variant"])})
  return lines
