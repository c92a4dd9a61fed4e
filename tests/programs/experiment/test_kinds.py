"""Every kind of training is whole: a schema that shares what is shared, a check, a learner. And runs of the algorithms
of rl that imitate, in small."""

import dataclasses
import pathlib
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sftrl_jax.envs.referee import TaskError
from sftrl_jax.models import flops
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


def test_a_teacher_reads_a_demonstration_and_a_resume_reads_it_again(rewriters, tiny, run_of, lines_of, tmp_path):
  """Episodes of several chats, each with the demonstration of its own hand. Before it the start is its own teacher."""
  config = lambda **keys: tiny("distill", env__name=f"{rewriters}:Hands", env__attempts=4, evals__variants="()",
                               checkpoint__every=1, compute__lengths=2, model__layers=2, **keys)
  alone, shown = config(), config(teacher__demonstration="expert")
  run_of(alone, tmp_path / "alone")
  assert abs(lines_of(tmp_path / "alone", "metrics.jsonl")[0]["loss"]) < 1e-6
  run_of(shown, tmp_path / "straight")
  first, second = lines_of(tmp_path / "straight", "metrics.jsonl")
  assert first["loss"] > 1e-5 and first["compile/count"] == second["compile/count"]
  shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
  shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "2")
  run_of(shown, tmp_path / "resumed")
  jax.tree.map(np.testing.assert_array_equal, *(params_of(tmp_path / home, 2) for home in ("straight", "resumed")))
  experiment = build_experiment(shown, "rl")
  rows, length, prefix = (of := learner.make_rl_learner(experiment)).rows, of.length, experiment.prefix_tokens
  assert prefix == experiment.actor.rollout.prompt_tokens + experiment.actor.rollout.max_new_tokens
  more = flops.forward(experiment.model.config, rows * (prefix + length), prefix + length, unembedded=rows * length)
  more -= flops.forward(experiment.model.config, rows * length, length)
  plain = learner.make_rl_learner(build_experiment(alone, "rl")).flops.train
  assert of.flops.train == pytest.approx(plain + more)


def test_an_episode_whose_demonstration_has_no_room_is_left_out_and_counted(tiny, run_of, lines_of, tmp_path):
  """Demonstrations have 22 or 24 tokens: of the episodes of this seed, four have 24 in the first step, and then three.
  More room may be given to a run that goes on."""
  config = lambda room, **keys: tiny("distill", evals__variants="()", teacher__demonstration="expert", seed=7,
                                     teacher__demonstration_tokens=room, checkpoint__every=1, **keys)
  with pytest.raises(TaskError, match="demonstration_tokens is 23, .*use .*=24 or more(.|\\n)*config.max_dropped is 4"):
    run_of(config(23, max_dropped=4), tmp_path)
  run_of(config(24, max_dropped=4), tmp_path)
  assert [line["dropped/demonstration"] for line in lines_of(tmp_path, "metrics.jsonl")] == [4, 4]


def test_what_cannot_be_demonstrated_is_refused_before_anything_compiles(tiny, words_reward, tmp_path):
  shown = dict(teacher__demonstration="expert", evals__variants="()")
  experiment = build_experiment(tiny("distill", **shown), "rl")
  seeing = dataclasses.replace(experiment, tokenizer=dataclasses.replace(experiment.tokenizer, reader=object()))
  with pytest.raises(ValueError, match="demonstration is 'expert', which is text, but config.model.name is 'de"):
    KINDS["rl"].check(seeing)
  rows = tmp_path / "rows.jsonl"
  rows.write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
  with pytest.raises(ConfigError, match="demonstration is 'expert', but there is none to read: .*has no res"):
    build_experiment(tiny("distill", dict(name="prompts", path=str(rows), held_out=0.0), tokenizer__name="bytes",
                          reward=words_reward, rollout__prompt_tokens=16, **shown), "rl")


def test_a_policy_that_is_never_right_stays_as_it_is_and_ends_the_run(tiny, run_of, lines_of, tmp_path):
  config = tiny("self_sft", steps=9, max_without_signal=3, checkpoint__every=1, evals__variants="()",
                optimizer__weight_decay=0.1, optimizer__learning_rate=0.01)
  with pytest.raises(RuntimeError, match="in each of the last 3 steps no response could be imitated"):
    run_of(config, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path, 1), params_of(tmp_path, 2))
  assert all(line["loss"] == line["label_tokens"] == 0 for line in lines_of(tmp_path, "metrics.jsonl"))
