"""FLOPs of a decoder, counted from its numbers: matmuls and attention; a multiply-add is two.

Every position that is computed is charged, padding included, and attention is charged over all keys that are computed,
masked or not: what a method wastes, it pays for.
"""

from sftrl_jax.models.config import DecoderConfig


def matmul_parameters(config: DecoderConfig) -> int:
  """Parameters that multiply every token: blocks and unembedding, not the embedding look-up or the norms."""
  c = config
  attention = c.width * c.channels * (2 * c.heads + 2 * c.kv_heads)
  mlp = c.width * c.ffn * (3 if c.mlp == "gated" else 2)
  return c.layers * (attention + mlp) + c.width * c.vocab


def forward(config: DecoderConfig, tokens: float, keys: float, unembedded: float = -1.0) -> float:
  """One forward pass over `tokens` positions in all, each of which meets `keys` keys.

  unembedded: positions whose logits are computed, all of them if negative.
  """
  c = config
  head = c.width * c.vocab
  unembedded = tokens if unembedded < 0 else unembedded
  attention = 2 * c.layers * c.heads * c.channels * keys  # scores and mixing, multiply-adds
  return 2.0 * (tokens * (matmul_parameters(c) - head + attention) + unembedded * head)


def train(config: DecoderConfig, tokens: float, keys: float) -> float:
  """Forward and backward: 3 x forward. Recomputation under remat is not counted: it buys memory, not learning."""
  return 3.0 * forward(config, tokens, keys)
