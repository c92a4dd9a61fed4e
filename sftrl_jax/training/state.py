"""The train state: arrays only, born sharded."""

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from sftrl_jax.parallel import mesh as meshes, rules


@struct.dataclass
class TrainState:
  step: jax.Array  # int32: optimizer updates so far
  params: dict  # {"model": ...}, and {"value": ...} with a value head
  opt_state: optax.OptState


def create(params: dict, optimizer: optax.GradientTransformation) -> TrainState:
  return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def shardings(params: dict, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
  """Where every array of a state goes; parameters by the rules, optimizer slots with their parameters."""
  abstract = jax.eval_shape(lambda p: create(p, optimizer), params)
  placed = rules.shardings(abstract.params, mesh)
  return TrainState(meshes.replicated(mesh), placed, rules.like_parameters(abstract.opt_state, placed, mesh))


def born(params: dict, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
  """A state on the mesh from given parameters. The parameters are copied: the state's will be donated."""
  where = shardings(params, optimizer, mesh)
  make = jax.jit(lambda p: create(jax.tree.map(jnp.copy, p), optimizer), out_shardings=where)
  return make(params)
