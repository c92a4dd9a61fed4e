"""The decoder as Flax linen modules: scanned over layers for training, layer by layer over a cache for decoding."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sftrl_jax.models.attention import attend, may_attend, rotary_tables, rotate
from sftrl_jax.models.cache import Cache, reserve
from sftrl_jax.models.config import DecoderConfig
from sftrl_jax.shapes import check

ACTIVATIONS = {"silu": nn.silu, "relu": nn.relu, "gelu": lambda x: nn.gelu(x, approximate=True)}


class Norm(nn.Module):
  """RMSNorm: x / rms(x) * scale, in f32 (Zhang & Sennrich 2019)."""

  eps: float

  @nn.compact
  def __call__(self, x_BTD):
    scale_D = self.param("scale", nn.initializers.ones, (x_BTD.shape[-1],))
    x32 = x_BTD.astype(jnp.float32)
    unit = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + self.eps)
    return (unit * scale_D[None, None, :]).astype(x_BTD.dtype)


class Project(nn.Module):
  """A matrix of any number of axes, applied to the last `reads` axes of x; fan-in scaled at birth."""

  shape: tuple[int, ...]
  equation: str
  reads: int = 1
  gain: float = 1.0

  @nn.compact
  def __call__(self, x):
    fan_in = 1
    for size in self.shape[: self.reads]:
      fan_in *= size
    kernel = self.param("kernel", nn.initializers.normal(self.gain * fan_in**-0.5), self.shape)
    return jnp.einsum(self.equation, x, kernel.astype(x.dtype))


class Attention(nn.Module):
  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD, tables, allowed_BTS, past=None):
    """Without `past`: over the rows themselves. With past = (keys, values, index): writes there, reads all of it."""
    c = self.config
    q_BHTC = rotate(Project((c.width, c.heads, c.channels), "btd,dhc->bhtc", name="q")(x_BTD), tables)
    k_BKTC = rotate(Project((c.width, c.kv_heads, c.channels), "btd,dkc->bktc", name="k")(x_BTD), tables)
    v_BKTC = Project((c.width, c.kv_heads, c.channels), "btd,dkc->bktc", name="v")(x_BTD)
    if past is not None:
      keys_BKSC, values_BKSC, index = past
      k_BKTC = jax.lax.dynamic_update_slice(keys_BKSC, k_BKTC.astype(keys_BKSC.dtype), (0, 0, index, 0))
      v_BKTC = jax.lax.dynamic_update_slice(values_BKSC, v_BKTC.astype(values_BKSC.dtype), (0, 0, index, 0))
    mixed_BHTC = attend(q_BHTC, k_BKTC, v_BKTC, allowed_BTS)
    out = Project((c.heads, c.channels, c.width), "bhtc,hcd->btd", reads=2, gain=(2 * c.layers) ** -0.5, name="o")
    return out(mixed_BHTC), (k_BKTC, v_BKTC)


class Mlp(nn.Module):
  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD):
    c = self.config
    act = ACTIVATIONS[c.activation]
    up_BTF = Project((c.width, c.ffn), "btd,df->btf", name="up")(x_BTD)
    if c.mlp == "gated":
      hidden_BTF = act(Project((c.width, c.ffn), "btd,df->btf", name="gate")(x_BTD)) * up_BTF
    else:
      hidden_BTF = act(up_BTF)
    return Project((c.ffn, c.width), "btf,fd->btd", gain=(2 * c.layers) ** -0.5, name="down")(hidden_BTF)


class Block(nn.Module):
  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD, tables, allowed_BTS, past=None):
    mixed_BTD, kept = Attention(self.config, name="attn")(
        Norm(self.config.norm_eps, name="attn_norm")(x_BTD), tables, allowed_BTS, past)
    x_BTD = x_BTD + mixed_BTD
    return x_BTD + Mlp(self.config, name="mlp")(Norm(self.config.norm_eps, name="mlp_norm")(x_BTD)), kept


class _Scanned(nn.Module):
  """One step of the scan over layers: a block whose keys and values nobody keeps."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD, tables, allowed_BTS):
    x_BTD, _ = Block(self.config, name="block")(x_BTD, tables, allowed_BTS)
    return nn.with_logical_constraint(x_BTD, ("batch", "tokens", "width")), None


