"""A decoder that reads pictures: features are spliced into the row of tokens, before the first layer."""

import abc
import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp

from sftrl_jax.inputs import Inputs, group_rows
from sftrl_jax.models import Model, cache, decoder
from sftrl_jax.models.layout import ROWS, constrain
from sftrl_jax.models.lora import low_rank
from sftrl_jax.models.vision.config import VisionConfig
from sftrl_jax.readout import Readout
from sftrl_jax.shapes import check

PART = "vision"   # where a parameter tree has the tower and the connector


@dataclasses.dataclass(frozen=True)
class VisionModel(Model, abc.ABC):
  """The functions of a decoder with pictures. A family gives `init_vision` and `features`.

  Parameters of the decoder have the paths of a text model; those of the tower and of the connector are under vision/.
  Features are causal, as text is. What decodes one token a row has no pictures, so the tower runs once a prompt.
  """

  config: VisionConfig

  @abc.abstractmethod
  def init_vision(self, key: jax.Array) -> dict:
    """Randomly initialised {"tower": ..., "connector": ...}, f32."""

  @abc.abstractmethod
  def features(self, params: dict, images_BIYXC: jax.Array) -> jax.Array:
    """features_BFD of uint8 pictures, in config.dtype: F = I * config.image_tokens, picture by picture."""

  def init(self, key: jax.Array) -> dict:
    """A randomly initialised parameter tree, f32. The decoder's part is that of a text model from the same key."""
    return {**super().init(key), PART: self.init_vision(jax.random.fold_in(key, zlib.crc32(PART.encode())))}

  @property
  def readout(self) -> Readout:
    return super().readout._replace(barred=self.config.barred_ids)

  def hidden(self, params: dict, inputs: Inputs) -> jax.Array:
    text = {name: tree for name, tree in params.items() if name != PART}
    return decoder.Decoder(self.config).apply({"params": text}, inputs, self._splice(params, group_rows(inputs)))

  @property
  def shares_prompts(self) -> bool:
    return type(self).hidden is VisionModel.hidden

  def extend(self, decoding_params: dict, past: cache.Cache, inputs: Inputs) -> tuple[jax.Array, cache.Cache]:
    return decoder.extend(self.config, decoding_params, past, inputs, splice=self._splice(decoding_params, inputs))

  def prefill(self, decoding_params: dict, past: cache.Cache, inputs: Inputs) -> tuple[jax.Array, cache.Cache]:
    return decoder.extend(self.config, decoding_params, past, inputs, True, self._splice(decoding_params, inputs))

  def _splice(self, params: dict, inputs: Inputs):
    """What puts the features of the inputs' pictures into embeddings, or nothing where they have no pictures."""
    if inputs.images_BIYXC is None:
      return lambda x_BTD: x_BTD
    check(tokens_BT=inputs.tokens_BT, images_BIYXC=inputs.images_BIYXC)
    features_BFD = constrain(self.features(params, inputs.images_BIYXC), ROWS)
    return functools.partial(splice, features_BFD, places(inputs.tokens_BT, self.config.image_id))


def project(equation: str, x: jax.Array, projection: dict) -> jax.Array:
  """einsum(equation, x, kernel) of a projection in no stack, in the dtype of x, and of the adapter beside its kernel if
  there is one."""
  y = jnp.einsum(equation, x, projection["kernel"].astype(x.dtype))
  return y + low_rank(equation, x, *(projection[name] for name in ("a", "b", "scale"))) if "a" in projection else y


def places(tokens_BT: jax.Array, image_id: int) -> jax.Array:
  """places_BT: which feature of its row a token takes, from 1 on; 0 where it is text."""
  stands_BT = tokens_BT == image_id
  return jnp.where(stands_BT, jnp.cumsum(stands_BT, axis=1, dtype=jnp.int32), 0)


def splice(features_BFD: jax.Array, places_BT: jax.Array, x_BTD: jax.Array) -> jax.Array:
  """x_BTD with the feature places_BT - 1 of its row where places_BT > 0."""
  check(features_BFD=features_BFD, places_BT=places_BT, x_BTD=x_BTD)
  picked_BTD = jnp.take_along_axis(features_BFD, jnp.maximum(places_BT - 1, 0)[..., None], axis=1, mode="clip")
  return jnp.where(places_BT[..., None] > 0, picked_BTD.astype(x_BTD.dtype), x_BTD)
