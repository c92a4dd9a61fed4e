"""The tower of Llama-3.2-Vision: patches of all tiles of a picture as tokens of a transformer, then of a gated one.

What a tile is of its picture is in embeddings of the picture's shape. Tiles that a picture does not have are there, as
zeros, and attended to by those that it has; only from padding to padding there is no attention. So were the released
weights trained, and without these places the features of the others are different ones.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sftrl_jax.models.decoder import remat_policy
from sftrl_jax.models.layout import ROWS, constrain
from sftrl_jax.models.vision.mllama.config import MllamaFields
from sftrl_jax.models.vision.siglip import LayerNorm, PatchEmbedding, TowerBlock, cut
from sftrl_jax.shapes import check


def shape_ids(config: MllamaFields, images_BYXC: jax.Array) -> jax.Array:
  """ids_B of the shapes of pictures: 0 where there is no picture. The first pixel of the last row holds them."""
  return images_BYXC[:, -1, 0, 0].astype(jnp.int32)


def tiles_of(config: MllamaFields, ids_B: jax.Array) -> jax.Array:
  """there_BM: which of the config's tiles a picture has."""
  counts = np.asarray([0, *(rows * columns for rows, columns in config.shapes)], np.int32)
  return jnp.arange(config.tiles)[None, :] < jnp.take(counts, ids_B, mode="clip")[:, None]


class Tower(nn.Module):
  """uint8 pictures to features_BFD: F tokens a picture, tile by tile, of config.tower_output channels."""

  config: MllamaFields

  @nn.compact
  def __call__(self, images_BYXC):
    check(images_BYXC=images_BYXC)
    c, (B, *size) = self.config, images_BYXC.shape
    if tuple(size) != (c.image_height, c.image_width, 3):
      raise ValueError(f"A picture is {tuple(size)}, but the model reads {(c.image_height, c.image_width, 3)}: its "
                       "tiles one below another, and a row with the id of its shape.")
    ids_B = shape_ids(c, images_BYXC)
    there_BM = tiles_of(c, ids_B)
    x = PatchEmbedding(c, bias=False, name="patch")(self._patches(images_BYXC, there_BM))
    x = x.reshape(B, c.tiles, c.tower_side**2, c.tower_width) + self._of_tiles("pre_tile", ids_B).astype(x.dtype)
    whole = self.param("class", nn.initializers.normal(c.tower_width**-0.5), (c.tower_width,))
    whole = jnp.broadcast_to(whole.astype(x.dtype), (B, c.tiles, 1, c.tower_width))
    x = jnp.concatenate([whole, x], axis=2)
    x = LayerNorm(1e-5, name="pre_norm")(x + self._positions(ids_B).astype(x.dtype))
    spare = c.padded_tile_tokens - c.tile_tokens
    pad = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, spare), (0, 0)))
    real_BT = jnp.pad(jnp.broadcast_to(there_BM[..., None], (B, c.tiles, c.tile_tokens)), ((0, 0), (0, 0), (0, spare)))
    padding_BT = ~real_BT.reshape(B, -1)
    x_BTD = constrain(pad(x).reshape(B, -1, c.tower_width), ROWS)
    x_BTD, kept = Layers(c, c.tower_layers, False, c.intermediate, name="layers")(x_BTD, padding_BT)
    in_tiles = lambda x_BTD: x_BTD.reshape(B, c.tiles, c.padded_tile_tokens, c.tower_width)
    x = in_tiles(LayerNorm(1e-5, name="post_norm")(x_BTD)) + self._of_tiles("post_tile", ids_B).astype(x_BTD.dtype)
    x_BTD, _ = Layers(c, c.global_layers, True, (), name="global_layers")(x.reshape(x_BTD.shape), padding_BT)
    # The results of each block beside one another, channel by channel: the order of the released projector.
    beside = jnp.stack(list(kept), axis=-1).reshape(B, -1, c.tower_width * len(c.intermediate))
    features = jnp.concatenate([x_BTD, beside], axis=-1).reshape(B, c.tiles, c.padded_tile_tokens, -1)
    return features[:, :, : c.tile_tokens].reshape(B, c.tiles * c.tile_tokens, -1)

  def _patches(self, images_BYXC, there_BM):
    """Normalised pixels of patches, tile by tile; 0 in tiles that are not there."""
    c, B, read = self.config, images_BYXC.shape[0], self.config.tower_side * self.config.patch
    mean, std = (np.asarray(values, np.float32).reshape(1, 1, 1, 3) for values in (c.image_mean, c.image_std))
    tiles = images_BYXC[:, :-1].reshape(B * c.tiles, c.tile, c.tile, 3)
    pixels = (tiles.astype(jnp.float32) * np.float32(1 / 255) - mean) / std
    pixels = jnp.where(there_BM.reshape(-1)[:, None, None, None], pixels, 0.0)
    return cut(pixels[:, :read, :read], c.patch)

  def _of_tiles(self, name, ids_B):
    """Of each tile of a picture of a shape: [B, tiles, 1, D], times the tanh of a gate."""
    c = self.config
    normal = nn.initializers.normal(c.init_std)
    params = self.param(name, lambda key: {
        "table": normal(key, (1 + len(c.shapes), c.tiles, c.tower_width)), "gate": jnp.zeros((1,))})
    return jnp.take(params["table"], ids_B, axis=0)[:, :, None] * jnp.tanh(params["gate"])[None, None, None]

  def _positions(self, ids_B):
    """(1 - tanh gate) position of a patch + tanh gate position of a patch in a tile of a picture of a shape."""
    c, D = self.config, self.config.tower_width
    normal = nn.initializers.normal
    params = self.param("positions", lambda key: {
        "table": normal(D**-0.5)(key, (c.tile_tokens, D)), "gate": jnp.zeros((1,)),
        "of_shapes": normal(c.init_std)(jax.random.fold_in(key, 1), (1 + len(c.shapes), c.tiles, c.tile_tokens, D))})
    gate = jnp.tanh(params["gate"])[None, None, None]
    return (1 - gate) * params["table"][None, None] + gate * jnp.take(params["of_shapes"], ids_B, axis=0)


