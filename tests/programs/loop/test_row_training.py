"""Training on given rows: what is done before the first batch is paid for once, also over a resume."""

import json

import jax
import numpy as np
import pytest

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.learner import make_sft_learner
from sftrl_jax.programs.loop import row_training, sft_data
from sftrl_jax.programs.start import initial_params

OLD_RULES = {"data__length": 80, "data__mix__share": 0.25,
             "data__mix__data": "{'attempts': (0.5, 0.5), 'careless': 0.5}",
             "data__mix__env": "{'faces': 'mixed', 'holdout': 0.0}"}


def test_what_is_prepared_is_paid_for_once(tiny, lines_of, tmp_path):
  prepared = []

  def train(steps):
    experiment = build_experiment(tiny("sft", steps=steps, evals__variants="()", checkpoint__every=1), "sft")
    row_training.train(experiment, make_sft_learner(experiment), sft_data.make_sft_data, tmp_path,
                       ("mean_token_accuracy",), lambda data, run_state, log: prepared.append(run_state.position.step)
                       or (data, run_state, 5.0))

  train(1)
  train(3)
  lines = lines_of(tmp_path, "metrics.jsonl")
  assert prepared == [0, 1] and [line["step"] for line in lines] == [1, 2, 3]
  assert [line["compute/score_flops"] for line in lines] == [5.0] * 3
  assert all(line["compute/total_flops"] == line["compute/train_flops"] + 5.0 for line in lines)


def test_psft_with_replay_and_an_average_is_resumed_with_the_bits_of_a_run_that_was_not_stopped(
    tiny, run_of, lines_of, tmp_path):
  config = lambda steps: tiny("sft", steps=steps, sft__loss="psft", sft__minibatches=2, evals__variants="()",
                              checkpoint__every=1, optimizer__learning_rate=0.01, ema__decay=0.5, **OLD_RULES)
  run_of(config(2), tmp_path / "straight")
  run_of(config(1), tmp_path / "resumed")
  run_of(config(2), tmp_path / "resumed")
  first, second = lines_of(tmp_path / "straight", "metrics.jsonl")
  same = lines_of(tmp_path / "resumed", "metrics.jsonl")
  for name in ("loss", "loss/nll", "val/ratio", "grad_norm", "compute/total_flops"):
    assert [line[name] for line in same] == [first[name], second[name]]
  experiment = build_experiment(config(2), "sft")
  load = lambda name: initial_params.load_start(f"{tmp_path / name}", experiment.model, 0, experiment.mesh)
  leaves = [jax.tree.leaves(load(name)) for name in ("straight:ema", "resumed:ema", "straight", "straight@1:ema")]
  alike = [all(map(np.array_equal, leaves[0], other)) for other in leaves]
  assert alike == [True, True, False, False]
  assert first["val/ratio_max"] > 1 and second["compute/score_flops"] == 2 * first["compute/score_flops"] > 0
  assert first["compute/train_flops"] == 3 * first["compute/score_flops"]


def test_replay_is_the_rows_of_both_sources_and_without_a_share_nothing_changes(tiny):
  def batches(**keys):
    experiment = build_experiment(tiny("sft", evals__variants="()", **keys), "sft")
    return sft_data.make_sft_data(experiment).batches, experiment

  length = OLD_RULES["data__length"]
  (mixed, experiment), (new, _), (off, _), (plain, _) = (batches(**keys) for keys in (
      OLD_RULES, dict(batch=12, data__length=length), {**OLD_RULES, "data__mix__share": 0.0},
      dict(data__length=length)))
  (batch, cursors), (first, cursor) = mixed(0), new(0)
  rows = lambda batch, span: [leaf[span] for leaf in jax.tree.leaves(batch)]
  equal = lambda a, b: all(map(np.array_equal, a, b))
  assert equal(rows(batch, slice(12)), rows(first, slice(None))) and cursors[0] == cursor
  assert (batch.weights_BT[12:] > 0).any(axis=1).all() and not equal(rows(batch, slice(12, 16)), rows(first, slice(4)))
  assert equal(rows(mixed(json.loads(json.dumps(cursors)))[0], slice(12)), rows(new(cursor)[0], slice(None)))
  assert equal(rows(off(0)[0], slice(None)), rows(plain(0)[0], slice(None)))
  assert "4 of 16 rows of every batch (25.0%) are replay: demonstrations" in " ".join(experiment.notes)


@pytest.mark.parametrize("keys, words", [
    ({"data__mix__data": "{'careles': 0.5}"}, "config.data.mix.data.careles"),
    ({"data__mix__env": "{'face': 10}"}, "config.data.mix.env"),
    ({"data__mix__data": "{'attempts': (0, 0, 1)}"}, "config.data.attempts has 3 entries"),
    ({"data__mix__data": "{'path': 'gone.jsonl'}"}, "config.data.mix.env is"),
    ({"data__length": 24}, "example of data.mix has")])
def test_a_second_source_that_cannot_be_read_is_refused_before_anything_is_compiled(tiny, keys, words):
  with pytest.raises(ConfigError, match=words):
    build_experiment(tiny("sft", evals__variants="()", **{**OLD_RULES, **keys}), "sft")
