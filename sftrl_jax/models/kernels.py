"""Attention of whole rows by an accelerator's own kernels, which never hold the scores of all heads, and which of them
a model uses.

They replace attention.attend in training and scoring, where there is no cache, and while a long prompt is read into an
empty one; on TPUs in the towers of pictures too. On a CPU, long rows are cut into blocks instead (cpu/blockwise.py),
and large pictures are read a head at a time (cpu/headwise.py).
splash takes the segment of each token and a window. This is the mask of attention.may_attend as long as positions
ascend within a segment, as they do in every layout of sftrl_jax.inputs, packed or padded on either side. cuDNN takes
the mask itself.
"""

import functools

import jax
import jax.numpy as jnp

from sftrl_jax.inputs import Inputs
from sftrl_jax.models import layout
from sftrl_jax.models.attention import attend_in_chunks, may_attend
from sftrl_jax.models.config import DecoderConfig
from sftrl_jax.models.cpu import blockwise

OF_PLATFORM = {"tpu": "splash", "gpu": "cudnn"}
SHORT = 2**15   # tokens of a prompt x columns of the cache up to which it is read as any message is
LANES, BLOCKS = 128, (512, 384, 256, 128)   # splash rows are a multiple of LANES tokens, processed in one of BLOCKS
REFUSED = -1e4   # a score that no other one makes up for, and which float16's range would hold


def chosen(config: DecoderConfig, platform: str, tokens: int = 0) -> str:
  """The kernel of config.attention, with "auto" decided; ValueError for one that cannot run this model there.

  tokens: of a row; 0 where they are not known or not all of them are new, and attention is not cut into blocks
  """
  if config.attention == "auto":
    best = OF_PLATFORM.get(platform, "blocks" if platform == "cpu" and tokens > blockwise.SHORT else "xla")
    return "xla" if _unavailable(best, config, platform) else best
  reason = _unavailable(config.attention, config, platform)
  if reason:
    raise ValueError(f"attention is {config.attention!r}, but {reason}: use auto, which takes what is available, or "
                     "xla.")
  return config.attention


def _unavailable(kernel: str, config: DecoderConfig, platform: str) -> str:
  """Why a kernel cannot run; "" if it can. splash can run anywhere: off a TPU it is interpreted, and very slow."""
  if kernel != "cudnn":
    return ""
  if platform != "gpu":
    return f"that is a kernel of NVIDIA's GPUs, and the devices are of kind {platform}"
  if jax.default_backend() == "gpu" and not _is_recent(jax.devices()[0]):
    return f"it needs an NVIDIA GPU of Ampere's generation or later, and there is {jax.devices()[0].device_kind}"
  if config.dtype != "bfloat16":
    return f"it computes in bfloat16, and dtype is {config.dtype!r}"
  if config.attention_softcap:
    return f"it has no soft cap, and attention_softcap is {config.attention_softcap:g}"
  if config.head_dim > 128 or config.head_dim % 8:
    return f"it takes a head_dim of at most 128 and a multiple of 8, and head_dim is {config.head_dim}"
  return ""


def _is_recent(device: jax.Device) -> bool:
  """Whether cuDNN's flash attention supports a GPU."""
  return "cuda" in device.client.platform_version and float(device.compute_capability) >= 8.0


def reads_itself(tokens: int, columns: int) -> bool:
  """Whether a prompt of so many tokens attends over these alone, and not over all columns of its empty cache, which
  for a short one costs nothing to speak of."""
  return tokens * columns > SHORT


def over_prompts(config: DecoderConfig, platform: str, inputs: Inputs) -> dict:
  """{kind of layer: attend_fn} of prompts that attend over themselves: the kernel of training, or queries in chunks."""
  c, kernel = config, chosen(config, platform)
  positions_BT, segments_BT = inputs.positions_BT, inputs.segments_BT

  def attend_fn(kind: str):
    window = c.window if kind == "local" else 0
    if kernel == "splash":
      return lambda q, k, v: splash(q, k, v, segments_BT, window, c.query_scale, c.attention_softcap)
    if kernel == "cudnn":
      allowed = may_attend(positions_BT, positions_BT, segments_BT, segments_BT, window)
      return lambda q, k, v: cudnn(q, k, v, allowed, c.query_scale)
    return lambda q, k, v: attend_in_chunks(q, k, v, inputs, window, c.query_scale, c.attention_softcap)

  return {kind: attend_fn(kind) for kind in c.kinds}


