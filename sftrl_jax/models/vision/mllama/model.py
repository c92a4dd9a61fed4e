"""Llama-3.2-Vision as a config and pure functions of a parameter tree."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from sftrl_jax.inputs import Inputs
from sftrl_jax.models import cache, decoder, kernels, lora
from sftrl_jax.models.attention import attend, by_kind
from sftrl_jax.models.cache import Cache, Pictures, reserve, write_at
from sftrl_jax.models.cpu.blockwise import block_mask
from sftrl_jax.models.decoder import Block, Norm, Scanned, look_up, remat_policy, weights_stationary
from sftrl_jax.models.layout import ROWS, constrain, platform
from sftrl_jax.models.vision.mllama import spans
from sftrl_jax.models.vision.mllama.config import EXTRA_IDS, MllamaFields
from sftrl_jax.models.vision.mllama.cross import CrossBlock
from sftrl_jax.models.vision.mllama.tower import Tower, shape_ids, tiles_of
from sftrl_jax.models.vision.model import VisionModel, project
from sftrl_jax.shapes import check

CROSS = "cross_layers"   # where a parameter tree has the blocks that attend to pictures


@dataclasses.dataclass(frozen=True)
class MllamaConfig(MllamaFields):
  __doc__ = MllamaFields.__doc__

  def build(self) -> "Mllama":
    return Mllama(self)


@dataclasses.dataclass(frozen=True)
class Mllama(VisionModel):
  """The functions of Llama-3.2-Vision. Its decoder's blocks of text have the paths of a text model's."""

  config: MllamaConfig

  def init(self, key: jax.Array) -> dict:
    """A randomly initialised parameter tree, f32. Gates begin closed: pictures then make no difference."""
    c, params = self.config, super().init(key)
    x, allowed = jnp.zeros((1, 2, c.width)), jnp.ones((1, 2, 1), bool)
    block = lambda key: CrossBlock(c).init(key, x, allowed, jnp.zeros((1, 1, c.width)))["params"]
    blocks = jax.vmap(block)(jax.random.split(jax.random.fold_in(key, len(c.order)), len(c.cross)))
    return {**params, CROSS: {"block": blocks}, "unembed": params["unembed"][:, : c.vocab - EXTRA_IDS]}

  def init_vision(self, key: jax.Array) -> dict:
    c = self.config
    tower_key, connector_key = jax.random.split(key)
    blank = jnp.zeros((1, c.image_height, c.image_width, 3), jnp.uint8)
    kernel = c.tower_output**-0.5 * jax.random.normal(connector_key, (c.tower_output, c.width))
    return {"tower": Tower(c).init(tower_key, blank)["params"],
            "connector": {"proj": {"kernel": kernel, "bias": jnp.zeros((c.width,))}}}

  def features(self, params: dict, images_BIYXC: jax.Array) -> jax.Array:
    """features_BFD of all tiles: of the tower, times the connector's kernel."""
    check(images_BIYXC=images_BIYXC)
    c, parts = self.config, params["vision"]
    B = images_BIYXC.shape[0]
    x_BFD = Tower(c).apply({"params": parts["tower"]}, images_BIYXC.reshape(-1, *images_BIYXC.shape[2:]))
    bias = parts["connector"]["proj"]["bias"].astype(x_BFD.dtype)
    x_BFD = project("bte,ed->btd", x_BFD, parts["connector"]["proj"]) + bias[None, None]
    return constrain(x_BFD.reshape(B, -1, c.width), ROWS)

  def hidden(self, params: dict, inputs: Inputs) -> jax.Array:
    """hidden_BTD after the final norm. Without pictures the blocks that attend to them are left out."""
    c, positions_BT, segments_BT = self.config, inputs.positions_BT, inputs.segments_BT
    check(tokens_BT=inputs.tokens_BT, positions_BT=positions_BT, segments_BT=segments_BT)
    kernel = kernels.chosen(c, platform(), inputs.tokens_BT.shape[1])
    tables, allowed = by_kind(c, positions_BT, segments_BT, positions_BT, segments_BT)
    mask = {kind: block_mask(allowed_BTT) for kind, allowed_BTT in allowed.items()} if kernel == "blocks" else allowed
    mask = segments_BT if kernel == "splash" else mask
    with_remat = lambda function: function if c.remat == "none" else jax.checkpoint(
        function, prevent_cse=False, policy=remat_policy(c))
    of_text = with_remat(
        lambda layer, x_BTD: Scanned(c, kernel).apply({"params": {"block": layer}}, x_BTD, None, tables, mask)[0])
    of_pictures = None
    if inputs.images_BIYXC is not None:
      states_BFD = self.features(params, inputs.images_BIYXC)
      first_BT, last_BT, _ = spans.spans(inputs, c.image_id, spans.nothing(len(positions_BT)))
      numbers_BF = spans.numbers(self._there(inputs.images_BIYXC), c.tile_tokens)
      allowed_BTF = spans.allowed(first_BT, last_BT, numbers_BF)
      of_pictures = with_remat(lambda layer, x_BTD, states_BFD: constrain(
          CrossBlock(c).apply({"params": layer}, x_BTD, allowed_BTF, states_BFD), ROWS))
    groups = len(c.order) // len(c.group)
    in_groups = lambda tree: jax.tree.map(lambda x: x.reshape(groups, -1, *x.shape[1:]), tree)
    stacks = {"text": in_groups(params["layers"]["block"]), "picture": in_groups(params[CROSS]["block"])}

    def step(x_BTD, layers):
      number = {"text": 0, "picture": 0}
      for kind in c.group:
        layer = jax.tree.map(lambda x, n=number[kind]: x[n], layers[kind])
        number[kind] += 1
        if kind == "text":
          x_BTD = of_text(layer, x_BTD)
        elif of_pictures is not None:
          x_BTD = of_pictures(layer, x_BTD, states_BFD)
      return x_BTD, None

    x_BTD = constrain(look_up(c, params["embed"], inputs.tokens_BT), ROWS)
    x_BTD, _ = jax.lax.scan(step, x_BTD, stacks, unroll=min(c.unroll, groups))
    return Norm(c.norm_eps).apply({"params": params["final_norm"]}, x_BTD)

  def decoding(self, params: dict) -> dict:
    text = {name: tree for name, tree in params.items() if name != CROSS}
    cross = decoder.unstack({"layers": lora.merge(params[CROSS])}, len(self.config.cross))["layers"]
    return {**super().decoding(text), CROSS: jax.tree.map(lambda x: x.astype(self.config.dtype), cross)}

  def prefill(self, decoding_params: dict, past: Cache, inputs: Inputs) -> tuple[jax.Array, Cache]:
    return self._extend(decoding_params, past, inputs, empty=True)

  def extend(self, decoding_params: dict, past: Cache, inputs: Inputs) -> tuple[jax.Array, Cache]:
    """As decoder.extend. Keys and values of new pictures go into the cache, where later tokens read them."""
    return self._extend(decoding_params, past, inputs)

  def _extend(self, params: dict, past: Cache, inputs: Inputs, empty: bool = False) -> tuple[jax.Array, Cache]:
    c, tokens_BT, positions_BT, segments_BT = self.config, inputs.tokens_BT, inputs.positions_BT, inputs.segments_BT
    check(tokens_BT=tokens_BT, positions_BT=positions_BT, segments_BT=segments_BT)
    pictures, numbers_BF = past.pictures, past.pictures.numbers_BF
    if inputs.images_BIYXC is not None:
      pictures = self._kept(params, pictures, inputs.images_BIYXC)
      numbers_BF = pictures.numbers_BF
    before = spans.Seen(pictures.count_B, pictures.first_B, pictures.position_B)
    first_BT, last_BT, seen = spans.spans(inputs, c.image_id, before)
    allowed_BTF = spans.allowed(first_BT, last_BT, numbers_BF)
    start, past = past.index, reserve(past, positions_BT, segments_BT)
    tables, allowed = by_kind(c, positions_BT, segments_BT, past.positions_BS, past.segments_BS)
    reads_itself = empty and kernels.reads_itself(tokens_BT.shape[1], past.positions_BS.shape[1])
    attend_fn = (kernels.over_prompts(c, platform(), inputs)["global"] if reads_itself else
                 functools.partial(attend, allowed_BTS=allowed["global"], scale=c.query_scale,
                                   softcap=c.attention_softcap))
    x_BTD = look_up(c, params["embed"], tokens_BT)
    x_BTD = x_BTD if weights_stationary(tokens_BT.shape[1]) else constrain(x_BTD, ROWS)
    keys, values, number = [], [], 0
    for kind in c.order:
      if kind == "picture":
        kept = pictures.keys_BKFC[number], pictures.values_BKFC[number]
        x_BTD = CrossBlock(c).apply({"params": params[CROSS][number]}, x_BTD, allowed_BTF, None, kept)
        number += 1
        continue
      write = functools.partial(write_at, start, past.keys_BKSC[len(keys)], past.values_BKSC[len(keys)])
      x_BTD, (k, v) = Block(c).apply({"params": params["layers"][len(keys)]}, x_BTD, tables["global"], attend_fn,
                                     (write, reads_itself))
      keys.append(k)
      values.append(v)
    hidden_BTD = Norm(c.norm_eps).apply({"params": params["final_norm"]}, x_BTD)
    pictures = pictures.replace(count_B=seen.count_B, first_B=seen.first_B, position_B=seen.position_B)
    return hidden_BTD, past.replace(keys_BKSC=tuple(keys), values_BKSC=tuple(values), pictures=pictures)

  def _kept(self, params: dict, pictures: Pictures, images_BIYXC: jax.Array) -> Pictures:
    """With keys and values of these pictures, behind those of earlier ones."""
    c, states_BFD = self.config, self.features(params, images_BIYXC)
    there_BIM, before_B = self._there(images_BIYXC), pictures.count_B
    into_BF = spans.columns(before_B, there_BIM.any(axis=-1), c.tiles * c.tile_tokens, c.picture_columns)
    rows_B1 = jnp.arange(len(before_B))[:, None]
    # Rows and columns are indexed together, so that axis comes before the others.
    put = lambda old, new: old.swapaxes(1, 2).at[rows_B1, into_BF].set(
        new.swapaxes(1, 2).astype(old.dtype), mode="drop").swapaxes(1, 2)
    keys, values = [], []
    for layer, old_k, old_v in zip(params[CROSS], pictures.keys_BKFC, pictures.values_BKFC, strict=True):
      k, v = CrossBlock(c).apply({"params": layer}, None, None, states_BFD)
      keys.append(put(old_k, k))
      values.append(put(old_v, v))
    numbers_BF = spans.numbers(there_BIM, c.tile_tokens, before_B)
    return pictures.replace(keys_BKFC=tuple(keys), values_BKFC=tuple(values),
                            numbers_BF=pictures.numbers_BF.at[rows_B1, into_BF].set(numbers_BF, mode="drop"))

  def _there(self, images_BIYXC: jax.Array) -> jax.Array:
    """there_BIM: which tiles each picture has."""
    B, I = images_BIYXC.shape[:2]
    flat = images_BIYXC.reshape(B * I, *images_BIYXC.shape[2:])
    return tiles_of(self.config, shape_ids(self.config, flat)).reshape(B, I, -1)


__all__ = ["Mllama", "MllamaConfig", "cache"]
