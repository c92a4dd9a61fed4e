"""Every refusal names the field, the value and the rule."""

import numpy as np
import pytest

from sftrl_jax.envs import fields


def test_integers():
  assert type(fields.integer("cards", np.int32(3), 2, 5)) is int
  for value in (1, 6, 3.0, "3", True, None):
    with pytest.raises(ValueError, match=r"cards is .* from 2 to 5"):
      fields.integer("cards", value, 2, 5)


def test_reals():
  assert type(fields.real("holdout", 1, "use 0.25")) is float
  for value in (float("nan"), float("inf"), "0.5", True, None, 1j):
    with pytest.raises(ValueError, match="use 0.25"):
      fields.real("holdout", value, "use 0.25")


def test_choices():
  assert fields.choice("deck", "52", ("uniform", "52")) == "52"
  for value in ("Uniform", 52, None, ["52"]):
    with pytest.raises(ValueError, match="'uniform', '52'"):
      fields.choice("deck", value, ("uniform", "52"))


def test_items():
  assert fields.items("faces", [1, 2], 2, "two") == (1, 2)
  for value in ([1], "12", {1, 2}, 5):
    with pytest.raises(ValueError, match="list or tuple of 2"):
      fields.items("faces", value, 2, "two")


def test_flags():
  assert fields.flag("legacy", True) is True
  for value in (1, "True", None):
    with pytest.raises(ValueError, match="legacy is .* True or False"):
      fields.flag("legacy", value)
