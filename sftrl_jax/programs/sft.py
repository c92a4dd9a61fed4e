"""Supervised fine-tuning, pre-training of a base included: read demonstrations, step, evaluate."""

from pathlib import Path

from ml_collections import ConfigDict

from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.learner import make_sft_learner
from sftrl_jax.programs.harness.run_tasks import with_tasks
from sftrl_jax.programs.loop import row_training, sft_data
from sftrl_jax.programs.loop.pairs import sampling

MEASURED = ("mean_token_accuracy",)   # of rows that are held out


def run(config: ConfigDict, workdir: Path) -> None:
  """Trains config.steps updates of config.batch packed rows, or until config.flops are spent."""
  experiment = sampling.charged(with_tasks(build_experiment(config, "sft", workdir)))
  # What is particular to SFT: the loss, and where a batch comes from.
  row_training.train(experiment, make_sft_learner(experiment), sft_data.make_sft_data, workdir, MEASURED)
