"""The decoder as Flax linen modules: scanned over layers for training, layer by layer over a cache for decoding."""

import functools
import math
import re
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from sftrl_jax.inputs import Inputs, group_rows, whole_rows
from sftrl_jax.models import kernels
from sftrl_jax.models.attention import GroupLayout, attend, by_kind, layout_of, rotate
from sftrl_jax.models.cache import Cache, reserve, write_at
from sftrl_jax.models.config import DecoderConfig
from sftrl_jax.models.cpu.blockwise import attend_blockwise, block_mask
from sftrl_jax.models.cpu.products import by_matrices, flattened
from sftrl_jax.models.layout import HEADS, ROWS, SPREAD, STATIONARY, STATIONARY_HEADS, constrain, platform
from sftrl_jax.models.lora import low_rank
from sftrl_jax.projections import PROJECTIONS, Projection
from sftrl_jax.shapes import check

LARGE = 2**16  # numbers in a kernel from which decoding parameters hold it as a matrix, see `unstack`
SAVED = "saved"   # the checkpoint name of what remat "light" and "offload" save
ACTIVATIONS = {"silu": nn.silu, "relu": nn.relu, "gelu": lambda x: nn.gelu(x, approximate=True)}


class Norm(nn.Module):
  """RMSNorm over the last axis: x / rms(x) * scale, in f32 (Zhang & Sennrich 2019); plus_one: * (1 + scale)."""

  eps: float
  plus_one: bool = False

  @nn.compact
  def __call__(self, x):
    scale = self.param("scale", nn.initializers.zeros if self.plus_one else nn.initializers.ones, (x.shape[-1],))
    scale = 1.0 + scale.astype(jnp.float32) if self.plus_one else scale
    x32 = x.astype(jnp.float32)
    unit = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + self.eps)
    return (unit * jnp.expand_dims(scale, range(x.ndim - 1))).astype(x.dtype)


class Project(nn.Module):
  """A projection of the table, applied by an einsum: equation(x, kernel). Initialised by fan-in, times `gain`."""

  config: DecoderConfig
  projection: Projection
  equation: str
  gain: float = 1.0

  @nn.compact
  def __call__(self, x):
    if self.has_variable("params", "matrix"):
      return self._by_matrix(x)
    shape = self.projection.shape(self.config)
    fan_in = math.prod(shape[: len(self.projection.reads)])
    kernel = self.param("kernel", nn.initializers.normal(self.gain * fan_in**-0.5), shape)
    y = (by_matrices if flattened(self.config.flatten) else jnp.einsum)(self.equation, x, kernel.astype(x.dtype))
    if self.has_variable("params", "a"):  # an adapter beside the kernel
      y = y + low_rank(self.equation, x, *(self.get_variable("params", name) for name in ("a", "b", "scale")))
    return self._with_bias(y)

  def _by_matrix(self, x):
    """The same with a kernel as `_matrices` lays it out: moves the axes that it reads last in x, multiplies, and puts
    the axes of the result in the equation's order."""
    inputs, kernel, out = re.split(",|->", self.equation)
    reads, shape = len(self.projection.reads), self.projection.shape(self.config)
    read, written = kernel[:reads], kernel[reads:]
    rows = "".join(letter for letter in inputs if letter not in read)
    x = jnp.einsum(f"{inputs}->{rows}{read}", x)
    sizes = x.shape[: len(rows)]
    matrix = self.get_variable("params", "matrix").astype(x.dtype)
    y = jnp.einsum("ri,oi->ro", x.reshape(math.prod(sizes), -1), matrix)
    if weights_stationary(sizes[-1]):   # each device writes its share, and no part of the matrix is sent
      y = constrain(y, ("replicas", self.projection.writes[0]))
    y = jnp.einsum(f"{rows}{written}->{out}", y.reshape(*sizes, *shape[reads:]))
    return self._with_bias(y)

  def _with_bias(self, y):
    """y + bias, if the model has one: with axes of size 1 where the kernel writes none, as the equation orders them."""
    if not self.projection.has_bias(self.config):
      return y
    shape = self.projection.shape(self.config)
    bias = self.param("bias", nn.initializers.zeros, shape[len(self.projection.reads):])
    _, kernel, written = re.split(",|->", self.equation)
    broadcast = [axis for axis, letter in enumerate(written) if letter not in kernel]
    return y + jnp.expand_dims(bias.astype(y.dtype), broadcast)


