"""The train state: arrays only, created sharded, and the parameters that a run is evaluated with."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh
from optax import contrib

from sftrl_jax.parallel import rules
from sftrl_jax.parallel.mesh import replicated


@struct.dataclass
class TrainState:
  """All arrays that training changes."""

  step: jax.Array  # int32: optimizer updates so far
  params: dict  # {"model": ...} or the adapters alone, {"lora": ...}; {"value": ...} with a value head, {"critic": ...}
  opt_state: optax.OptState


def create(params: dict, optimizer: optax.GradientTransformation) -> TrainState:
  """The state before the first update."""
  return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def shardings(params: dict, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
  """The sharding of every array of a state: parameters by the rules, optimizer slots like their parameters."""
  abstract = jax.eval_shape(lambda p: create(p, optimizer), params)
  placed = rules.shardings(abstract.params, mesh)
  return TrainState(replicated(mesh), placed, rules.like_parameters(abstract.opt_state, placed, mesh))


def create_sharded(params: dict, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
  """A state on the mesh from given parameters. The parameters are copied: the state's will be donated."""
  return init_fn(optimizer, shardings(params, optimizer, mesh))(params)


def init_fn(optimizer: optax.GradientTransformation, shardings: TrainState) -> Callable[[dict], TrainState]:
  """The jitted function of `create_sharded`: parameters -> a state with these shardings."""
  return jax.jit(lambda p: create(jax.tree.map(jnp.copy, p), optimizer), out_shardings=shardings)


def evaluated(state: TrainState) -> dict:
  """The parameters to play and evaluate with: the state's own, but the average under a schedule-free optimizer."""
  averages = _averages(state.opt_state)
  if not averages:
    return state.params

  def average(z: jax.Array | optax.MaskedNode, y: jax.Array) -> jax.Array:  # a frozen parameter has no z
    return y if isinstance(z, optax.MaskedNode) else contrib.schedule_free_eval_params(
        averages[0]._replace(z=z), y).astype(y.dtype)

  return jax.tree.map(average, averages[0].z, state.params, is_leaf=lambda z: isinstance(z, optax.MaskedNode))


def is_averaged(state: TrainState) -> bool:
  """Whether `evaluated` differs from the trained parameters; reads no array."""
  return bool(_averages(state.opt_state))


def storable(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
  """The optimizer with random keys as plain bits in its state: checkpoints and checksums take plain arrays only."""
  is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
  bits = lambda tree: jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)

  def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> tuple:
    like = jax.eval_shape(optimizer.init, params)
    state = jax.tree.map(lambda x, shape: jax.random.wrap_key_data(x) if is_key(shape) else x, state, like)
    updates, state = optimizer.update(updates, state, params)
    return updates, bits(state)

  return optax.GradientTransformation(lambda params: bits(optimizer.init(params)), update)


def _averages(opt_state) -> list:
  is_average = lambda x: isinstance(x, contrib.ScheduleFreeState)
  return [x for x in jax.tree.leaves(opt_state, is_leaf=is_average) if is_average(x)]
