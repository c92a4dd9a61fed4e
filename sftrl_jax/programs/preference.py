"""Learning from pairs of responses, of which one is preferred: DPO, or a reward model."""

from pathlib import Path

from ml_collections import ConfigDict

from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.learner import make_preference_learner
from sftrl_jax.programs.loop import reference, row_training, sft_data

MEASURED = ("rewards/accuracies", "rewards/margins")   # of pairs that are held out


def run(config: ConfigDict, workdir: Path) -> None:
  """Trains config.steps updates of config.batch rows of pairs, or until config.flops are spent."""
  experiment = build_experiment(config, "preference", workdir)
  learner = make_preference_learner(experiment)
  # What is particular to preferences: the loss, batches of pairs, and what the start says of them.
  compares = {"prepare": reference.scored_by_start(experiment)} if learner.score_rows else {}
  row_training.train(experiment, learner, sft_data.make_pair_data, workdir, MEASURED, **compares)