def project(config: DecoderConfig, path: str, equation: str, gain: float = 1.0) -> Project:
  """The module of a projection, with the name that parameter trees have it under."""
  projection = PROJECTIONS[path]
  return Project(config, projection, equation, gain, name=projection.name)


def _norm_of_heads(config: DecoderConfig, name: str, x_BHTC: jax.Array) -> jax.Array:
  """x_BHTC after the norm of queries or keys, if the model has it. To be called within a module."""
  if not config.qk_norm:
    return x_BHTC
  norm = Norm(config.norm_eps, config.norm_plus_one, name=name)
  if not config.qk_norm_whole:
    return norm(x_BHTC)
  B, H, T, C = x_BHTC.shape
  return norm(x_BHTC.swapaxes(1, 2).reshape(B, T, H * C)).reshape(B, T, H, C).swapaxes(1, 2)


class Attention(nn.Module):
  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD, tables, attend_fn, past=None):
    """(output_BTD, (keys, values)). Without `past`, attends over the rows themselves. With past = (write, empty),
    attends over write(new keys, new values), which is the whole cache; where it is empty, over the rows themselves.

    attend_fn: (q_BHTC, k_BKSC, v_BKSC) -> mixed_BHTC, which applies the mask.
    """
    c = self.config
    norm = functools.partial(_norm_of_heads, c)
    q_BHTC = rotate(norm("q_norm", project(c, "attn/q", "btd,dhc->bhtc")(x_BTD)), tables)
    k_BKTC = rotate(norm("k_norm", project(c, "attn/k", "btd,dkc->bktc")(x_BTD)), tables)
    v_BKTC = project(c, "attn/v", "btd,dkc->bktc")(x_BTD)
    own = k_BKTC, v_BKTC
    if past is not None:
      write, empty = past
      q_BHTC, k_BKTC, v_BKTC = (constrain(x, HEADS) for x in (q_BHTC, k_BKTC, v_BKTC))
      own = k_BKTC, v_BKTC
      k_BKTC, v_BKTC = write(k_BKTC, v_BKTC)
      # Without the barrier XLA keeps one copy to read here and one for the loop to carry, and so copies the whole cache
      # at every step.
      k_BKTC, v_BKTC = (constrain(x, HEADS) for x in jax.lax.optimization_barrier((k_BKTC, v_BKTC)))
    mixed_BHTC = mark_saved(c, attend_fn(q_BHTC, *(own if past is None or empty else (k_BKTC, v_BKTC))))
    if past is not None and weights_stationary(x_BTD.shape[1]):
      mixed_BHTC = constrain(mixed_BHTC, STATIONARY_HEADS)
    return project(c, "attn/o", "bhtc,hcd->btd", gain=(2 * c.layers) ** -0.5)(mixed_BHTC), (k_BKTC, v_BKTC)


class Mlp(nn.Module):
  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD, stationary: bool = False):
    c = self.config
    act = ACTIVATIONS[c.activation]
    with_layout = lambda x_BTF: constrain(x_BTF, ("replicas", "tokens", "ffn")) if stationary else x_BTF
    up_BTF = mark_saved(c, with_layout(project(c, "mlp/up", "btd,df->btf")(x_BTD)))
    if c.mlp == "gated":
      gate_BTF = mark_saved(c, with_layout(project(c, "mlp/gate", "btd,df->btf")(x_BTD)))
      hidden_BTF = act(gate_BTF) * up_BTF
    else:
      hidden_BTF = act(up_BTF)
    return project(c, "mlp/down", "btf,fd->btd", gain=(2 * c.layers) ** -0.5)(hidden_BTF)


