"""configs/TRL.md says what our defaults are."""

import ast
import dataclasses
import pathlib
import re

from sftrl_jax.data.rows import RowsConfig
from sftrl_jax.programs.experiment.sections import SHARED
from sftrl_jax.training.algorithms import ALGORITHMS
from sftrl_jax.training.optimizers import catalogue

PAGE = pathlib.Path(__file__).parents[1] / "configs" / "TRL.md"
ROW = re.compile(r"^\| [^|]+ \| [^|]* \| `([a-z_]+)\.([a-z_0-9.]+)` \| `([^`]+)` \|$", re.MULTILINE)


def test_every_row_has_the_default_of_our_key():
  page = PAGE.read_text()
  sections = {name: kind for name, kind in SHARED.items() if dataclasses.is_dataclass(kind)}
  sections |= {"data": RowsConfig, **{name: algorithm.section for name, algorithm in ALGORITHMS.items()}}
  rows = ROW.findall(page)
  assert len(rows) == sum(line.startswith("| ") and "| TRL |" not in line for line in page.splitlines()) > 35
  for section, key, value in rows:
    args = catalogue.entry("adamw").args if key.startswith("args.") else {
        field.name: field.default for field in dataclasses.fields(sections[section])}
    assert args[key.removeprefix("args.")] == ast.literal_eval(value), f"{section}.{key}"
