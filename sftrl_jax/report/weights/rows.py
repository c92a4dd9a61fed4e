"""weights.json of a workdir, checked, and summed over the layers and kernels of a part of the model."""

import math
import pathlib
from collections.abc import Iterable, Sequence

from sftrl_jax.report.figures.rows import Row
from sftrl_jax.report.labels import plain
from sftrl_jax.report.read_workdir import MEND_LINE, read_json
from sftrl_jax.report.records import Study, number

NAME = "weights.json"
PARTS = {"embedding": "embedding", "attention": "attention", "mlp": "MLP", "head": "head", "norm": "norms, biases",
         "vision": "vision tower"}
SPECTRAL = ("spectrum", "left", "right")
MEASURES = ("distance", "relative", "moved", *SPECTRAL)
MOST_ROWS = 100_000
WHOLE = "all"


def read(directory: pathlib.PurePath) -> list[Row]:
  """The rows of a run's weights.json, [] without the file: part, layer, numbers, norm, distance, moved, and spectrum,
  left and right, NaN where there are none. ValueError naming file, row and rule for a damaged file."""
  path = directory / NAME
  if not path.is_file():
    return []
  written = read_json(path).get("rows")
  if not isinstance(written, list) or len(written) > MOST_ROWS:
    raise ValueError(f"{path}: rows must be a list of at most {MOST_ROWS} rows. {MEND_LINE}")
  return [_row(row, f"{path} row {index + 1}") for index, row in enumerate(written)]


def _row(row: object, where: str) -> Row:
  if not isinstance(row, dict) or row.get("part") not in PARTS:
    raise ValueError(f"{where} must be an object whose part is one of {', '.join(PARTS)}. {MEND_LINE}")
  numbers = {name: number(row.get(name)) for name in ("layer", "numbers", "norm", "distance", "moved")}
  for name, value in numbers.items():
    if not value >= 0:
      raise ValueError(f"{where}: {name} is {plain(row.get(name), 40)}; it must be a number of at least 0. {MEND_LINE}")
  return {"path": plain(row.get("path", ""), 200), "part": row["part"], **numbers,
          **{name: number(row.get(name)) for name in SPECTRAL}}


def summed(rows: Sequence[Row]) -> dict[str, float]:
  """MEASURES of some rows together, {} without rows.

  distance: root of the sum of squares. relative: the same of the norm at the start. moved: share of the numbers.
  spectrum, left, right: means over matrices
  """
  if not rows:
    return {}
  distance, norm = (math.sqrt(sum(row[name] ** 2 for row in rows)) for name in ("distance", "norm"))
  return {"distance": distance, "relative": distance / norm if norm else math.nan,
          "moved": sum(row["moved"] for row in rows) / max(1.0, sum(row["numbers"] for row in rows)),
          **{name: mean(row[name] for row in rows) for name in SPECTRAL}}


def by_part(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
  """{part, or WHOLE: `summed`}."""
  parts = {part: summed([row for row in rows if row["part"] == part]) for part in PARTS}
  return {part: values for part, values in {**parts, WHOLE: summed(rows)}.items() if values}


def by_layer(rows: Sequence[Row], group: str = "", base: str = "mean") -> list[Row]:
  """What the figure draws: group, base, part, layer, and MEASURES, a row a part and layer."""
  places = sorted({(list(PARTS).index(row["part"]), row["layer"]) for row in rows})
  return [{"group": group, "base": base, "part": list(PARTS)[part], "layer": int(layer),
           **summed([row for row in rows if (row["part"], row["layer"]) == (list(PARTS)[part], layer)])}
          for part, layer in places]


def study_rows(study: Study) -> dict[str, dict[int, list[list[Row]]]]:
  """{method: {base: the rows of each finished run of it that has some}}."""
  table = {}
  for (base, method, _), run in study.runs.items():
    rows = read(run.directory) if run.finished else []
    if rows:
      table.setdefault(method, {}).setdefault(base, []).append(rows)
  return {method: table[method] for method in study.methods if method in table}


def mean(values: Iterable[float]) -> float:
  """Of the finite ones; NaN without any."""
  finite = [value for value in values if math.isfinite(value)]
  return sum(finite) / len(finite) if finite else math.nan
