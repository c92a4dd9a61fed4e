"""Low-rank adapters: x W + scale (x a) b, where W is frozen and a and b are trained (Hu et al. 2021).

Adapters are a tree of their own, layers/block/attn/q/{a,b} for the base's layers/block/attn/q/kernel: the base has no
gradient, no optimizer state and no second copy. `attach` puts both into one tree for the decoder; `merge` adds adapters
to the kernels, which gives a plain tree.
"""

import dataclasses
import fnmatch
import math
import re
import zlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from sftrl_jax import trees
from sftrl_jax.projections import PROJECTIONS, SINGLES, STACK, STACKS, is_stacked, stack_of

EVERYWHERE = (*(f"*{path}" for path in PROJECTIONS if path.startswith("attn/")), "*mlp/*")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
  """Adapters that are trained instead of the model. A good learning rate is about ten times that of full training.

  rank: columns of a and rows of b (0: no adapters, everything is trained)
  alpha: strength of the adapters: their product is multiplied by alpha / rank
  targets: globs of the projections that are adapted; all of them do better than attention alone. A glob reaches
    projections outside the decoder's own blocks only where it spells the beginning of their path: vision/tower/*,
    vision/connector/*, cross_layers/*
  scaling: "rank" divides alpha by the rank, "root" by its square root, which keeps large ranks learning (rsLoRA)
  """

  rank: int = 0
  alpha: float = 16.0
  targets: tuple[str, ...] = EVERYWHERE
  scaling: Literal["rank", "root"] = "rank"

  def __post_init__(self):
    if isinstance(self.targets, str):
      raise ValueError(f"targets is {self.targets!r}; it must be a list of globs, such as ('*attn/q', '*attn/v').")
    object.__setattr__(self, "targets", tuple(self.targets))
    if self.rank < 0:
      raise ValueError(f"rank is {self.rank}; it must be 0 (no adapters) or positive.")
    if not 0 < self.alpha < math.inf:
      raise ValueError(f"alpha is {self.alpha}; it must be positive, for example 16.")
    if self.rank and not self.targets:
      raise ValueError("targets is empty, so rank has nothing to adapt: name some, such as ('*attn/q', '*attn/v').")
    if self.scaling not in ("rank", "root"):
      raise ValueError(f"scaling is {self.scaling!r}; it must be one of rank, root.")

  @property
  def scale(self) -> float:
    return self.alpha / (self.rank if self.scaling == "rank" else math.sqrt(self.rank))


def projections(base: dict) -> dict[str, int]:
  """{path of a projection that can be adapted: how many axes its kernel reads, behind those of a stack's layers}."""
  reads = {f"{stack}{path}/kernel": len(projection.reads) for stack, projections in STACKS.items()
           for path, projection in projections.items()}
  reads |= {f"{path}/kernel": len(axes) for path, (axes, _) in SINGLES.items()}
  return {path.removesuffix("/kernel"): reads[path] for path in trees.leaves(base) if path in reads}


def chosen(lora: LoraConfig, base: dict) -> dict[str, int]:
  """The projections that are adapted, as of `projections`. ValueError for a target that matches none, and for a rank
  above the smaller side of a kernel."""
  available = projections(base)
  for target in lora.targets:
    if not any(_reaches(target, path) for path in available):
      raise ValueError(f"targets has {target!r}, which matches no projection; there are {', '.join(available)}.")
  matches = lambda path: any(_reaches(target, path) for target in lora.targets)
  adapted = {path: reads for path, reads in available.items() if matches(path)}
  for path, reads in adapted.items():
    read, written = (math.prod(sizes) for sizes in _sides(base, path, reads))
    if lora.rank > min(read, written):
      raise ValueError(f"rank is {lora.rank}, but {path} reads {read} channels and writes {written}: use at most "
                       f"{min(read, written)}, or leave it out of targets.")
  return adapted


def _reaches(target: str, path: str) -> bool:
  """Whether a glob of LoraConfig.targets means a projection. `*mlp/*` is of the decoder: a tower has to be named."""
  part = path.partition("/")[0]
  return fnmatch.fnmatchcase(path, target) and (stack_of(path) == STACK or target.startswith(f"{part}/"))


