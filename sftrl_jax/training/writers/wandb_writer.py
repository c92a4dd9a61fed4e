"""Scalars for Weights & Biases (extra `wandb`)."""

import os
import sys
import tempfile
from pathlib import Path

from sftrl_jax import paths
from sftrl_jax.training.writers.sent_scalars import SentScalars, recorded_config

FINISH_SECONDS = 120.0   # to upload what is left at the end; what is not uploaded then stays for `wandb sync`


class WandbWriter:
  """One W&B run a workdir, by the id in WORKDIR/wandb.json; a resumed run continues it.

  W&B's own environment variables choose project (else sftrl-jax), entity, host and mode: WANDB_MODE=offline writes to
  WORKDIR/wandb alone, for `wandb sync`. Charts are drawn over the run's own `step`.
  """

  package = "wandb"

  def __init__(self, workdir: Path, step: int):
    import wandb
    self._sent = SentScalars(workdir / "wandb.json", step)
    folder = os.environ.get("WANDB_DIR") or (workdir if paths.is_here(workdir) else tempfile.mkdtemp())
    try:
      self._run = wandb.init(
          project=os.environ.get("WANDB_PROJECT", "sftrl-jax"), id=self._sent.run_id, resume="allow",
          name=os.environ.get("WANDB_NAME", workdir.name), config=recorded_config(workdir), dir=str(folder),
          settings=wandb.Settings(console="off", finish_timeout=FINISH_SECONDS))
    except wandb.errors.Error as error:
      raise ValueError(f"config.log.writers names wandb, which cannot start: {str(error).rstrip('.')}. Run `wandb "
                       "login`, set WANDB_MODE=offline, or leave wandb out of config.log.writers.") from error
    # W&B's own step may not go back, and a resumed evaluation adds to the step of its checkpoint.
    self._run.define_metric("step")
    self._run.define_metric("*", step_metric="step")

  def scalars(self, step: int, values: dict[str, float]) -> None:
    if unsent := self._sent.unsent(step, values):
      self._run.log({**unsent, "step": step})
      self._sent.add(step, unsent)

  def close_part(self) -> None:
    self._sent.save()

  def close(self) -> None:
    """Marks the W&B run as failed where an error ends the run."""
    self._run.finish(exit_code=int(isinstance(sys.exc_info()[1], Exception)))
