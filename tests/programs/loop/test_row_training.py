"""Training on given rows: what is done before the first batch is paid for once, also over a resume."""

from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.learner import make_sft_learner
from sftrl_jax.programs.loop import row_training, sft_data


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


def test_psft_scores_every_step_and_is_resumed_with_the_bits_of_a_run_that_was_not_stopped(
    tiny, run_of, lines_of, tmp_path):
  config = lambda steps: tiny("sft", steps=steps, sft__loss="psft", sft__minibatches=2, evals__variants="()",
                              checkpoint__every=1, optimizer__learning_rate=0.01)
  run_of(config(2), tmp_path / "straight")
  run_of(config(1), tmp_path / "resumed")
  run_of(config(2), tmp_path / "resumed")
  first, second = lines_of(tmp_path / "straight", "metrics.jsonl")
  same = lines_of(tmp_path / "resumed", "metrics.jsonl")
  for name in ("loss", "loss/nll", "val/ratio", "grad_norm", "compute/total_flops"):
    assert [line[name] for line in same] == [first[name], second[name]]
  assert first["val/ratio_max"] > 1 and second["compute/score_flops"] == 2 * first["compute/score_flops"] > 0
  assert first["compute/train_flops"] == 3 * first["compute/score_flops"]
