"""Where decoding's arrays lie: the weights, which are moved there once per policy update, and the cache."""

import functools

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sftrl_jax.models import DecoderConfig, Model, cache as caches
from sftrl_jax.parallel import mesh as meshes, rules


def axes(gather: bool) -> dict:
  """The mesh axes by which decoding is computed.

  Split over fsdp too, a device reads its share of each matrix a token and the devices exchange activations, which are
  small; gathered over fsdp, it reads whole matrices (but for tensor) and exchanges nothing over fsdp.
  """
  return rules.GATHERED_AXES if gather else rules.STATIONARY_AXES


def weights(model: Model, mesh: Mesh, gather: bool = False):
  """The shardings of decoding parameters."""
  shapes = jax.eval_shape(lambda: model.decoding(model.init(jax.random.key(0))))   # also for devices that are not here
  return rules.shardings({"model": shapes}, mesh, axes(gather))["model"]


def mover(model: Model, mesh: Mesh, gather: bool = False):
  """jit: training parameters of `model` -> decoding parameters: adapters merged, layers apart, cast, where they belong.
  """
  return jax.jit(model.decoding, **({} if mesh.size == 1 else {"out_shardings": weights(model, mesh, gather)}))


def cache(config: DecoderConfig, mesh: Mesh) -> caches.Cache:
  """Shardings of a cache: rows over all devices that read rows, kv heads over tensor if there are enough of them.

  Said, not left to XLA: another split is another program.
  """
  rows, whole = meshes.by_rows(mesh), meshes.replicated(mesh)
  if config.kv_heads % mesh.shape["tensor"]:
    return caches.Cache(rows, rows, rows, rows, whole)
  heads = NamedSharding(mesh, PartitionSpec(*meshes.ROWS, rules.MESH_AXES["across"]))
  return caches.Cache(heads, heads, rows, rows, whole)


def decoded(function, gather: bool = False):
  """The function, traced under the rules of decoding."""

  @functools.wraps(function)
  def under(*args, **kwargs):
    with rules.applied(axes(gather)):
      return function(*args, **kwargs)

  return under
