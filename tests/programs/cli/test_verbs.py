"""The table of verbs: each is whole, and its usage names every word that it takes."""

import pytest

from sftrl_jax.programs.cli import commands
from sftrl_jax.programs.cli.verbs import VERBS


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_is_whole(name):
  verb = VERBS[name]
  assert verb.run.__module__ == commands.__name__ and verb.meaning and verb.usage
  assert set(verb.required) <= set(verb.flags) and set(verb.repeated) <= set(verb.flags)
  assert verb.positionals[0] <= verb.positionals[1]
  for word in (*verb.flags, *verb.switches):
    assert word.startswith("--") and word in verb.usage, f"{word} of {name} is not in its usage"
  assert not set(verb.flags) & set(verb.switches)


def test_the_verbs_of_the_contract_are_there():
  assert {"study", "sft", "rl", "evaluate", "sample", "data", "convert", "plan", "bench", "report", "check",
          "configs"} <= VERBS.keys()
