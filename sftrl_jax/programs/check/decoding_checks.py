"""Is what decodes the model that trains? Greedy decoding against the full forward, the sampler's log-probabilities
against the train step's, on the run's own mesh, shapes and parameters."""

import functools
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sftrl_jax.inputs import Inputs
from sftrl_jax.parallel import hosts
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.programs.check.expert_episodes import CheckFailed
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.loop.rollout_batch import env_seed
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.episodes import Episode
from sftrl_jax.rollout.exchange import PlayContext, play_together
from sftrl_jax.training.score import make_score

# How far two ways to compute one logit may be apart, as a share of the logits' spread (their standard deviation) there.
# f32 rounds at 2^-24 and bf16 at 2^-8; a decoder rounds dozens of times, and the worst of thousands of tokens counts.
TOLERANCE = {"float32": 1e-3, "bfloat16": 1e-1}
WAY_OUT = ("what decodes is not what trains: a model family of your own must change hidden and extend alike, and "
           "unembedding for both")


def episodes_of(experiment: Experiment, params: dict, temperature: float) -> tuple[list[Episode], float]:
  """(training's first episodes, as many as are decoded together; the seconds they took)."""
  actor, seed = experiment.actor, experiment.seed
  numbers, began = range(actor.rollout.rows), time.perf_counter()
  context = PlayContext(experiment.env, actor, actor.compiled.to_decoding(params), jax.random.key(seed), temperature,
                        actor.group)
  episodes, _ = play_together(context, numbers, [env_seed(experiment, number) for number in numbers])
  return episodes, time.perf_counter() - began


def greedy_is_the_argmax(experiment: Experiment, params: dict, episodes: Sequence[Episode]) -> str:
  """Every greedy token against the logits of one full forward over its chat."""
  live, placed, _ = _rows(experiment, episodes)
  gaps, spreads = (array_BT[live] for array_BT in hosts.whole_arrays(_ranked(experiment.model)(params, *placed)))
  far, allowed = float((gaps / np.maximum(spreads, 1e-30)).max()), tolerance(dtype(experiment))
  measured = (f"{np.mean(gaps == 0):.2%} of {len(gaps)} greedy tokens are the argmax, the worst is {gaps.max():.1e} "
              f"below it: {far:.1e} of the logits' spread (allowed: {allowed:g})")
  if not far <= allowed:
    raise CheckFailed(measured, WAY_OUT)
  return measured


def probabilities_agree(experiment: Experiment, params: dict, episodes: Sequence[Episode]) -> str:
  """The sampler's log-probabilities of its tokens against those of the graph that is trained."""
  live, placed, sampled_BT = _rows(experiment, episodes)
  temperature = experiment.actor.rollout.temperature
  score = jax.jit(make_score(experiment.model, temperature, experiment.compute.logit_chunk))
  gaps = np.abs(hosts.whole_arrays(score({"model": params}, *placed).logprobs_BT) - sampled_BT)[live]
  spread = float(hosts.whole_arrays(_ranked(experiment.model)(params, *placed)[1])[live].mean()) / temperature
  share = tolerance(dtype(experiment))
  measured = (f"log-probabilities of {len(gaps)} sampled tokens differ by {gaps.max():.1e} at most and "
              f"{gaps.mean():.1e} on average (allowed: {share * spread:.1e}, which is {share:g} of the logits' spread)")
  if not gaps.max() <= share * spread:
    raise CheckFailed(measured, WAY_OUT)
  return measured


def dtype(experiment: Experiment) -> str:
  """The coarser one of training and decoding."""
  both = experiment.model.config.dtype, experiment.actor.decoder.config.dtype
  return "bfloat16" if "bfloat16" in both else both[0]


def tolerance(dtype: str) -> float:
  """A share of the spread. Accelerators round f32 products too, unless jax_default_matmul_precision forbids it."""
  exact = jax.default_backend() == "cpu" or jax.config.jax_default_matmul_precision in ("highest", "float32")
  return TOLERANCE[dtype if exact else "bfloat16"]


def _rows(experiment: Experiment, episodes):
  """(where a sampled token is the target, the rows on the mesh, the sampler's log-probabilities)."""
  rows = collect.rows(episodes, experiment.actor.row_len(), [()] * len(episodes))
  return rows.mask_BT > 0, shard_rows(experiment.mesh, (rows.inputs, rows.targets_BT)), rows.sampled_logprobs_BT


@functools.cache
def _ranked(model):
  """jit: (gap_BT, spread_BT) of the full forward: how far the target's logit is below the largest, and the standard
  deviation of the logits. A column at a time, so that logits_BTV never exist."""

  def rank(params: dict, inputs: Inputs, targets_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden_BTD = model.hidden(params, inputs)

    def column(hidden_and_targets: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
      hidden_BD, targets_B = hidden_and_targets
      logits_BV = model.unembed(params, hidden_BD)[:, : model.ids or None]
      chosen_B = jnp.take_along_axis(logits_BV, targets_B[:, None], axis=-1)[:, 0]
      return logits_BV.max(-1) - chosen_B, logits_BV.std(-1)

    gap_TB, spread_TB = jax.lax.map(column, (hidden_BTD.swapaxes(0, 1), targets_BT.T))
    return gap_TB.T, spread_TB.T

  return jax.jit(rank)
