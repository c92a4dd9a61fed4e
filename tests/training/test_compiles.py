"""The counter of compilations: the proof that a loop compiles nothing leans on it."""

import jax
import jax.numpy as jnp

from sftrl_jax.training import compiles


def test_a_new_program_counts_once_and_a_known_one_not_at_all():
  double = jax.jit(lambda x: x * 2.0 + 17.5)
  short, long = jnp.zeros(5), jnp.zeros(6)
  before = compiles.count()
  double(short)
  assert compiles.count() == before + 1
  double(short)
  assert compiles.count() == before + 1
  double(long)
  assert compiles.count() == before + 2
