"""The counter of compilations: the proof that a loop compiles nothing leans on it."""

import jax
import jax.numpy as jnp

from sftrl_jax.training import compile_count


def test_a_new_program_counts_once_and_a_known_one_not_at_all():
  double = jax.jit(lambda x: x * 2.0 + 17.5)
  short, long = jnp.zeros(5), jnp.zeros(6)
  before = compile_count.count()
  double(short)
  assert compile_count.count() == before + 1
  double(short)
  assert compile_count.count() == before + 1
  double(long)
  assert compile_count.count() == before + 2
