"""The table of starts names what optax has, and gives reasons that a person can read."""

import inspect

from sftrl_jax.training.optimizers.catalogue import makers
from sftrl_jax.training.optimizers.recommended import GROUPS, REFUSED, STARTS, WRAPPERS


def test_the_table_names_what_optax_has_and_arguments_that_it_takes():
  factories = makers()
  for names in (STARTS, REFUSED, WRAPPERS):
    assert names.keys() <= factories.keys()
  for name, start in STARTS.items():
    assert start.args.keys() <= inspect.signature(factories[name]).parameters.keys(), name
    assert start.learning_rate > 0
  assert len(STARTS) == sum(map(len, GROUPS.values()))
  assert not STARTS.keys() & (REFUSED.keys() | WRAPPERS.keys()) and not REFUSED.keys() & WRAPPERS.keys()


def test_a_reason_is_one_sentence():
  for reason in (*REFUSED.values(), *WRAPPERS.values()):
    assert reason.endswith(".") and 20 < len(reason) < 200 and ". " not in reason
