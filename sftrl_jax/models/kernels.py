"""Attention of whole rows by an accelerator's own kernels, which never hold the scores of all heads.

They stand in for attention.attend where nothing is cached, in training and scoring. splash is told a segment a token
and a window. That is all that attention.may_attend says too, as long as positions ascend within a segment, for then
standing earlier in the row is being earlier in the text: so it is in every layout of sftrl_jax.inputs, packed or padded
on either side. cuDNN is given the mask itself.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from sftrl_jax.models import layout
from sftrl_jax.models.config import DecoderConfig

OF_PLATFORM = {"tpu": "splash", "gpu": "cudnn"}
LANES, BLOCKS = 128, (512, 384, 256, 128)   # tokens of a splash row are a multiple of LANES, read a block at a time


def chosen(config: DecoderConfig, platform: str) -> str:
  """config.attention with "auto" decided; ValueError for a kernel that these devices or this model cannot have."""
  if config.attention == "auto":
    best = OF_PLATFORM.get(platform, "xla")
    return "xla" if _lacks(best, config, platform) else best
  lacks = _lacks(config.attention, config, platform)
  if lacks:
    raise ValueError(f"attention is {config.attention!r}, but {lacks}: use auto, which takes what there is, or xla.")
  return config.attention


def _lacks(kernel: str, config: DecoderConfig, platform: str) -> str:
  """Why a kernel cannot be had. splash has none off a TPU: there it is interpreted, which is right and very slow."""
  if kernel != "cudnn":
    return ""
  if platform != "gpu":
    return f"that is a kernel of NVIDIA's GPUs, and the devices are of kind {platform}"
  if jax.default_backend() == "gpu" and not _is_recent(jax.devices()[0]):
    return f"it needs an NVIDIA GPU of Ampere's generation or later, and there is {jax.devices()[0].device_kind}"
  if config.dtype != "bfloat16":
    return f"it computes in bfloat16, and dtype is {config.dtype!r}"
  if config.head_dim > 128 or config.head_dim % 8:
    return f"it takes heads of at most 128 channels, in eights, and head_dim is {config.head_dim}"
  return ""


def _is_recent(device) -> bool:
  """Whether a GPU has what cuDNN's flash attention is written for."""
  return "cuda" in device.client.platform_version and float(device.compute_capability) >= 8.0


def cudnn(q_BHTC, k_BKTC, v_BKTC, allowed_BTT, scale: float = 0.0, implementation: str = "cudnn") -> jax.Array:
  """cuDNN's flash attention; the mask is one for all heads. Its backward pass wants an even number of tokens.

  implementation: "xla" is the same call computed by XLA, anywhere.
  """
  T = q_BHTC.shape[2]
  even = lambda x: jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, T % 2), (0, 0), (0, 0)))
  mask = jnp.pad(allowed_BTT, ((0, 0), (0, T % 2), (0, T % 2)))[:, None]
  mixed = jax.nn.dot_product_attention(even(q_BHTC), even(k_BKTC), even(v_BKTC), mask=mask, is_causal=True,
                                       scale=scale or None, implementation=implementation)
  return mixed[:, :T].swapaxes(1, 2)


def splash(q_BHTC, k_BKTC, v_BKTC, segments_BT, window: int = 0, scale: float = 0.0) -> jax.Array:
  """JAX's block-sparse flash attention for TPUs, on each device for the rows and heads that it has."""
  B, H, T, C = q_BHTC.shape
  fill = -T % LANES
  long = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, fill), (0, 0)))
  q_BHTC = long(q_BHTC * jnp.asarray(scale or C**-0.5, q_BHTC.dtype))
  segments_BT = jnp.pad(segments_BT, ((0, 0), (0, fill)))
  kernel = functools.partial(_splash, window=window, interpret=layout.platform() != "tpu")
  where = layout.spec(q_BHTC.shape, layout.HEADS)
  if where is not None:
    mesh, heads = jax.sharding.get_abstract_mesh(), where[1]
    copies = math.lcm(k_BKTC.shape[1], mesh.shape[heads] if heads else 1) // k_BKTC.shape[1]
    k_BKTC, v_BKTC = (jnp.repeat(x, copies, axis=1) for x in (k_BKTC, v_BKTC))   # one kv head a device at least
    kernel = jax.shard_map(kernel, in_specs=(where, where, where, PartitionSpec(where[0], None)), out_specs=where,
                           check_vma=False)
  return kernel(q_BHTC, long(k_BKTC), long(v_BKTC), segments_BT)[:, :, :T]


def splash_by_kind(local, q_BHTC, k_BKTC, v_BKTC, segments_BT, window: int, scale: float) -> jax.Array:
  """`splash` with the window where `local`, a scalar of the program, is true."""
  near, far = (functools.partial(splash, window=size, scale=scale) for size in (window, 0))
  return jax.lax.cond(local, near, far, q_BHTC, k_BKTC, v_BKTC, segments_BT)


def _splash(q_BHTC, k_BKTC, v_BKTC, segments_BT, window: int, interpret: bool):
  from jax.experimental.pallas.ops.tpu.splash_attention import (
      splash_attention_kernel as kernels,
      splash_attention_mask as masks,
  )
  H, T = q_BHTC.shape[1:3]
  mask = masks.LocalMask((T, T), (window - 1, 0), 0) if window else masks.CausalMask((T, T))
  block = next(size for size in BLOCKS if T % size == 0)
  names = ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute",
           "block_q_dq", "block_kv_dq")
  kernel = kernels.make_splash_mha(masks.MultiHeadMask([mask] * H), head_shards=1, q_seq_shards=1, interpret=interpret,
                                   block_sizes=kernels.BlockSizes(**dict.fromkeys(names, block)))
  return jax.vmap(kernel)(q_BHTC, k_BKTC, v_BKTC, kernels.SegmentIds(segments_BT, segments_BT))
