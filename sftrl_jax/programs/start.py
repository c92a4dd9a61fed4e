"""Where a run's parameters come from: newborn, shipped, pretrained, or a step of a run (origin.py says which)."""

import json
from pathlib import Path

import jax
import numpy as np

from sftrl_jax import trees
from sftrl_jax.checkpoints import store as stores
from sftrl_jax.models import DecoderConfig, Model
from sftrl_jax.parallel import rules
from sftrl_jax.programs import origin as origins, pretrained
from sftrl_jax.programs.origin import Origin
from sftrl_jax.programs.settings import ConfigError

BASES = Path(__file__).parents[1] / "bases"
SHAPING = ("width", "layers", "heads", "kv_heads", "channels", "ffn", "mlp", "tied")  # what parameters depend on


def check(start: str, model: Model | None = None) -> None:
  """ConfigError for a start that cannot be, or that is not of this model, before anything is written."""
  if start == "scratch":
    return
  if start.startswith("base:"):
    if not _base(start).is_file():
      there = ", ".join(f"base:{path.stem}" for path in sorted(BASES.glob("*.npz")))
      raise ConfigError(f"config.start is {start!r}, which is not shipped; there are: {there or 'none'}.")
    if model is not None:
      _read(_base(start), jax.eval_shape(model.init, jax.random.key(0)))
    return
  if pretrained.check(start, model):
    return
  origin = _origin(start)
  if model is not None:
    _same_shape(origin, model)
  from sftrl_jax.programs import adapters
  if adapters.of(origin.home):
    adapters.check(origin.home)


def load(start: str, model: Model, seed: int, mesh) -> dict:
  """params["model"] on the mesh, f32: newborn, shipped, or of a checkpoint."""
  where = rules.shardings({"model": jax.eval_shape(model.init, jax.random.key(0))}, mesh)["model"]
  if start == "scratch":
    return jax.jit(model.init, out_shardings=where)(jax.random.key(seed))
  like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
                      jax.eval_shape(model.init, jax.random.key(0)), where)
  if start.startswith("base:"):
    return _shipped(_base(start), like)
  weights = pretrained.load(start, model.config, where)
  if weights is not None:
    return weights
  origin = _origin(start)
  _same_shape(origin, model)
  from sftrl_jax.programs import adapters  # which load their base by this function
  if lora := adapters.of(origin.home):
    return adapters.load(origin.home, origin.step, model, mesh, lora)[0]
  params, _ = stores.restore_params(origin.home, origin.step, like)
  return params


def _origin(start: str) -> Origin:
  if not start:
    raise ConfigError("config.start is '': give scratch, base:NAME, pretrained weights (a Hugging Face directory or "
                      "id, a .gguf file, smollm2), or the workdir of a run, WORKDIR[@STEP].")
  return origins.parse(start, origins.said(start))


def _base(start: str) -> Path:
  return BASES / f"{start.removeprefix('base:')}.npz"


def _shipped(path: Path, like: dict) -> dict:
  there = _read(path, like)
  put = lambda name, leaf: jax.device_put(there[name].astype(leaf.dtype), leaf.sharding)
  return trees.map_with_path(put, like)


def _read(path: Path, like: dict) -> dict:
  """The arrays of a file by path; ConfigError unless they are exactly those of `like`."""
  with np.load(path, allow_pickle=False) as arrays:
    there = {name: arrays[name] for name in arrays.files}
  wanted = trees.leaves(like)
  if there.keys() != wanted.keys():
    raise ConfigError(f"{path.name} holds other parameters than this model has: keep the model of the config it came "
                      "from, or use --config.start=scratch.")
  for name, leaf in wanted.items():
    if there[name].shape != leaf.shape:
      raise ConfigError(f"{path.name}: {name} has shape {there[name].shape}, but {leaf.shape} in this model.")
  return there


def _same_shape(origin: Origin, model: Model) -> None:
  """ConfigError naming the key in which the model of a run differs from this one."""
  recorded = origin.home / "config.json"
  if not recorded.is_file():
    return
  try:
    model_there = json.loads(recorded.read_text())["model"]
    there = DecoderConfig(**{name: model_there[name] for name in SHAPING})
  except (ValueError, TypeError, KeyError):
    return  # another version's, or torn: restoring compares every shape
  for name in SHAPING:
    ours, theirs = getattr(model.config, name), getattr(there, name)
    if theirs != ours:
      raise ConfigError(f"config.start={origin} was trained with model.{name} = {theirs}, but this config has {ours}: "
                        f"keep the model of the run it starts from, --config.model.{name}={theirs}.")
