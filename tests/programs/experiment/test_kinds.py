"""Every kind of training is whole: a schema that shares what is shared, a check, a learner."""

import dataclasses
import pathlib

import pytest

from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.experiment.run_config import VERB_OF_KEY
from sftrl_jax.programs.experiment.sections import SHARED

METHODS = {"sft": "sft", "rl": "rl"}   # of the fixture `tiny`, one for each kind that needs an environment
ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def config_of(tiny):
  """config_of(verb) -> the resolved config of a small run of that kind."""
  reward = f"{ROOT / 'configs' / 'preference' / 'reward.py'}:smoke"
  return lambda verb: tiny(METHODS[verb]) if verb in METHODS else run_config.resolve_for(
      verb, resolve.load(reward), [], lambda _: None)


def test_schemas_share_what_is_shared():
  assert {*METHODS, "preference"} == KINDS.keys()
  for kind in KINDS.values():
    assert kind.schema.items() >= SHARED.items()
  own = [kind.schema.keys() - SHARED.keys() for kind in KINDS.values()]
  assert all(own) and not set.intersection(*map(set, own))


def test_a_config_of_a_kind_is_known_by_a_key_that_only_its_schema_has():
  for key, verb in VERB_OF_KEY.items():
    assert verb == "study" or [name for name, kind in KINDS.items() if key in kind.schema] == [verb]


@pytest.mark.parametrize("verb", KINDS)
def test_a_learner_has_rows_that_its_updates_divide(config_of, verb):
  experiment = build_experiment(config_of(verb), verb)
  learner = KINDS[verb].make_learner(experiment)
  assert learner.rows == experiment.batch and learner.length > 1
  assert learner.minibatch * learner.minibatches == learner.rows and learner.updates >= 1
  assert (learner.score_rows is not None) == KINDS[verb].plays_episodes


@pytest.mark.parametrize("verb", METHODS)
def test_a_kind_refuses_what_has_nothing_to_learn_from(tiny, verb):
  experiment = build_experiment(tiny(METHODS[verb]), verb)
  nothing = dataclasses.replace(experiment, config={**experiment.config, "env": {"name": "none"}})
  with pytest.raises(ValueError, match=f"config.env.name is 'none', but {verb} needs something to learn from"):
    KINDS[verb].check(nothing)
