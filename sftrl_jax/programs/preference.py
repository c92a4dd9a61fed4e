"""Learning from pairs of responses, of which one is preferred: DPO, or a reward model."""

from pathlib import Path

from ml_collections import ConfigDict

from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.learner import make_preference_learner
from sftrl_jax.programs.harness.run_tasks import with_tasks
from sftrl_jax.programs.loop import row_training, sft_data
from sftrl_jax.programs.loop.pairs import accuracy, reference, reward_scale, sampling

MEASURED = ("rewards/accuracies", "rewards/margins")   # of pairs that are held out


def run(config: ConfigDict, workdir: Path) -> None:
  """Trains config.steps updates of config.batch rows of pairs, or until config.flops are spent."""
  # What is particular to preferences: pairs, perhaps sampled first; the loss; what the start says of the pairs; the
  # scale of a reward model's scores.
  experiment = sampling.with_pairs(with_tasks(build_experiment(config, "preference", workdir)), workdir)
  learner = make_preference_learner(experiment)
  parts = {"prepare": reference.scored_by_start(experiment)} if learner.score_rows else {}
  if experiment.head_layers is not None:
    parts = {"prepare": reward_scale.charged(experiment), "conclude": reward_scale.written(experiment)}
  row_training.train(experiment, learner, sft_data.make_pair_data, workdir, MEASURED, **parts,
                     make_measure_variants=accuracy.make_measure_variants)