class Block(nn.Module):
  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD, tables, attend_fn, past=None):
    """(x_BTD after the block, (keys, values)); arguments as of Attention."""
    c = self.config
    norm = lambda name, x: Norm(c.norm_eps, c.norm_plus_one, name=name)(x)
    before = lambda name, x: norm(name, x) if c.pre_norms else x
    after = lambda name, x: norm(name, x) if c.post_norms else x
    scaled = lambda x: x if c.residual_scale == 1 else x * jnp.asarray(c.residual_scale, x.dtype)
    stationary = past is not None and weights_stationary(x_BTD.shape[1])
    with_layout = lambda x: constrain(x, STATIONARY) if stationary else x
    mixed_BTD, keys_values = Attention(c, name="attn")(before("attn_norm", x_BTD), tables, attend_fn, past)
    x_BTD = with_layout(x_BTD + scaled(after("attn_post_norm", mixed_BTD)))
    mlp_BTD = Mlp(c, name="mlp")(before("mlp_norm", x_BTD), stationary)
    return with_layout(x_BTD + scaled(after("mlp_post_norm", mlp_BTD))), keys_values


class Scanned(nn.Module):
  """One step of the scan over layers: a block whose keys and values are dropped."""

  config: DecoderConfig
  kernel: str
  group: GroupLayout | None = None

  @nn.compact
  def __call__(self, x_BTD, kind, tables, mask):
    """kind: int32 scalar, which of the sorted kinds of `tables` this layer is; None where all layers are of one kind.
    tables: {kind: rotary tables}.

    mask: {kind: allowed_BTS}, {kind: BlockMask} of blocks, or segments_BT where the kernel is splash.
    group: of rows that share prompts, whose x_BTD has a row a group and whose mask is that of whole rows
    """
    c, of_this_layer = self.config, functools.partial(of_kind, kind)
    by_mask = lambda q, k, v, allowed_BTS: attend(q, k, v, allowed_BTS, c.query_scale, c.attention_softcap)
    if self.kernel == "cudnn":
      attend_fn = lambda q, k, v: kernels.cudnn(q, k, v, of_this_layer(mask), c.query_scale)
    elif self.kernel == "xla":
      attend_fn = lambda q, k, v: by_mask(q, k, v, of_this_layer(mask))
    elif self.kernel == "blocks":
      attend_fn = lambda q, k, v: attend_blockwise(q, k, v, of_this_layer(mask), c.query_scale, c.attention_softcap)
    elif kind is None or "local" not in tables:
      window = c.window if "local" in tables else 0
      attend_fn = lambda q, k, v: kernels.splash(q, k, v, mask, window, c.query_scale, c.attention_softcap)
    else:
      local = kind == sorted(tables).index("local")
      attend_fn = lambda q, k, v: kernels.splash_by_kind(local, q, k, v, mask, c.window, c.query_scale,
                                                         c.attention_softcap)
    if self.group is not None:
      attend_fn = (self.group.by_parts(by_mask, of_this_layer(mask)) if self.kernel == "xla" else
                   self.group.by_rows(attend_fn))
    x_BTD, _ = Block(c, name="block")(x_BTD, of_this_layer(tables), attend_fn)
    return constrain(x_BTD, ROWS), None


def of_kind(kind: jax.Array | None, kinds: dict):
  """The entry of a layer's kind, as of Scanned."""
  if kind is None:
    return next(iter(kinds.values()))
  return jax.tree.map(lambda *cases: jax.lax.select_n(kind, *cases), *(kinds[name] for name in sorted(kinds)))


