"""Names say shapes, and the shapes are held to the names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.shapes import check


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
