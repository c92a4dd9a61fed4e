"""The scale of a reward model: mean and deviation of its scores over training responses, in WORKDIR/reward_scale.json,
beside the FLOPs of its run.

Only differences of scores are learned, and a coefficient of a KL penalty means nothing before these have a unit. Who
plays for the model's rewards uses (r - mean) / sd, and is warned where these lie outside [lowest, highest].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sftrl_jax.data import packing
from sftrl_jax.models import flops, heads
from sftrl_jax.objectives.batches import PairBatch
from sftrl_jax.parallel import hosts
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.network.reward_model import SCALE
from sftrl_jax.programs.loop import sft_data
from sftrl_jax.programs.loop.run_state import RunState
from sftrl_jax.programs.loop.sft_data import SftData
from sftrl_jax.training.log import Log, write_json
from sftrl_jax.training.score import make_score

FILE = SCALE
PAIRS = 1024   # the first ones of training


def charged(experiment: Experiment) -> Callable[[SftData, RunState, Log], tuple[SftData, RunState, float]]:
  """(data, run state, log) -> (data, run state, FLOPs of the scores that `written` will need).

  They are known before the first step, with which they are counted, so that they are in the budget of the run.
  """

  def prepare(data: SftData, run_state: RunState, log: Log) -> tuple[SftData, RunState, float]:
    if log.writes and not experiment.limits.over(run_state.position):
      (run_state.workdir / FILE).unlink(missing_ok=True)   # of an earlier end of this run
    spans, rows = _spans(experiment, data), sft_data.rows_at_once(experiment)
    config, length = experiment.model.config, experiment.data.length
    tokens = -(-len(spans) // rows) * rows * length
    head = 2.0 * tokens * heads.matmul_parameters(config.width, experiment.head_layers)
    return data, run_state, flops.forward(config, tokens, length) + flops.pictures(config, tokens // length) + head

  return prepare


def written(experiment: Experiment) -> Callable[[SftData, RunState, Log], None]:
  """(data, run state, log) -> None: scores the responses by the parameters that the run ends with, and writes the
  scale. RuntimeError where a score is not finite."""

  def conclude(data: SftData, run_state: RunState, log: Log) -> None:
    log.progress("score", run_state.position, "scale of the scores", force=True)
    scores_N = _scores(experiment, data, run_state.eval_params(run_state.state), log)
    scale = scale_of(scores_N)
    if log.writes:
      position = run_state.position
      write_json(run_state.workdir / FILE, {**scale, "step": position.step, "flops": position.total_flops})
    log.say(f"{run_state.workdir}: scores of {scale['count']:,} training responses have mean {scale['mean']:.3g} and "
            f"deviation {scale['sd']:.3g} ({FILE}).")

  return conclude


def scale_of(scores_N: np.ndarray) -> dict[str, float]:
  """{"mean", "sd", "lowest", "highest", "count"} of raw scores; lowest and highest are of (r - mean) / sd.

  Where all scores are equal, sd is 0 and so are both.
  """
  scores_N = np.asarray(scores_N, np.float64)
  if not np.isfinite(scores_N).all():
    raise RuntimeError(f"{(~np.isfinite(scores_N)).sum()} of {scores_N.size} scores of training responses are not "
                       "finite: begin again with a lower config.optimizer.learning_rate.")
  mean, sd = float(scores_N.mean()), float(scores_N.std())
  scaled_N = (scores_N - mean) / sd if sd > 0 else np.zeros_like(scores_N)
  return {"mean": mean, "sd": sd, "lowest": float(scaled_N.min()), "highest": float(scaled_N.max()),
          "count": int(scores_N.size)}


def score_last(score: Callable) -> Callable[[dict, PairBatch], jax.Array]:
  """(params, batch) -> scores_BS: the value at the last token of every side. score: of training/score.py"""

  def score_last(params: dict, batch: PairBatch) -> jax.Array:
    values_BT = score(params, batch.inputs, batch.targets_BT).values_BT
    return batch.by_side(jnp.where(batch.last_BT > 0, values_BT, 0.0))

  return score_last


def _scores(experiment: Experiment, data: SftData, params: dict, log: Log) -> np.ndarray:
  corpus, rows, length = data.corpus, sft_data.rows_at_once(experiment), experiment.data.length
  spans, scores, compiled = _spans(experiment, data), [], None
  function = score_last(make_score(experiment.model, chunk=experiment.compute.logit_chunk))
  for first in range(0, len(spans), rows):
    some = spans[first : first + rows]
    batch = shard_rows(experiment.mesh, corpus.laid(some, rows, length))
    compiled = compiled or jax.jit(function).lower(params, batch).compile()
    scores_BS = hosts.whole_arrays((compiled(params, batch),))[0]
    scores += [scores_BS[row, : 2 * len(span)] for row, span in enumerate(some)]
    log.heartbeat()
  return np.concatenate(scores)


def _spans(experiment: Experiment, data: SftData) -> list[np.ndarray]:
  """The first pairs of training, row by row."""
  section, corpus = experiment.data, data.corpus
  trained = packing.split(corpus, section.validation)[0][:PAIRS]
  members, ends = packing.packed(corpus.sizes, trained, section.length, section.pack, corpus.most,
                                corpus.pictured)
  return np.split(members, ends[:-1])
