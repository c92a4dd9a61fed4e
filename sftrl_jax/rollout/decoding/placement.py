"""Shardings of decoding: of the weights, which are moved once per policy update, and of the cache."""

import functools
from collections.abc import Callable

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sftrl_jax.models import DecoderConfig, Model
from sftrl_jax.models.cache import Cache, Pictures
from sftrl_jax.parallel import rules
from sftrl_jax.parallel.mesh import ROWS, by_rows, replicated


def decoding_axes(gather: bool) -> dict:
  """The mesh axes of decoding.

  With weights split over fsdp too, a device reads its share of each matrix a token, and the devices exchange
  activations, which are small. With weights gathered over fsdp, it reads whole matrices (but for tensor) and exchanges
  nothing over fsdp.
  """
  return rules.GATHERED_AXES if gather else rules.STATIONARY_AXES


def param_shardings(model: Model, mesh: Mesh, gather: bool = False) -> dict:
  """The shardings of decoding parameters."""
  shapes = jax.eval_shape(lambda: model.decoding(model.init(jax.random.key(0))))   # no arrays: a plan has no devices
  return rules.shardings({"model": shapes}, mesh, decoding_axes(gather))["model"]


def to_decoding_fn(model: Model, mesh: Mesh, gather: bool = False) -> Callable:
  """jit: training parameters of `model` -> decoding parameters: adapters merged, layers unstacked, cast and sharded."""
  return jax.jit(model.decoding, **({} if mesh.size == 1 else {"out_shardings": param_shardings(model, mesh, gather)}))


def cache_shardings(config: DecoderConfig, mesh: Mesh) -> Cache:
  """Shardings of a cache: rows over all devices that read rows, kv heads over tensor if there are enough of them.

  They are stated and not left to XLA, because programs that hand a cache on must agree on them.
  """
  rows, whole = by_rows(mesh), replicated(mesh)
  divided = not config.kv_heads % mesh.shape["tensor"]
  heads = NamedSharding(mesh, PartitionSpec(*ROWS, rules.MESH_AXES["across"])) if divided else rows
  pictures = Pictures(heads, heads, rows, rows, rows, rows) if hasattr(config, "picture_columns") else None
  return Cache(heads, heads, rows, rows, whole, pictures)


def with_decoding_rules(function: Callable, gather: bool = False) -> Callable:
  """The function, traced under the rules of decoding."""

  @functools.wraps(function)
  def traced(*args, **kwargs) -> object:
    with rules.applied(decoding_axes(gather)):
      return function(*args, **kwargs)

  return traced