def init(lora: LoraConfig, base: dict, key: jax.Array) -> dict:
  """Initial adapters: a is uniform within 1 / sqrt(fan-in), b is zero, so that they add nothing. Only shapes of `base`
  are read, and the draw of a projection does not depend on which others are adapted."""
  leaves = {}
  for path, reads in chosen(lora, base).items():
    read, written = _sides(base, path, reads)
    layers, bound = _kernel(base, path).shape[: is_stacked(path)], math.prod(read) ** -0.5
    path_key = jax.random.fold_in(key, zlib.crc32(path.encode()))
    leaves[f"{path}/a"] = jax.random.uniform(path_key, (*layers, *read, lora.rank), minval=-bound, maxval=bound)
    leaves[f"{path}/b"] = jnp.zeros((*layers, lora.rank, *written))
  return traverse_util.unflatten_dict(leaves, sep="/")


def count(lora: LoraConfig, base: dict) -> int:
  """The number of parameters of the adapters; 0 without any."""
  return trees.size(jax.eval_shape(lambda key: init(lora, base, key), jax.random.key(0))) if lora.rank else 0


def reads_pictures(lora: LoraConfig, base: dict) -> bool:
  """Whether some adapters stand in what reads pictures, so that gradients reach it."""
  return bool(lora.rank) and any(path.startswith("vision/") for path in chosen(lora, base))


def attach(base: dict, adapters: dict, lora: LoraConfig, path: str = "") -> dict:
  """The base with a, b and their scale beside the kernels that are adapted. Nothing is computed or copied.

  path: of the tree within a model's, which ends in / unless it is empty
  """
  if "kernel" in base:
    layers = adapters["a"].shape[: is_stacked(path)]
    return {**base, **adapters, "scale": np.full(layers, lora.scale, np.float32)}
  return {name: attach(item, adapters[name], lora, f"{path}{name}/") if name in adapters else item
          for name, item in base.items()}


def merge(params: Any) -> Any:
  """The tree without adapters that computes the same, with kernel + scale * a b; a tree without adapters as it is."""
  if isinstance(params, tuple):
    return tuple(map(merge, params))
  if not isinstance(params, dict):
    return params
  if not {"kernel", "a", "b", "scale"} <= params.keys():
    return {name: merge(item) for name, item in params.items()}
  kernel, a, b, scale = (params[name] for name in ("kernel", "a", "b", "scale"))
  stack, rank = np.shape(scale), a.shape[-1]
  flat = a.reshape(*stack, -1, rank), b.reshape(*stack, rank, -1)
  # By default an accelerator would round the product at 2^-8.
  product = jnp.einsum("...ir,...rj->...ij", *flat, precision="highest") * jnp.asarray(scale)[..., None, None]
  merged = (kernel.astype(jnp.float32) + product.reshape(kernel.shape)).astype(kernel.dtype)
  return {**{name: item for name, item in params.items() if name not in ("a", "b", "scale")}, "kernel": merged}


def whole(params: dict, frozen: dict, lora: LoraConfig) -> dict:
  """The tree {"model": ..., heads} that an objective reads: `params`, with their adapters attached to the frozen model
  if they have any."""
  if "lora" not in params:
    return params
  heads = {name: tree for name, tree in params.items() if name != "lora"}
  return {"model": attach(frozen["model"], params["lora"], lora), **heads}


def low_rank(equation: str, x: jax.Array, a: jax.Array, b: jax.Array, scale: jax.Array) -> jax.Array:
  """scale (x a) b, to be added to einsum(equation, x, kernel). b is scaled in f32: bfloat16 would round most quotients
  alpha / rank, and merged parameters would not be the ones that were trained."""
  inputs, kernel, out = re.split(",|->", equation)
  read, written = ("".join(letter for letter in kernel if (letter in inputs) == wanted) for wanted in (True, False))
  rows = "".join(letter for letter in inputs if letter not in kernel)
  low = jnp.einsum(f"{inputs},{read}r->{rows}r", x, a.astype(x.dtype))
  return jnp.einsum(f"{rows}r,r{written}->{out}", low, (b * scale).astype(x.dtype))


def _kernel(base: dict, path: str):
  for name in path.split("/"):
    base = base[name]
  return base["kernel"]


def _sides(base: dict, path: str, reads: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """(sizes of the axes read, of the axes written) by a kernel, one layer's of a stack."""
  sizes = _kernel(base, path).shape[is_stacked(path):]
  return tuple(sizes[:reads]), tuple(sizes[reads:])
