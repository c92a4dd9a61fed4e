"""Where a run's parameters come from."""

import json
from pathlib import Path

import jax
import numpy as np

from sftrl_jax import trees
from sftrl_jax.checkpoints import store as stores
from sftrl_jax.models import Model
from sftrl_jax.parallel import rules
from sftrl_jax.programs.settings import ConfigError

BASES = Path(__file__).parents[1] / "bases"


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
  workdir, _, step = start.rpartition("@") if "@" in start else (start, "", "")
  if not (Path(workdir) / "checkpoints").is_dir():
    raise ConfigError(f"config.start is {start!r}, but {workdir} has no checkpoints/: give scratch, base:NAME, or the "
                      "workdir of a run, WORKDIR[@step].")
  if step and not step.isdecimal():
    raise ConfigError(f"config.start is {start!r}; after @ comes the number of a step.")
  if model is not None:
    _same_words(Path(workdir), model)


def load(start: str, model: Model, seed: int, mesh) -> dict:
  """params["model"] on the mesh, f32: newborn, shipped, or of a checkpoint."""
  where = rules.shardings({"model": jax.eval_shape(model.init, jax.random.key(0))}, mesh)["model"]
  if start == "scratch":
    return jax.jit(model.init, out_shardings=where)(jax.random.key(seed))
  like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
                      jax.eval_shape(model.init, jax.random.key(0)), where)
  if start.startswith("base:"):
    return _shipped(_base(start), like)
  workdir, _, step = start.rpartition("@") if "@" in start else (start, "", "")
  _same_words(Path(workdir), model)
  params, _ = stores.restore_params(Path(workdir), int(step) if step else None, like)
  return params


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


def _same_words(workdir: Path, model: Model) -> None:
  recorded = workdir / "config.json"
  if not recorded.is_file():
    return
  there = json.loads(recorded.read_text()).get("model", {})
  for name in ("width", "layers", "heads", "ffn"):
    ours, theirs = getattr(model.config, name), there.get(name)
    if theirs and theirs != ours:
      raise ConfigError(f"config.start={workdir} was trained with model.{name} = {theirs}, but this config has {ours}.")
