"""Do decoding and training compute the same model? Compares greedy decoding with the full forward, and the sampler's
log-probabilities with the train step's, on the run's own mesh, shapes and parameters."""

import functools
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sftrl_jax.inputs import Inputs
from sftrl_jax.models import Model
from sftrl_jax.parallel import hosts
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.programs.check.expert_episodes import CheckFailed
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.loop.rollout_batch import env_seed
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.episodes import Episode, by_row
from sftrl_jax.rollout.exchange import PlayContext, play_together
from sftrl_jax.training.score import make_score

# How far two ways to compute a logit may be apart, as a share of the standard deviation of the logits at that token.
# f32 rounds at 2^-24 and bf16 at 2^-8; a decoder rounds dozens of times, and the largest of thousands of gaps counts.
TOLERANCE = {"float32": 1e-3, "bfloat16": 1e-1}
WAY_OUT = ("decoding and training compute different models: a model family of your own must change hidden and extend "
           "alike, and unembedding for both")


def play_episodes(experiment: Experiment, params: dict, temperature: float) -> tuple[list[Episode], float]:
  """Plays training's first episodes, as many as are decoded together. Returns them and the seconds they took."""
  actor, seed = experiment.actor, experiment.seed
  numbers, start_time = range(actor.rollout.rows), time.perf_counter()
  context = PlayContext(experiment.env, actor, actor.compiled.to_decoding(params), jax.random.key(seed), temperature,
                        actor.group)
  episodes, _ = play_together(context, numbers, [env_seed(experiment, number) for number in numbers])
  return episodes, time.perf_counter() - start_time


def check_greedy_tokens(experiment: Experiment, params: dict, episodes: Sequence[Episode]) -> str:
  """Compares every greedily decoded token with the argmax of one full forward over its chat."""
  sampled_BT, placed, _ = _rows(experiment, episodes)
  arrays = hosts.whole_arrays(_logit_gaps(experiment.model)(params, *placed))
  gaps, spreads = (array_BT[sampled_BT] for array_BT in arrays)
  worst, allowed = float((gaps / np.maximum(spreads, 1e-30)).max()), tolerance(coarser_dtype(experiment))
  message = (f"{np.mean(gaps == 0):.2%} of {len(gaps)} greedy tokens are the argmax, the worst is {gaps.max():.1e} "
             f"below it: {worst:.1e} of the logits' spread (allowed: {allowed:g})")
  if not worst <= allowed:   # also if it is nan
    raise CheckFailed(message, WAY_OUT)
  return message


def check_logprobs(experiment: Experiment, params: dict, episodes: Sequence[Episode]) -> str:
  """Compares the sampler's log-probabilities of its tokens with those of the train step's forward."""
  sampled_BT, placed, logprobs_BT = _rows(experiment, episodes)
  temperature = experiment.actor.rollout.temperature
  score = jax.jit(make_score(experiment.model, temperature, experiment.compute.logit_chunk))
  gaps = np.abs(hosts.whole_arrays(score({"model": params}, *placed).logprobs_BT) - logprobs_BT)[sampled_BT]
  spreads_BT = hosts.whole_arrays(_logit_gaps(experiment.model)(params, *placed)[1])
  spread = float(spreads_BT[sampled_BT].mean()) / temperature
  share = tolerance(coarser_dtype(experiment))
  message = (f"log-probabilities of {len(gaps)} sampled tokens differ by {gaps.max():.1e} at most and "
             f"{gaps.mean():.1e} on average (allowed: {share * spread:.1e}, which is {share:g} of the logits' spread)")
  if not gaps.max() <= share * spread:
    raise CheckFailed(message, WAY_OUT)
  return message


def coarser_dtype(experiment: Experiment) -> str:
  """Returns the coarser dtype of training and decoding."""
  dtypes = experiment.model.config.dtype, experiment.actor.decoder.config.dtype
  return "bfloat16" if "bfloat16" in dtypes else dtypes[0]


def tolerance(dtype: str) -> float:
  """Returns the allowed gap, as a share of the logits' spread.

  Accelerators round f32 products to fewer bits too, unless jax_default_matmul_precision forbids it.
  """
  exact = jax.default_backend() == "cpu" or jax.config.jax_default_matmul_precision in ("highest", "float32")
  return TOLERANCE[dtype if exact else "bfloat16"]


def _rows(experiment: Experiment, episodes: Sequence[Episode]) -> tuple[np.ndarray, tuple, np.ndarray]:
  """Returns (where the target is a sampled token, (inputs, targets) on the mesh, the sampler's log-probabilities)."""
  count = len(episodes)   # of several chats each, the first ones are compared
  rows = collect.rows(by_row(episodes)[:count], experiment.actor.row_len(), [()] * count,
                      reader=experiment.tokenizer.reader)
  return rows.mask_BT > 0, shard_rows(experiment.mesh, (rows.inputs, rows.targets_BT)), rows.sampled_logprobs_BT


@functools.cache
def _logit_gaps(model: Model) -> Callable[[dict, Inputs, jax.Array], tuple[jax.Array, jax.Array]]:
  """jit: (params, inputs, targets_BT) -> (gap_BT, spread_BT) of the full forward.

  gap: how far the target's logit is below the largest; spread: the standard deviation of the logits. One column at a
  time, so that logits_BTV are never held whole.
  """

  def compute(params: dict, inputs: Inputs, targets_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden_BTD = model.hidden(params, inputs)

    def column(hidden_and_targets: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
      hidden_BD, targets_B = hidden_and_targets
      logits_BV = model.unembed(params, hidden_BD)[:, : model.ids or None]
      target_B = jnp.take_along_axis(logits_BV, targets_B[:, None], axis=-1)[:, 0]
      return logits_BV.max(-1) - target_B, logits_BV.std(-1)

    gap_TB, spread_TB = jax.lax.map(column, (hidden_BTD.swapaxes(0, 1), targets_BT.T))
    return gap_TB.T, spread_TB.T

  return jax.jit(compute)
