"""Axes ours and theirs: one is the other, moved and joined."""

import numpy as np
import pytest

from sftrl_jax.checkpoints.families import FAMILIES, names_of
from sftrl_jax.checkpoints.families.table import LLAMA, Tensor
from sftrl_jax.models.vision.mllama.model import MllamaConfig


def test_heads_are_rows_of_the_weight_there_and_an_axis_here():
  tensor, weight = Tensor("q", "dhc -> hc d"), np.arange(24).reshape(6, 4)
  kernel = tensor.inward(weight, (4, 3, 2))
  assert tensor.shape((4, 3, 2)) == (6, 4) and kernel[1, 2, 0] == weight[2 * 2 + 0, 1]
  assert np.shares_memory(kernel, weight)


@pytest.mark.parametrize("axes, ours", [("dhc -> hc d", (4, 3, 2)), ("hcd -> d hc", (3, 2, 4)), ("hc -> hc", (3, 2)),
                                        ("df -> f d", (4, 5)), ("vd -> v d", (5, 4)), ("d -> d", (4,))])
def test_out_and_in_again_is_where_it_began(axes, ours):
  tensor, array = Tensor("x", axes), np.arange(np.prod(ours)).reshape(ours)
  there = tensor.outward(array)
  assert there.shape == tensor.shape(ours) and there.flags.c_contiguous
  np.testing.assert_array_equal(tensor.inward(there, ours), array)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_two_parameters_are_the_same_part_of_a_tensor(family):
  config = MllamaConfig(vocab=300) if family == "mllama" else None   # which of its layers are which is in its config
  parts = [(tensor.name, tensor.part, tensor.numbers) for tensor in names_of(FAMILIES[family], config).values()]
  assert len(set(parts)) == len(parts) >= len(LLAMA) - 2   # OLMo 2 has two norms fewer
