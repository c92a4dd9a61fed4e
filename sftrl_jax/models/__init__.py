"""Models as a config and pure functions of a parameter tree."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from sftrl_jax.inputs import Inputs
from sftrl_jax.models import cache, exact, flops, heads, lora, tiles
from sftrl_jax.models.config import DecoderConfig
from sftrl_jax.models.decoder import Decoder, extend, unstack
from sftrl_jax.models.layout import constrain
from sftrl_jax.readout import Readout


@dataclasses.dataclass(frozen=True)
class Model:
  """The functions of a decoder. They are pure: parameters are an argument of each.

  ids: the number of token ids, where embedding tables have more rows, which are never sampled (0: every row is an id)
  exact: whether what decodes and what reads whole rows agree to the bit, see models/exact.py
  """

  config: DecoderConfig
  ids: int = 0
  exact: bool = False

  def init(self, key: jax.Array) -> dict:
    """A randomly initialised parameter tree, f32."""
    blank = jnp.zeros((1, 2), jnp.int32)
    return Decoder(self.config).init(key, Inputs(blank, blank, blank + 1))["params"]

  @functools.cached_property
  def shapes(self) -> dict:
    """The shapes of `init`'s tree. A run asks for them four to six times, and a trace takes a tenth of a second."""
    return jax.eval_shape(self.init, jax.random.key(0))

  def hidden(self, params: dict, inputs: Inputs) -> jax.Array:
    """hidden_BTD after the final norm, in config.dtype."""
    self._refuse_images(inputs)
    if self.exact:
      return exact.hidden(self.config, params, inputs)
    return Decoder(self.config).apply({"params": params}, inputs)

  @property
  def shares_prompts(self) -> bool:
    """Whether `hidden` takes inputs with prompts. A family that computes it in its own way reads whole rows."""
    return type(self).hidden is Model.hidden and not self.exact

  def unembedding(self, params: dict) -> jax.Array:
    """The matrix that turns hidden states into logits, [D, V]."""
    return params["embed"].T if self.config.tie_embeddings else params["unembed"]

  @property
  def readout(self) -> Readout:
    """How products of hidden states and `unembedding` become logits."""
    return Readout(self.ids, self.config.logits_divisor, self.config.logits_softcap,
                   tiles.each_of_last_axis if self.exact else None)

  def logits(self, params: dict, tokens: jax.Array, positions: jax.Array | None = None,
             segments: jax.Array | None = None, images: jax.Array | None = None) -> jax.Array:
    """logits_BTV in f32, the whole array: for tests and small jobs; training goes through objectives.logprobs.

    tokens, positions, segments, images: the fields of `Inputs`, int32 [B, T] and uint8 [B, I, Y, X, C]. Without
    segments each row is one segment; without positions a token's position is the number of tokens of its segment before
    it, so packed rows equal separate ones.
    """
    segments = jnp.ones_like(tokens) if segments is None else jnp.asarray(segments)
    if positions is None:
      same_BTT = segments[:, :, None] == segments[:, None, :]
      positions = jnp.sum(jnp.tril(same_BTT, -1), axis=-1, dtype=jnp.int32)
    return self.unembed(params, self.hidden(params, Inputs(tokens, positions, segments, images)))

  def unembed(self, params: dict, hidden_BTD: jax.Array) -> jax.Array:
    """logits in f32 of hidden states [..., D]."""
    if self.exact:
      return self.readout.exact_logits(hidden_BTD, self.unembedding(params))
    kernel_DV = self.unembedding(params).astype(hidden_BTD.dtype)
    logits = jnp.einsum("...d,dv->...v", hidden_BTD, kernel_DV, preferred_element_type=jnp.float32)
    if logits.ndim == 2:   # one token a row, while decoding: the table stays on its devices, and logits are sent
      logits = constrain(logits, ("replicas", "vocab"))
    logits = constrain(logits, ("batch", *["tokens"] * (logits.ndim - 2), "across"))
    return self.readout.logits(logits)

  def decoding(self, params: dict) -> dict:
    """The parameters for decoding: adapters merged, layers unstacked, in the dtype of activations. In exact mode only
    unstacked: training computes with adapters and casts kernels as it goes."""
    if self.exact:
      return exact.unstack(params, self.config.layers)
    unstacked = unstack(lora.merge(params), self.config.layers)
    return jax.tree.map(lambda x: x.astype(self.config.dtype), unstacked)

  def extend(self, decoding_params: dict, past: cache.Cache, inputs: Inputs) -> tuple[jax.Array, cache.Cache]:
    """(hidden_BTD, cache) after reading T more tokens a row."""
    self._refuse_images(inputs)
    if self.exact:
      return exact.extend(self.config, decoding_params, past, inputs)
    return extend(self.config, decoding_params, past, inputs)

  def prefill(self, decoding_params: dict, past: cache.Cache, inputs: Inputs) -> tuple[jax.Array, cache.Cache]:
    """`extend` of an empty cache: what is read attends over itself and not over the room of the cache."""
    if self.exact or type(self).extend is not Model.extend:   # a family of one's own that extends in its own way
      return self.extend(decoding_params, past, inputs)
    self._refuse_images(inputs)
    return extend(self.config, decoding_params, past, inputs, empty=True)

  def _refuse_images(self, inputs: Inputs) -> None:
    if inputs.images_BIYXC is not None:
      raise ValueError(f"The inputs have pictures, but {type(self.config).__name__} of config.model.name reads text "
                       "only: use a vision-language model, such as --config.model.name=tiny_vlm.")

  def columns(self, tokens: int) -> int:
    """Columns of a cache with room for so many tokens."""
    return exact.columns(tokens) if self.exact else tokens


def build(config: DecoderConfig, ids: int = 0) -> Model:
  """The model of a config.

  A family of your own is a frozen dataclass derived from DecoderConfig whose build() returns an instance of a class
  derived from Model. Its parameters have the paths of parallel/rules.py, and new ones are under `own/`. If its FLOPs
  differ from a decoder's with the same config, it has a method flops(tokens, keys, unembedded): the FLOPs of one
  forward pass over `tokens` positions that attend over `keys` keys each, with logits at `unembedded` of them.

  ids: the number of ids of the tokenizer, where it has fewer than config.vocab: the others then have no probability
  """
  if config.vocab < 1:
    raise ValueError(f"model.vocab is {config.vocab}; it must be the size of the tokenizer's vocabulary.")
  model = config.build() if hasattr(config, "build") else Model(config)
  if not isinstance(model, Model) or model.config != config:
    raise ValueError(f"{type(config).__name__}.build() returned {model!r}, but it must return a class derived from "
                     "sftrl_jax.models.Model, made with this config: return MyModel(self).")
  return dataclasses.replace(model, ids=ids) if 0 < ids < config.vocab else model


def exactly(model: Model, platform: str, devices: int, decoding_dtype: str, longest: int) -> Model:
  """The model in exact mode; ValueError where sampler and trainer would not agree to the bit.

  platform, devices: of the mesh. decoding_dtype: config.rollout.dtype. longest: tokens of a row and of a cache
  """
  own = [name for name in ("hidden", "extend", "prefill", "decoding", "unembed") if
         getattr(type(model), name) is not getattr(Model, name)]
  if own:
    raise ValueError(f"{exact.ON} needs our own decoder, but {type(model).__name__} of config.model.name has another "
                     f"{', '.join(own)}: {exact.OFF}.")
  exact.refuse(model.config, platform, devices, decoding_dtype, longest)
  return dataclasses.replace(model, exact=True)


__all__ = ["DecoderConfig", "Model", "build", "cache", "exactly", "flops", "heads", "lora"]