class Decoder(nn.Module):
  """Tokens to hidden states after the final norm; `unembed` is left to the caller, who may chunk it."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, tokens_BT, positions_BT, segments_BT):
    check(tokens_BT=tokens_BT, positions_BT=positions_BT, segments_BT=segments_BT)
    c = self.config
    x_BTD = self._embed(tokens_BT)
    tables = rotary_tables(positions_BT, positions_BT.shape[1], c.channels, c.rope_theta)
    allowed_BTT = may_attend(positions_BT, positions_BT, segments_BT, segments_BT)
    scanned = _Scanned if c.remat == "none" else nn.remat(_Scanned, prevent_cse=False)
    stack = nn.scan(scanned, variable_axes={"params": 0}, split_rngs={"params": True}, length=c.layers,
                    in_axes=(nn.broadcast, nn.broadcast), unroll=min(c.unroll, c.layers))
    x_BTD, _ = stack(c, name="layers")(x_BTD, tables, allowed_BTT)
    if not c.tied:  # born here, used by `unembedding`: the head is applied in chunks, outside the module
      self.param("unembed", nn.initializers.normal(c.init_std), (c.width, c.vocab))
    return Norm(c.norm_eps, name="final_norm")(x_BTD)

  def _embed(self, tokens_BT):
    table_VD = self.param("embed", nn.initializers.normal(self.config.init_std), (self.config.vocab, self.config.width))
    x_BTD = jnp.take(table_VD, tokens_BT, axis=0).astype(self.config.dtype)
    return nn.with_logical_constraint(x_BTD, ("batch", "tokens", "width"))


def extend(config: DecoderConfig, params: dict, cache: Cache, tokens_BT, positions_BT, segments_BT):
  """Reads T more tokens a row into the cache: a prompt, a verifier's message, or one sampled token.

  `params` are the decoding parameters of `unstack`. Returns (hidden_BTD after the final norm, cache). The cache must
  have room for T more tokens: where the index stands is not known when this is traced, so nothing can refuse.
  """
  sizes = check(tokens_BT=tokens_BT, positions_BT=positions_BT, segments_BT=segments_BT)
  start, cache = cache.index, reserve(cache, positions_BT, segments_BT)
  tables = rotary_tables(positions_BT, cache.positions_BS.shape[1], config.channels, config.rope_theta)
  allowed_BTS = may_attend(positions_BT, cache.positions_BS, segments_BT, cache.segments_BS)
  x_BTD = jnp.take(params["embed"], tokens_BT, axis=0).astype(config.dtype)
  keys, values = [], []
  for layer, past_k, past_v in zip(params["layers"], cache.keys_BKSC, cache.values_BKSC, strict=True):
    x_BTD, (k, v) = Block(config).apply({"params": layer}, x_BTD, tables, allowed_BTS, (past_k, past_v, start))
    keys.append(k)
    values.append(v)
  hidden_BTD = Norm(config.norm_eps).apply({"params": params["final_norm"]}, x_BTD)
  check(hidden_BTD=hidden_BTD, tokens_BT=tokens_BT)
  assert sizes["B"] == hidden_BTD.shape[0]
  return hidden_BTD, cache.replace(keys_BKSC=tuple(keys), values_BKSC=tuple(values))


def unstack(params: dict, layers: int) -> dict:
  """Training parameters (layers stacked) -> decoding parameters (a tuple of layers), once per policy update."""
  block = params["layers"]["block"]
  split = tuple(jax.tree.map(lambda x, i=i: x[i], block) for i in range(layers))
  return {**params, "layers": split}
