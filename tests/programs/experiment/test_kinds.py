"""Every kind of training is whole: a schema that shares what is shared, a check, a learner. And runs of the algorithms
of rl that imitate, in small."""

import dataclasses
import pathlib
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import learner, run_config
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


def params_of(workdir, step):
  path = workdir / "checkpoints" / str(step) / "state"
  return jax.device_get(ocp.StandardCheckpointer().restore(path.absolute()))["params"]


@pytest.mark.parametrize("method", ["self_sft", "dagger"])
def test_what_is_imitated_is_learned_without_a_score(rewriters, tiny, run_of, lines_of, tmp_path, method):
  """Episodes of several chats, some of whose responses are right. What a seed draws is drawn again by a resume."""
  config = tiny(method, env__name=f"{rewriters}:Hands", env__attempts=4, evals__variants="()", checkpoint__every=1,
                compute__lengths=2)
  run_of(config, tmp_path / "straight")
  first, second = lines_of(tmp_path / "straight", "metrics.jsonl")
  assert first["compile/count"] == second["compile/count"]
  assert first["objective/signal"] == second["objective/signal"] == 1
  assert first["compute/score_flops"] == 0 < first["label_tokens"] and first["loss"] > 0
  assert not {"val/ratio", "objective/kl", "sampling/sampling_logp_difference/max"} & first.keys()
  if method == "dagger":
    assert first["label_tokens"] >= 8 * 5   # a response of the expert for every episode, however the policy's ends
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "2")
    run_of(config, tmp_path / "resumed")
    jax.tree.map(np.testing.assert_array_equal, *(params_of(tmp_path / home, 2) for home in ("straight", "resumed")))


def test_a_policy_learns_from_a_teacher_whose_pass_is_charged(finished, tiny, run_of, lines_of, tmp_path):
  config = lambda start: tiny("distill", teacher__start=start, evals__variants="()", compute__lengths=2)
  run_of(config(finished("sft")), tmp_path)
  lines = lines_of(tmp_path, "metrics.jsonl")
  assert len({line["compile/count"] for line in lines}) == 1
  for line in lines:
    assert line["loss"] > 0 and line["objective/signal"] == 1 and line["compute/score_flops"] == 0
  learned = learner.make_rl_learner(build_experiment(config("scratch"), "rl")).flops.train
  plain = learner.make_rl_learner(build_experiment(tiny("dagger", compute__lengths=2), "rl")).flops.train
  assert learned == pytest.approx(4 / 3 * plain)   # of a teacher of its size
  of_rows = lambda **keys: learner.make_sft_learner(build_experiment(tiny("sft", **keys), "sft")).flops.train
  assert of_rows(sft__loss="distill", teacher__start="scratch") == pytest.approx(4 / 3 * of_rows())
  for keys in ({"sft__loss": "distill"}, {"teacher__start": "scratch"}):
    with pytest.raises(ConfigError, match="config.teacher.start is"):
      build_experiment(tiny("sft", **keys), "sft")


def test_a_policy_that_is_never_right_stays_as_it_is_and_ends_the_run(tiny, run_of, lines_of, tmp_path):
  config = tiny("self_sft", steps=9, max_without_signal=3, checkpoint__every=1, evals__variants="()",
                optimizer__weight_decay=0.1, optimizer__learning_rate=0.01)
  with pytest.raises(RuntimeError, match="in each of the last 3 steps no response could be imitated"):
    run_of(config, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path, 1), params_of(tmp_path, 2))
  assert all(line["loss"] == line["label_tokens"] == 0 for line in lines_of(tmp_path, "metrics.jsonl"))
