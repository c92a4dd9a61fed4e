"""Checks of an environment's fields: every error names the field, its value, the rule and a way out."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any


def integer(name: str, value: Any, low: int, high: int) -> int:
  """`value` as an int within [low, high]; ValueError otherwise (a bool is not an int here)."""
  if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= value <= high:
    raise ValueError(f"{name} is {value!r}, but it must be an integer from {low} to {high}.")
  return int(value)


def real(name: str, value: Any, way_out: str) -> float:
  """`value` as a finite float; ValueError otherwise."""
  if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
    raise ValueError(f"{name} is {value!r}, but it must be a finite number: {way_out}.")
  return float(value)


def choice(name: str, value: Any, options: Sequence[str]) -> str:
  """`value` if it is one of `options`; ValueError otherwise."""
  if not isinstance(value, str) or value not in options:
    raise ValueError(f"{name} is {value!r}, but it must be one of {', '.join(map(repr, options))}.")
  return value


def flag(name: str, value: Any) -> bool:
  """`value` if it is True or False; ValueError otherwise."""
  if not isinstance(value, bool):
    raise ValueError(f"{name} is {value!r}, but it must be True or False.")
  return value


def items(name: str, value: Any, count: int, way_out: str) -> tuple:
  """`value`, a list or tuple of `count` items, as a tuple (lists come from JSON); ValueError otherwise."""
  if not isinstance(value, (list, tuple)) or len(value) != count:
    raise ValueError(f"{name} is {value!r}, but it must be a list or tuple of {count} items: {way_out}.")
  return tuple(value)