def cudnn(q_BHTC: jax.Array, k_BKTC: jax.Array, v_BKTC: jax.Array, allowed_BTT: jax.Array, scale: float = 0.0,
          implementation: str = "cudnn") -> jax.Array:
  """cuDNN's flash attention, with one mask for all heads. Rows are padded, as its backward pass needs an even length.

  implementation: "xla" computes the same call by XLA, on any platform
  """
  T = q_BHTC.shape[2]
  even = lambda x: jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, T % 2), (0, 0), (0, 0)))
  mask = jnp.pad(allowed_BTT, ((0, 0), (0, T % 2), (0, T % 2)))[:, None]
  mixed = jax.nn.dot_product_attention(even(q_BHTC), even(k_BKTC), even(v_BKTC), mask=mask, is_causal=True,
                                       scale=scale or None, implementation=implementation)
  return mixed[:, :T].swapaxes(1, 2)


def splash(q_BHTC: jax.Array, k_BKTC: jax.Array, v_BKTC: jax.Array, segments_BT: jax.Array, window: int = 0,
           scale: float = 0.0, softcap: float = 0.0, causal: bool = True) -> jax.Array:
  """JAX's block-sparse flash attention for TPUs; under a mesh each device computes its own rows and heads.

  causal: whether a token attends to none behind it in its row
  """
  B, H, T, C = q_BHTC.shape
  fill = -T % LANES
  pad = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, fill), (0, 0)))
  q_BHTC = pad(q_BHTC * jnp.asarray(scale or C**-0.5, q_BHTC.dtype))
  segments_BT = jnp.pad(segments_BT, ((0, 0), (0, fill)))
  kernel = functools.partial(_splash, window=window, softcap=softcap, causal=causal)
  return layout.by_device(kernel, q_BHTC, pad(k_BKTC), pad(v_BKTC), segments_BT)[:, :, :T]


def splash_of_tower(q_BHTC: jax.Array, k_BHTC: jax.Array, v_BHTC: jax.Array, padding_BT: jax.Array) -> jax.Array:
  """`splash` of a picture's tokens, each of which attends to all, but padding not to padding: scale C^-0.5.

  padding_BT: tokens of tiles that are not there. As segments cannot tell such a mask, one more channel has it: 1 in a
  query and REFUSED in a key that are padding, so that their score is beyond all others. Heads of a tower have spare
  channels on a TPU, which computes LANES of them at once.
  """
  B, H, T, C = q_BHTC.shape
  spare = -(C + 1) % LANES
  flag_BHT1 = jnp.broadcast_to(padding_BT[:, None, :, None], (B, H, T, 1)).astype(q_BHTC.dtype)
  last = ((0, 0), (0, 0), (0, 0))
  widen = lambda x, flag: jnp.pad(jnp.concatenate([x, flag], axis=-1), (*last, (0, spare)))
  q_BHTC = widen(q_BHTC * jnp.asarray(C**-0.5, q_BHTC.dtype), flag_BHT1)
  k_BHTC, v_BHTC = widen(k_BHTC, REFUSED * flag_BHT1), jnp.pad(v_BHTC, (*last, (0, 1 + spare)))
  everywhere_BT = jnp.ones((B, T), jnp.int32)
  return splash(q_BHTC, k_BHTC, v_BHTC, everywhere_BT, scale=1.0, causal=False)[..., :C]


def splash_by_kind(local: jax.Array, q_BHTC: jax.Array, k_BKTC: jax.Array, v_BKTC: jax.Array, segments_BT: jax.Array,
                   window: int, scale: float, softcap: float = 0.0) -> jax.Array:
  """`splash`, with the window where `local`, a traced bool scalar, is true."""
  near, far = (functools.partial(splash, window=size, scale=scale, softcap=softcap) for size in (window, 0))
  return jax.lax.cond(local, near, far, q_BHTC, k_BKTC, v_BKTC, segments_BT)


def _splash(q_BHTC, k_BKTC, v_BKTC, segments_BT, window: int, softcap: float, causal: bool):
  from jax.experimental.pallas.ops.tpu import splash_attention
  H, T = q_BHTC.shape[1:3]
  mask = (splash_attention.LocalMask((T, T), (window - 1, 0), 0) if window else
          splash_attention.CausalMask((T, T)) if causal else splash_attention.FullMask((T, T)))
  block = next(size for size in BLOCKS if T % size == 0)
  names = ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute",
           "block_q_dq", "block_kv_dq")
  kernel = splash_attention.make_splash_mha(
      splash_attention.MultiHeadMask([mask] * H), head_shards=1, q_seq_shards=1, interpret=layout.platform() != "tpu",
      attn_logits_soft_cap=softcap or None, block_sizes=splash_attention.BlockSizes(**dict.fromkeys(names, block)))
  return jax.vmap(kernel)(q_BHTC, k_BKTC, v_BKTC, splash_attention.SegmentIds(segments_BT, segments_BT))
