"""One program for every number of tokens: they are computed in tiles of one size, by one loop body.

XLA rounds a product or a sum otherwise where the number of rows differs: it chooses another kernel, another blocking or
another fusion. The body of a loop that reads and writes tiles of TOKENS tokens has the same shapes whatever the batch
is, so XLA compiles it to the same instructions in every program, and what it computes of a token does not depend on how
many others there are, nor on which. So `config.compute.exact` makes sampler and trainer agree to the bit.

Parameters and tokens must be arguments of the program: what XLA knows at compile time, it computes in another way.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

TOKENS = 32   # of a tile; a multiple of every vector's length, so that no token is in a remainder


@struct.dataclass
class Order:
  """In which order tokens are computed. Those that are left out are in no tile.

  places_A: int32, numbers of tokens; to fill the last tile, and in one tile more, beyond the last token
  tiles: int32 scalar

  No compiler knows that there is one tile, if so: it would unroll the loop, or compute before the loop what does not
  change in it.
  """

  places_A: jax.Array
  tiles: jax.Array


def all_of(x: jax.Array) -> Order:
  """Every token of x [A, ...], an array of floats."""
  count = x.shape[0]
  tiles = -(-count // TOKENS)
  places_A = jnp.minimum(jnp.arange((tiles + 1) * TOKENS, dtype=jnp.int32), count)
  return Order(places_A, tiles + jnp.isnan(x.reshape(-1)[0]).astype(jnp.int32))


def ascending(keys_A: jax.Array, computed_A: jax.Array) -> Order:
  """The tokens that are to be computed, by ascending keys (int32)."""
  count = keys_A.shape[0]
  places_A = jnp.argsort(jnp.where(computed_A, keys_A, jnp.iinfo(jnp.int32).max), stable=True).astype(jnp.int32)
  number = jnp.sum(computed_A, dtype=jnp.int32)
  places_A = jnp.where(jnp.arange(count, dtype=jnp.int32) < number, places_A, count)
  return Order(jnp.pad(places_A, (0, TOKENS + -count % TOKENS), constant_values=count), -(-number // TOKENS))


def take(places_M: jax.Array, x: jax.Array) -> jax.Array:
  """The tokens of a tile, of x [A, ...]; any in place of those beyond the last."""
  return jnp.take(x, places_M, axis=0, mode="clip")


def put(places_M: jax.Array, x: jax.Array, tile: jax.Array) -> jax.Array:
  """x [A, ...] with the tokens of a tile; those beyond the last are dropped."""
  return x.at[places_M].set(tile, mode="drop")


def loop(order: Order, carry: Any, body: Callable[[jax.Array, Any], Any]) -> Any:
  """carry = body(places_M, carry), tile after tile."""
  places = lambda tile: jax.lax.dynamic_slice(order.places_A, (tile * TOKENS,), (TOKENS,))
  return jax.lax.fori_loop(0, order.tiles, lambda tile, carry: body(places(tile), carry), carry)


def each(function: Callable[..., jax.Array], order: Order, x: jax.Array) -> jax.Array:
  """function(tile of x) [M, ...] of all tokens of x [A, ...], 0 for those that are left out."""
  shape = jax.eval_shape(function, jax.ShapeDtypeStruct((TOKENS, *x.shape[1:]), x.dtype))
  blank = jnp.zeros((x.shape[0], *shape.shape[1:]), shape.dtype)
  return loop(order, blank, lambda places_M, out: put(places_M, out, function(take(places_M, x))))


def each_of_last_axis(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
  """function([M, D]) -> [M, V] of all vectors along the last axis of x."""
  flat = x.reshape(-1, x.shape[-1])
  count = flat.shape[0]
  flat = jnp.pad(flat, ((0, 1), (0, 0))) if count == 1 else flat   # an index into one place is no index to XLA
  return each(function, all_of(flat), flat)[:count].reshape(*x.shape[:-1], -1)


def value_and_gradient_of(value: Callable, gradient: Callable) -> Callable:
  """A function (context, *args) with the value of one and the gradient of another function of these, which computes the
  same in exact arithmetic. context: a tree that has no gradient; all arrays that the two read are in it or in args."""

  @jax.custom_vjp
  def function(context, *args):
    return value(context, *args)

  def backward(kept, cotangents):
    context, args = kept
    return (None, *jax.vjp(functools.partial(gradient, context), *args)[1](cotangents))

  function.defvjp(lambda context, *args: (value(context, *args), (context, args)), backward)
  return function