class Layers(nn.Module):
  """Blocks in a scan: (x_BTD, padding_BT) -> (x_BTD, results of the blocks `kept`, [len(kept), B, T, D])."""

  config: MllamaFields
  layers: int
  gated: bool
  kept: tuple[int, ...]

  @nn.compact
  def __call__(self, x_BTD, padding_BT):
    c, block = self.config, TowerBlock(self.config, self.gated, parent=None)
    first = lambda key: block.init(key, x_BTD, padding_BT)["params"]
    init = lambda key: jax.vmap(first)(jax.random.split(key, self.layers))
    # flax would compare the blocks with those of `init`, which have no adapters.
    params = self.get_variable("params", "block") if self.has_variable("params", "block") else self.param("block", init)
    apply = lambda layer, x_BTD: constrain(block.apply({"params": layer}, x_BTD, padding_BT), ROWS)
    apply = apply if c.remat == "none" else jax.checkpoint(apply, prevent_cse=False, policy=remat_policy(c))
    place_N = jnp.asarray([self.kept.index(number) if number in self.kept else len(self.kept)
                           for number in range(self.layers)], jnp.int32)

    def step(carry, layer_and_place):
      (x_BTD, kept), (layer, place) = carry, layer_and_place
      x_BTD = apply(layer, x_BTD)
      return (x_BTD, kept.at[place].set(x_BTD, mode="drop") if self.kept else kept), None

    empty = jnp.zeros((len(self.kept), *x_BTD.shape), x_BTD.dtype)
    (x_BTD, kept), _ = jax.lax.scan(step, (x_BTD, empty), (params, place_N), unroll=min(c.unroll, self.layers))
    return x_BTD, kept
