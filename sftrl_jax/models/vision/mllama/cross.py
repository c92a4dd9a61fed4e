"""A block of the decoder that attends to pictures: its gates begin closed, so that the text model is what it was."""

import flax.linen as nn
import jax.numpy as jnp

from sftrl_jax.models.attention import QUERIES, attend_by_chunks
from sftrl_jax.models.decoder import Mlp, Norm, mark_saved, project
from sftrl_jax.models.vision.mllama.config import MllamaFields


class CrossAttention(nn.Module):
  config: MllamaFields

  @nn.compact
  def __call__(self, x_BTD, allowed_BTF, states_BFD=None, kept=None):
    """mixed_BTD of features, whose keys and values are `kept` or made of states_BFD; without x_BTD these alone."""
    c = self.config
    norm = lambda name, x: Norm(c.norm_eps, name=name)(x)
    if kept is None:
      kept = (norm("k_norm", project(c, "attn/k", "btd,dkc->bktc")(states_BFD)),
              project(c, "attn/v", "btd,dkc->bktc")(states_BFD))
    if x_BTD is None:
      return kept
    q_BHTC = norm("q_norm", project(c, "attn/q", "btd,dhc->bhtc")(x_BTD))
    mixed_BHTC = mark_saved(c, attend_by_chunks(q_BHTC, *kept, allowed_BTF, QUERIES))
    return project(c, "attn/o", "bhtc,hcd->btd", gain=(2 * c.layers) ** -0.5)(mixed_BHTC)


class CrossBlock(nn.Module):
  """x + tanh(gate) attention(norm(x), pictures), then x + tanh(gate) mlp(norm(x)); x where a token has no picture.

  Both terms are left out there, as in Meta's code; transformers leaves out the second alone.
  """

  config: MllamaFields

  @nn.compact
  def __call__(self, x_BTD, allowed_BTF, states_BFD=None, kept=None):
    """x_BTD after the block; arguments as of CrossAttention. Without x_BTD, keys and values of features."""
    c, attention = self.config, CrossAttention(self.config, name="attn")
    if x_BTD is None:
      return attention(None, None, states_BFD)
    norm = lambda name, x: Norm(c.norm_eps, name=name)(x)
    reads_BT1 = allowed_BTF.any(axis=-1, keepdims=True)

    def gated(name, term_BTD):
      gate = self.param(name, nn.initializers.zeros, (1,))
      term_BTD = term_BTD * jnp.tanh(gate.astype(jnp.float32)).astype(term_BTD.dtype)[None, None]
      return jnp.where(reads_BT1, term_BTD, 0)

    x_BTD = x_BTD + gated("attn_gate", attention(norm("attn_norm", x_BTD), allowed_BTF, states_BFD, kept))
    return x_BTD + gated("mlp_gate", Mlp(c, name="mlp")(norm("mlp_norm", x_BTD)))