class Decoder(nn.Module):
  """Tokens to hidden states after the final norm. The caller unembeds them, and may do so in chunks.
  splice: from embeddings x_BTD of tokens to what the first layer reads, where pictures stand in some places."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, inputs: Inputs, splice: Callable = lambda x_BTD: x_BTD) -> jax.Array:
    check(tokens_BT=inputs.tokens_BT, positions_BT=inputs.positions_BT, segments_BT=inputs.segments_BT)
    c, group, rows, inputs = self.config, layout_of(inputs), whole_rows(inputs), group_rows(inputs)
    table_VD = self.param("embed", nn.initializers.normal(c.init_std), (c.vocab, c.width))
    x_BTD = constrain(splice(look_up(c, table_VD, inputs.tokens_BT)), ROWS)
    kernel = kernels.chosen(c, platform(), rows.tokens_BT.shape[1])
    tables, allowed = by_kind(c, *(inputs.positions_BT, inputs.segments_BT) * 2)
    if group is not None:   # what attends are whole rows
      _, allowed = by_kind(c, *(rows.positions_BT, rows.segments_BT) * 2)
    mask = {kind: block_mask(allowed_BTT) for kind, allowed_BTT in allowed.items()} if kernel == "blocks" else allowed
    kind_N = jnp.asarray([sorted(tables).index(kind) for kind in c.kinds], jnp.int32) if len(tables) > 1 else None
    scanned = Scanned if c.remat == "none" else nn.remat(Scanned, prevent_cse=False, policy=remat_policy(c))
    stack = nn.scan(scanned, variable_axes={"params": 0}, split_rngs={"params": True}, length=c.layers,
                    in_axes=(nn.broadcast if kind_N is None else 0, nn.broadcast, nn.broadcast),
                    unroll=min(c.unroll, c.layers))
    x_BTD, _ = stack(c, kernel, group, name="layers")(
        x_BTD, kind_N, tables, rows.segments_BT if kernel == "splash" else mask)
    if not c.tie_embeddings:  # `Model.unembedding` reads it: the head is applied in chunks, outside the module
      self.param("unembed", nn.initializers.normal(c.init_std), (c.width, c.vocab))
    x_BTD = Norm(c.norm_eps, c.norm_plus_one, name="final_norm")(x_BTD)
    return x_BTD if group is None else group.after(x_BTD)


def weights_stationary(tokens: int) -> bool:
  """Whether matrices stay on their devices and activations are sent, by the tokens of a row.

  So it is for one token a row, where a matrix is much larger than all activations; else they stay (Pope et al. 2022).
  """
  return tokens == 1


def mark_saved(config: DecoderConfig, x: jax.Array) -> jax.Array:
  """x; remat "light" and "offload" save it for the backward pass, and recompute what is not marked."""
  return checkpoint_name(x, SAVED) if config.remat in ("light", "offload") else x


def remat_policy(config: DecoderConfig) -> Callable | None:
  """What is saved for the backward pass, as jax.checkpoint takes it; None: nothing, but the input of each block.

  "offload" moves what "light" saves to the host's memory. Of a CPU this is the device's own, so there they are equal.
  """
  policies = jax.checkpoint_policies
  if config.remat == "auto":
    raise ValueError('remat is "auto", which only a run replaces: give none, light, full or offload.')
  if config.remat == "offload" and platform() != "cpu":
    return policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[], names_which_can_be_offloaded=[SAVED], offload_src="device",
        offload_dst="pinned_host")
  return policies.save_only_these_names(SAVED) if config.remat in ("light", "offload") else None


def look_up(config: DecoderConfig, table_VD: jax.Array, tokens_BT: jax.Array) -> jax.Array:
  """The embeddings of tokens times config.embed_scale, both in the dtype of activations.

  No device needs the whole table. For many tokens a row, each device looks up its own channels of every id, for which
  the table may have to be resharded. For one token a row the table stays where it is: each device looks up the ids that
  it holds, and the devices add up.
  """
  stationary = weights_stationary(tokens_BT.shape[1])
  table_VD = table_VD if stationary else constrain(table_VD, ("across", "spread"))
  x_BTD = constrain(jnp.take(table_VD, tokens_BT, axis=0).astype(config.dtype), STATIONARY if stationary else SPREAD)
  return x_BTD if config.embed_scale == 1 else x_BTD * jnp.asarray(config.embed_scale, x_BTD.dtype)


def extend(config: DecoderConfig, params: dict, cache: Cache, inputs: Inputs, empty: bool = False,
           splice: Callable = lambda x_BTD: x_BTD) -> tuple[jax.Array, Cache]:
  """(hidden_BTD after the final norm, cache) after reading T more tokens a row: a prompt, a message, a sampled token.

  params: the decoding parameters of `unstack`. cache: must have room for T more tokens; nothing checks it, because the
  write index is not known at trace time. empty: whether nothing is in the cache. splice: as of Decoder.
  """
  tokens_BT, positions_BT, segments_BT = inputs.tokens_BT, inputs.positions_BT, inputs.segments_BT
  check(tokens_BT=tokens_BT, positions_BT=positions_BT, segments_BT=segments_BT)
  start, cache = cache.index, reserve(cache, positions_BT, segments_BT)
  tables, allowed = by_kind(config, positions_BT, segments_BT, cache.positions_BS, cache.segments_BS)
  x_BTD = splice(look_up(config, params["embed"], tokens_BT))
  x_BTD = x_BTD if weights_stationary(tokens_BT.shape[1]) else constrain(x_BTD, ROWS)
  reads_itself = empty and kernels.reads_itself(tokens_BT.shape[1], cache.positions_BS.shape[1])
  by_mask = lambda allowed_BTS: functools.partial(attend, allowed_BTS=allowed_BTS, scale=config.query_scale,
                                                  softcap=config.attention_softcap)
  attend_fns = (kernels.over_prompts(config, platform(), inputs) if reads_itself else
                {kind: by_mask(mask) for kind, mask in allowed.items()})
  keys, values = [], []
  layers = zip(config.kinds, params["layers"], cache.keys_BKSC, cache.values_BKSC, strict=True)
  for kind, layer, past_k, past_v in layers:
    write = functools.partial(write_at, start, past_k, past_v)
    x_BTD, (k, v) = Block(config).apply({"params": layer}, x_BTD, tables[kind], attend_fns[kind],
                                        (write, reads_itself))
    keys.append(k)
    values.append(v)
  hidden_BTD = Norm(config.norm_eps, config.norm_plus_one).apply({"params": params["final_norm"]}, x_BTD)
  return hidden_BTD, cache.replace(keys_BKSC=tuple(keys), values_BKSC=tuple(values))


def unstack(params: dict, layers: int) -> dict:
  """Training parameters (layers stacked) -> decoding parameters (a tuple of layers), once per policy update.

  Kernels of at least LARGE numbers become matrices [written, read]: XLA's CPU backend transposes any other layout again
  for every token, at twice the cost of the product. Smaller kernels keep their shape.
  """
  block = params["layers"]["block"]
  split = tuple(_matrices(jax.tree.map(lambda x, i=i: x[i], block)) for i in range(layers))
  return {**params, "layers": split}


def _matrices(layer: dict) -> dict:
  """A layer with the large kernels of its projections as matrices [written, read]."""

  def with_matrix(path, leaves):
    if path not in PROJECTIONS or leaves["kernel"].size < LARGE:
      return leaves
    rest = {name: leaf for name, leaf in leaves.items() if name != "kernel"}
    kernel, reads = leaves["kernel"], len(PROJECTIONS[path].reads)
    return {**rest, "matrix": kernel.reshape(math.prod(kernel.shape[:reads]), -1).T}

  parts = {path.partition("/")[0] for path in PROJECTIONS}
  return {part: {name: with_matrix(f"{part}/{name}", leaves) for name, leaves in modules.items()} if part in parts else
          modules for part, modules in layer.items()}
