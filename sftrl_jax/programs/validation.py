"""The loss on rows that are held out: metrics `eval/...`, written whenever a run is evaluated."""

from collections.abc import Callable

import jax

from sftrl_jax.data import packing
from sftrl_jax.metrics import floats, merge
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.programs.setup import Parts
from sftrl_jax.programs.supply import Supply


def make_measure(parts: Parts, supply: Supply, loss, session) -> Callable[[dict], dict[str, float]] | None:
  """measure(params) -> {"eval/loss", "eval/mean_token_accuracy"} over every held-out example; None where none is.

  loss: (params, batch) -> (Mean, metrics), of training. Compiled now, for as many rows as a microbatch has.
  """
  if supply.held is None or not len(supply.held):
    return None
  data, rows = parts.settings["data"], parts.config["batch"] // parts.settings["compute"].microbatches
  rows = rows if rows % meshes.rows(parts.mesh) == 0 else parts.config["batch"]
  batches = lambda: packing.held_batches(supply.corpus, data, supply.held, rows)

  def sums(params, batch):
    value, metrics = loss(params, batch)
    return {"eval/loss": value, "eval/mean_token_accuracy": metrics["mean_token_accuracy"]}

  example = meshes.place(parts.mesh, next(batches()))
  compiled = jax.jit(sums).lower(session.judged(session.state), example).compile()

  def measure(params) -> dict[str, float]:
    total = None
    for batch in batches():
      found = jax.device_get(compiled(params, meshes.place(parts.mesh, batch)))
      total = found if total is None else merge(total, found)
    return floats(total)

  return measure
