"""Which pictures a token attends to: that whose placeholder came last, with those that stand right before it.

Pictures of a row are counted from 1 on. This is Meta's mask, for text too that stands before the first picture of its
segment: it attends to none, and nothing of a picture reaches it. transformers lets such text attend to all of the
row's pictures, padding included, for a row without an allowed key is given none to refuse.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from sftrl_jax.inputs import Inputs


@struct.dataclass
class Seen:
  """What earlier tokens of each row say of the pictures of later ones."""

  count_B: jax.Array   # int32: pictures so far
  first_B: jax.Array   # int32: the first picture of the last run of placeholders
  position_B: jax.Array   # int32: the position of the last placeholder


def nothing(rows: int) -> Seen:
  """Of rows that have not begun."""
  return Seen(*(jnp.zeros((rows,), jnp.int32) for _ in range(3)))


def spans(inputs: Inputs, image_id: int, before: Seen) -> tuple[jax.Array, jax.Array, Seen]:
  """(first_BT, last_BT, what has been seen): a token attends to pictures first to last of its row; to none where
  last < first."""
  segments_BT, positions_BT = inputs.segments_BT, inputs.positions_BT
  B, T = segments_BT.shape
  places_BT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[None, :], (B, T))
  image_BT = (inputs.tokens_BT == image_id) & (segments_BT > 0)
  number_BT = before.count_B[:, None] + jnp.cumsum(image_BT, axis=1, dtype=jnp.int32)
  latest_BT = jax.lax.cummax(jnp.where(image_BT, places_BT, -1), axis=1)   # placeholders up to here
  earlier_BT = jnp.pad(latest_BT[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
  # A row that goes on over a cache is one segment; what came before is of the segment that its tokens are of.
  started_B1 = before.count_B[:, None] > 0
  of_place = lambda array_BT, place_BT, else_BT: jnp.where(
      place_BT >= 0, jnp.take_along_axis(array_BT, jnp.maximum(place_BT, 0), axis=1), else_BT)
  segment_of = lambda place_BT: of_place(segments_BT, place_BT, jnp.where(started_B1, segments_BT, -1))
  earlier_position_BT = of_place(positions_BT, earlier_BT, jnp.broadcast_to(before.position_B[:, None], (B, T)))
  adjacent_BT = (segment_of(earlier_BT) == segments_BT) & (positions_BT == earlier_position_BT + 1)
  first_BT = jax.lax.cummax(jnp.where(image_BT & ~adjacent_BT, number_BT, 0), axis=1)
  first_BT = jnp.maximum(first_BT, before.first_B[:, None])
  reads_BT = (segments_BT > 0) & (segment_of(latest_BT) == segments_BT)
  position_B = of_place(positions_BT, latest_BT[:, -1:], before.position_B[:, None])[:, 0]
  after = Seen(number_BT[:, -1], first_BT[:, -1], position_B)
  return jnp.where(reads_BT, first_BT, 1), jnp.where(reads_BT, number_BT, 0), after


def numbers(there_BIM: jax.Array, tile_tokens: int, before_B: jax.Array | int = 0) -> jax.Array:
  """numbers_BF: of each feature the number of its picture; 0 for one of a tile or of a picture that is not there.

  there_BIM: which tiles each of the row's pictures has. before_B: pictures of the row before these
  """
  B, I, M = there_BIM.shape
  has_BI = there_BIM.any(axis=-1)
  number_BI = jnp.cumsum(has_BI, axis=1, dtype=jnp.int32) + jnp.broadcast_to(jnp.asarray(before_B), (B,))[:, None]
  number_BIM = jnp.where(there_BIM, number_BI[..., None], 0)
  return jnp.repeat(number_BIM.reshape(B, I * M), tile_tokens, axis=1)


def allowed(first_BT: jax.Array, last_BT: jax.Array, numbers_BF: jax.Array) -> jax.Array:
  """allowed_BTF: whether a token attends to a feature."""
  number_B1F = numbers_BF[:, None, :]
  return (number_B1F > 0) & (number_B1F >= first_BT[..., None]) & (number_B1F <= last_BT[..., None])


def columns(before_B: jax.Array, has_BI: jax.Array, features: int, room: int) -> jax.Array:
  """columns_BF: the columns of a cache into which features of new pictures go; `room`, beyond the last one, for those
  that are not there.

  before_B: pictures already there. features: of a picture
  """
  slot_BI = before_B[:, None] + jnp.cumsum(has_BI, axis=1, dtype=jnp.int32) - 1
  inside = np.arange(features, dtype=np.int32)
  into_BIF = slot_BI[..., None] * features + inside[None, None, :]
  into_BIF = jnp.where(has_BI[..., None], into_BIF, room)
  return jnp.minimum(into_BIF, room).reshape(len(before_B), -1)
