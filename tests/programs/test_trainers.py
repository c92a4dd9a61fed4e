"""A kind of training and its program have one name."""

import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sftrl_jax.programs import rl, sft
from sftrl_jax.programs.experiment import learner
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.trainers import TRAINERS


def test_every_kind_of_training_has_the_program_of_its_name():
  assert set(TRAINERS) == set(KINDS)
  assert TRAINERS["sft"] is sft.run and TRAINERS["rl"] is rl.run


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


def test_a_policy_that_is_never_right_stays_as_it_is_and_ends_the_run(tiny, run_of, lines_of, tmp_path):
  config = tiny("self_sft", steps=9, max_without_signal=3, checkpoint__every=1, evals__variants="()",
                optimizer__weight_decay=0.1, optimizer__learning_rate=0.01)
  with pytest.raises(RuntimeError, match="in each of the last 3 steps no response could be imitated"):
    run_of(config, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path, 1), params_of(tmp_path, 2))
  assert all(line["loss"] == line["label_tokens"] == 0 for line in lines_of(tmp_path, "metrics.jsonl"))
