"""FLOPs of a decoder from its config, and the bytes that decoding reads.

Counted are matmuls and attention, two FLOPs a multiply-add; not norms, biases and activations. Every computed position
is charged, padding included, and attention is charged over all computed keys, masked or not, so that waste is visible.
The window of a local layer is a mask and saves nothing. A user's own family may count for itself, see `models.build`.
"""

import math

import jax
import jax.numpy as jnp

from sftrl_jax.models.config import DecoderConfig
from sftrl_jax.projections import PROJECTIONS


def matmul_parameters(config: DecoderConfig) -> int:
  """Parameters that multiply every token: blocks and unembedding, not the embedding look-up or the norms."""
  present = (projection for projection in PROJECTIONS.values() if projection.present(config))
  block = sum(math.prod(projection.shape(config)) for projection in present)
  return config.layers * block + config.width * config.vocab


def forward(config: DecoderConfig, tokens: float, keys: float, unembedded: float = -1.0, adapters: int = 0) -> float:
  """FLOPs of one forward pass over `tokens` positions in all, each of which attends over `keys` keys.

  unembedded: positions whose logits are computed, all of them if negative
  adapters: parameters of low-rank adapters that are applied beside the kernels, not merged into them
  """
  unembedded = tokens if unembedded < 0 else unembedded
  if hasattr(config, "flops"):
    return _counted(config, tokens, keys, unembedded) + 2.0 * tokens * adapters
  c = config
  head = c.width * c.vocab
  attention = 2 * c.layers * c.heads * c.head_dim * keys  # scores and mixing, multiply-adds
  return 2.0 * (tokens * (matmul_parameters(c) - head + attention + adapters) + unembedded * head)


def train(config: DecoderConfig, tokens: float, keys: float, adapters: int = 0, unembedded: float = -1.0) -> float:
  """FLOPs of forward and backward: 3 x forward. Recomputation under remat is not counted.

  unembedded: as of `forward`
  adapters: parameters of low-rank adapters, where these alone are trained (0: everything is trained). Kernels then pass
  the gradient on but have none of their own: about 2 x forward. (A family that counts for itself is charged all 3.)
  """
  whole = 3.0 * forward(config, tokens, keys, unembedded, adapters)
  if not adapters or hasattr(config, "flops"):
    return whole
  without_logits = (tokens - unembedded) * config.width * config.vocab if unembedded >= 0 else 0.0
  return whole - 2.0 * (tokens * matmul_parameters(config) - without_logits)


def pictures(config: DecoderConfig, rows: float, training: bool = False, adapters: int = 0, images: int = -1,
             adapted: bool = False) -> float:
  """FLOPs of the features of all pictures of so many rows, unused places included; 0 for a model of text.

  training: forward and backward, 3 x forward; with adapters in the decoder, forward alone; with adapters among what
    reads pictures (adapted) about 2 x forward, as `train` says. Their own FLOPs are charged to the decoder's tokens.
  images: places of a row, config.images if negative
  """
  if not hasattr(config, "tower_flops"):
    return 0.0
  images = config.images if images < 0 else images
  passes = 1.0 if not training else 2.0 if adapted else 1.0 if adapters else 3.0
  return passes * rows * images * config.tower_flops()


def by_paper(parameters: int, read_tokens: float, buffer_tokens: float = 0.0) -> float:
  """FLOPs by the formula of "SFT Memorizes, RL Generalizes" (2501.17161, appendix C.3): 6 N D_train + 2 N D_buffer.

  D_buffer counts decoding as if there were no cache, and the formula has no attention and no scoring, so it differs
  from the count of this file. The D_init that the paper adds to both methods is left out here.
  parameters: N, of the whole model, embeddings included
  read_tokens: D_train, what updates have read, once an epoch
  buffer_tokens: D_buffer, see rollout/tally.py
  """
  return 6.0 * parameters * read_tokens + 2.0 * parameters * buffer_tokens


def decode_bytes(config: DecoderConfig, decoding: dict, rows: int, columns: int) -> float:
  """Bytes that one step of decoding reads: every weight that multiplies, and the cache of `columns` tokens a row.

  decoding: the decoding parameters, or their shapes, of all devices together
  """
  size = lambda tree: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
  looked_up = 0 if config.tie_embeddings else size(decoding["embed"])
  looked_up += size(decoding.get("vision", {}))   # which a prompt alone reads
  cell = 2 * config.kv_heads * config.head_dim * jnp.dtype(config.dtype).itemsize
  of_pictures = getattr(config, "picture_columns", 0) * len(getattr(config, "cross", ()))   # read at every token too
  return size(decoding) - looked_up + rows * (columns * config.layers + of_pictures) * cell


def _counted(config: DecoderConfig, tokens: float, keys: float, unembedded: float) -> float:
  """The FLOPs that a user's own family counts; ValueError unless they are a positive finite number."""
  count = config.flops(tokens, keys, unembedded)
  if isinstance(count, bool) or not isinstance(count, (int, float)) or not 0 < count < math.inf:
    raise ValueError(f"{type(config).__name__}.flops({tokens:g}, {keys:g}, {unembedded:g}) returned {count!r}, but it "
                     "must return the FLOPs of one forward pass, a finite number above 0.")
  return float(count)
