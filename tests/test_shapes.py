"""Names say shapes, and the shapes are held to the names."""

import pathlib
import re
import tokenize

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.shapes import LEGEND, LEGEND_OF_STATISTICS, check

PACKAGE = pathlib.Path(__file__).parents[1] / "sftrl_jax"


def test_every_letter_gets_its_size():
  sizes = check(tokens_BT=np.zeros((2, 3)), hidden_BTD=np.zeros((2, 3, 5)), loss_=np.zeros(()))
  assert sizes == {"B": 2, "T": 3, "D": 5}


def test_one_letter_has_one_size():
  with pytest.raises(ValueError, match=r"mask_BT has T=4 where T=3 was expected; its shape is \(2, 4\)"):
    check(tokens_BT=np.zeros((2, 3)), mask_BT=np.zeros((2, 4)))
  with pytest.raises(ValueError, match="square_TT has T=3 where T=2"):
    check(square_TT=np.zeros((2, 3)))


@pytest.mark.parametrize("shape", [(), (2,), (2, 3, 4)])
def test_there_is_a_letter_for_every_axis(shape):
  with pytest.raises(ValueError, match="tokens_BT should have 2 dimensions"):
    check(tokens_BT=np.zeros(shape))


def test_a_broadcast_axis_has_size_one():
  assert check(scale_B1=np.zeros((3, 1)))["B"] == 3
  with pytest.raises(ValueError, match="scale_B1 has 1=2 where 1=1"):
    check(scale_B1=np.zeros((3, 2)))


def test_it_runs_while_tracing():
  @jax.jit
  def add(left_BT, right_BT):
    check(left_BT=left_BT, right_BT=right_BT)
    return left_BT + right_BT

  assert add(jnp.ones((2, 3)), jnp.ones((2, 3))).sum() == 12
  with pytest.raises(ValueError, match="right_BT"):
    add(jnp.ones((2, 3)), jnp.ones((2, 1)))


def suffixes(path):
  """{name: letters} of the array names of a file. Constants are capitals throughout and no arrays of this kind."""
  with path.open("rb") as file:
    names = {token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.NAME}
  matches = {name: re.fullmatch(r"[a-z0-9_]*[a-z][a-z0-9_]*_([A-Z0-9]*[A-Z][A-Z0-9]*)", name) for name in names}
  return {name: match[1] for name, match in matches.items() if match}


def test_every_axis_in_the_code_is_in_the_legend():
  seen = set()
  for path in sorted(PACKAGE.rglob("*.py")):
    of_runs = path.is_relative_to(PACKAGE / "report") or path.is_relative_to(PACKAGE / "forecast")
    legend = LEGEND_OF_STATISTICS if of_runs else LEGEND
    for name, letters in suffixes(path).items():
      assert set(letters) <= set(legend), f"{path}: {name} has an axis that is not in the legend of shapes.py."
      seen |= {(id(legend), letter) for letter in letters}
  assert len(seen) > 15
