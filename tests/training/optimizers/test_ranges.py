"""Every argument of every optimizer has a range: outside it the argument is refused by name, inside it updates are
finite."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.training.optimizers import ranges
from sftrl_jax.training.optimizers.catalogue import catalogue
from sftrl_jax.training.optimizers.optimizer import OptimizerConfig, make_optimizer
from sftrl_jax.training.optimizers.ranges import Range

ENTRIES = catalogue().entries
NUMBERS = [(name, key) for name, entry in ENTRIES.items() for key, kind in entry.kinds.items() if kind in (int, float)]


def test_every_argument_has_a_range_or_choices_or_is_a_switch():
  for name, entry in ENTRIES.items():
    for key, kind in entry.kinds.items():
      known = key in ranges.RANGES or key in ranges.CHOICES or (name, key) in ranges.OF_OPTIMIZER
      assert known or kind is bool or key in ("base_optimizer", "preconditioning"), (name, key)
  OptimizerConfig("adamw", args={"b1": 0.0, "eps": 1e-16})


def test_defaults_are_in_their_ranges():
  for name, entry in ENTRIES.items():
    ranges.refuse(name, entry.given)


@pytest.mark.parametrize("bad", (math.nan, math.inf, -math.inf, 1e300, "x", True))
def test_what_is_no_finite_number_is_refused_by_name(bad):
  for name, key in NUMBERS:
    with pytest.raises(ValueError, match=rf"^args\.{key} is {re.escape(repr(bad))}"):
      ranges.refuse(name, {key: bad})


def test_a_number_outside_is_refused_by_name_and_the_others_are_taken():
  """-1 is right for one argument, which says from where decay counts; 1.5 for those that are no share."""
  for name, key in NUMBERS:
    for value in (-1, -1.5, 1.5, 0):
      try:
        ranges.refuse(name, {key: value})
      except ValueError as error:
        assert str(error).startswith(f"args.{key} is {value}; it must "), error
        continue
      assert value >= 0 or key == "decay_offset", (name, key, value)
      assert value != 1.5 or not key.startswith(("b1", "b2", "b3", "adam_b", "eps", "momentum")), (name, key)
      assert value or key not in ("rank", "ns_steps", "estim_lr0"), (name, key)


@pytest.mark.parametrize("name, key, value, message", [
    ("adamw", "b2", 1.5, r"^args.b2 is 1.5; it must lie in \[0, 1\)\.$"),
    ("adamw", "b1", 1 - 1e-12, r"^args.b1 is 0.999999999999, which is 1 in float32; it must lie in \[0, 1\)"),
    ("adamw", "eps", -1.0, r"^args.eps is -1.0; it must lie in \[0, 1\]"),
    ("prodigy", "eps", 1e-50, r"^args.eps is 1e-50, which is 0 in float32; it must lie in \(0, 1\]"),
    ("prodigy", "eps", 1e-40, r"^args.eps is 1e-40.*it must lie in \(0, 1\]"),
    ("adamw", "mu_dtype", "int8", "^args.mu_dtype is 'int8'; it must be one of float32, bfloat16, float16"),
    ("ademamix", "mu_dtype", "bfloat16", "^args.mu_dtype is 'bfloat16'; it must be one of float32"),
    ("prodigy", "betas", (0.9, 1.0), r"^args.betas is 1.0; it must lie in \[0, 1\)"),
    ("dog", "init_step", ("heuristic", 0.0), "^args.init_step is 0.0; it must be positive"),
    ("dog", "init_step", ("x", 1.0), "^args.init_step is 'x'; it must be one of distance"),
    ("muon", "ns_coeffs", "foo", "^args.ns_coeffs is 'foo'; it must be one of standard, dion"),
    ("muon", "ns_coeffs", (1.0, 2.0), "^args.ns_coeffs is .* it must be three numbers"),
    ("muon", "ns_coeffs", (1.0, 2.0, math.nan), "^args.ns_coeffs is nan; it must be finite"),
    ("rprop", "min_step_size", 1.0, "^args.min_step_size is 1.0; it must be at most args.max_step_size = 0.01"),
    ("radam", "threshold", 3.0, "^args.threshold is 3.0; it must be at least 4"),
    ("galore", "rank", 0, "^args.rank is 0; it must be at least 1"),
    ("adafactor", "decay_offset", 5, "^args.decay_offset is 5; it must be at most 0"),
    ("schedule_free_adamw", "b1", 0.0, r"^args.b1 is 0.0; it must lie in \[0.01, 1\)")])
def test_refusals(name, key, value, message):
  with pytest.raises(ValueError, match=message):
    OptimizerConfig(name, args={key: value})


@pytest.mark.parametrize("name, args", [
    ("adamw", {"eps": 1e-37}), ("adamw", {"b1": 0.0, "b2": 0.0}), ("radam", {"threshold": 4.0}),
    ("adafactor", {"decay_rate": 0.0, "decay_offset": -3}), ("schedule_free_adamw", {"b1": 0.01}),
    ("mechanize", {"num_betas": 7}), ("cocob", {"eps": 1e-15}), ("dog", {"init_step": ("distance", 1e-6)})])
def test_the_ends_of_a_range_give_finite_updates(name, args):
  optimizer = make_optimizer(OptimizerConfig(name, args=args), lambda n: 1e-3)
  params = {"model": {"embed": jnp.ones((3, 4))}}
  grads = {"model": {"embed": jnp.zeros((3, 4)).at[0].set(0.1)}}   # rows of words that a batch does not have are 0

  def body(_, carry):
    updates, state = optimizer.update(grads, carry[1], carry[0])
    return jax.tree.map(jnp.add, carry[0], updates), state

  params, state = jax.jit(lambda p: jax.lax.fori_loop(0, 4, body, (p, optimizer.init(p))))(params)
  for leaf in jax.tree.leaves((params, state)):
    assert np.isfinite(np.asarray(leaf, np.float32)).all()


def test_an_epsilon_of_0_is_taken_with_a_warning():
  """Adam with eps 0 is right where no gradient is 0; where one is, the train step skips the update."""
  assert "config.optimizer.args.eps is 0.0: where a gradient is 0" in ranges.warning("adamw", {"eps": 0.0})
  assert not ranges.warning("adamw", {"eps": 0.0, "eps_root": 1e-8}) and not ranges.warning("sgd", {"momentum": 0.9})
  assert not any(ranges.warning(name, entry.given) for name, entry in ENTRIES.items())


def test_ranges_are_written_as_a_rule():
  assert str(Range(1, 7)) == "lie in [1, 7]" and str(Range(1.0, open_low=True)) == "be above 1"
