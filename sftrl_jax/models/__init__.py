"""Models as a config and pure functions of a parameter tree."""

import dataclasses

import jax
import jax.numpy as jnp

from sftrl_jax.models import cache, flops, heads, lora
from sftrl_jax.models.config import DecoderConfig
from sftrl_jax.models.decoder import Decoder, extend, unstack
from sftrl_jax.models.layout import constrain


@dataclasses.dataclass(frozen=True)
class Model:
  """A decoder's functions. Parameters are an argument of each; nothing here remembers anything.

  ids: so many rows of the tables are ids, the others fill them up and are never written (0: all are ids)
  """

  config: DecoderConfig
  ids: int = 0

  def init(self, key: jax.Array) -> dict:
    """A newborn parameter tree, f32."""
    blank = jnp.zeros((1, 2), jnp.int32)
    return Decoder(self.config).init(key, blank, blank, blank + 1)["params"]

  def hidden(self, params: dict, tokens_BT, positions_BT, segments_BT) -> jax.Array:
    """hidden_BTD after the final norm, in config.dtype."""
    return Decoder(self.config).apply({"params": params}, tokens_BT, positions_BT, segments_BT)

  def unembedding(self, params: dict) -> jax.Array:
    """The matrix that turns hidden states into logits, [D, V]."""
    return params["embed"].T if self.config.tie_embeddings else params["unembed"]

  def logits(self, params: dict, tokens_BT, positions_BT=None, segments_BT=None) -> jax.Array:
    """logits_BTV in f32, the whole array: for tests and small jobs; training goes through objectives.logprobs."""
    if positions_BT is None:
      positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1], dtype=jnp.int32), tokens_BT.shape)
    segments_BT = jnp.ones_like(tokens_BT) if segments_BT is None else segments_BT
    hidden_BTD = self.hidden(params, tokens_BT, positions_BT, segments_BT)
    return self.unembed(params, hidden_BTD)

  def unembed(self, params: dict, hidden_BTD) -> jax.Array:
    """logits in f32 of whatever hidden states are given."""
    kernel_DV = self.unembedding(params).astype(hidden_BTD.dtype)
    logits = jnp.einsum("...d,dv->...v", hidden_BTD, kernel_DV, preferred_element_type=jnp.float32)
    if logits.ndim == 2:   # of a token a row, while decoding: the table stays where it is, and logits travel
      logits = constrain(logits, ("replicas", "vocab"))
    logits = constrain(logits, ("batch", *["tokens"] * (logits.ndim - 2), "across"))
    if not self.ids:
      return logits
    # The same as in objectives/logprobs.py: what is sampled from is what is trained.
    return jnp.where(jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) < self.ids, logits, -1e9)

  def decoding(self, params: dict) -> dict:
    """Parameters as decoding wants them: adapters merged, layers apart, in the activations' dtype."""
    apart = unstack(lora.merge(params), self.config.layers)
    return jax.tree.map(lambda x: x.astype(self.config.dtype), apart)

  def extend(self, decoding_params: dict, past: cache.Cache, tokens_BT, positions_BT, segments_BT):
    """(hidden_BTD, cache) after reading T more tokens a row."""
    return extend(self.config, decoding_params, past, tokens_BT, positions_BT, segments_BT)


def build(config: DecoderConfig, ids: int = 0) -> Model:
  """The model of a config. A family of your own is a frozen dataclass derived from DecoderConfig whose build() returns
  a class derived from Model; its parameters are called as in parallel/rules.py, and new ones lie under `own/`. Where it
  computes more or less than a decoder of its numbers, it has a method flops(tokens, keys, unembedded): the FLOPs of one
  forward pass over `tokens` positions that meet `keys` keys each, with logits at `unembedded` of them.

  ids: of the tokenizer, where it has fewer than config.vocab: the others are then never written, nor given probability.
  """
  if config.vocab < 1:
    raise ValueError(f"model.vocab is {config.vocab}; it must be the size of the tokenizer's vocabulary.")
  model = config.build() if hasattr(config, "build") else Model(config)
  if not isinstance(model, Model) or model.config != config:
    raise ValueError(f"{type(config).__name__}.build() returned {model!r}, but it must return a class derived from "
                     "sftrl_jax.models.Model, made with this config: return MyModel(self).")
  return dataclasses.replace(model, ids=ids) if 0 < ids < config.vocab else model


__all__ = ["DecoderConfig", "Model", "build", "cache", "flops", "heads", "lora"]
