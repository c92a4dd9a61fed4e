"""Where a run's parameters come from: newborn, shipped, pretrained, or a step of a run (origin.py says which)."""

import json
from pathlib import Path

import jax
import numpy as np

from sftrl_jax import trees
from sftrl_jax.checkpoints import store as stores
from sftrl_jax.checkpoints.checksum import checksums, sha256
from sftrl_jax.models import DecoderConfig, Model, lora as adapting
from sftrl_jax.models.lora import LoraConfig
from sftrl_jax.parallel import rules
from sftrl_jax.programs.config.errors import ConfigError, recorded
from sftrl_jax.programs.config.resolve import build
from sftrl_jax.programs.start import checkpoint_ref, pretrained
from sftrl_jax.programs.start.checkpoint_ref import CheckpointRef

BASES = Path(__file__).parents[2] / "bases"
SHAPING = ("width", "layers", "heads", "kv_heads", "head_dim", "mlp_dim", "mlp", "tie_embeddings")  # what parameters depend on


def check_start(start: str, model: Model | None = None) -> None:
  """ConfigError for a start that cannot be, or that is not of this model, before anything is written."""
  if start == "scratch":
    return
  if start.startswith("base:"):
    if not _base(start).is_file():
      there = ", ".join(f"base:{path.stem}" for path in sorted(BASES.glob("*.npz")))
      raise ConfigError(f"config.start is {start!r}, which is not shipped; there are: {there or 'none'}.")
    if model is not None:
      _read_arrays(_base(start), jax.eval_shape(model.init, jax.random.key(0)))
    return
  if pretrained.check(start, model):
    return
  origin = _origin(start)
  if model is not None:
    _same_shape(origin, model)
  if adapters_of(origin.home):
    check_adapter_base(origin.home)


def load_start(start: str, model: Model, seed: int, mesh) -> dict:
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
  if lora := adapters_of(origin.home):
    return load_with_adapters(origin.home, origin.step, model, mesh, lora)[0]
  params, _ = stores.restore_params(origin.home, origin.step, like)
  return params


def _origin(start: str) -> CheckpointRef:
  if not start:
    raise ConfigError("config.start is '': give scratch, base:NAME, pretrained weights (a Hugging Face directory or "
                      "id, a .gguf file, smollm2), or the workdir of a run, WORKDIR[@STEP].")
  return checkpoint_ref.parse(start, checkpoint_ref.describe_start(start))


def _base(start: str) -> Path:
  return BASES / f"{start.removeprefix('base:')}.npz"


def _shipped(path: Path, like: dict) -> dict:
  there = _read_arrays(path, like)
  put = lambda name, leaf: jax.device_put(there[name].astype(leaf.dtype), leaf.sharding)
  return trees.map_with_path(put, like)


def _read_arrays(path: Path, like: dict) -> dict:
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


def _same_shape(origin: CheckpointRef, model: Model) -> None:
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


RECORD = "base.json"


def adapters_of(home: Path) -> LoraConfig | None:
  """The adapters that the run in a workdir trains; None where it trains the model, and for what is no workdir."""
  try:
    section = recorded(home).get("lora", {}) if checkpoint_ref.is_workdir(home) else {}
  except (OSError, ConfigError):
    return None  # a checkpoint can be begun from even if its config is lost
  return build(LoraConfig, section, "config.lora") if section.get("rank") else None


def param_shapes(model: Model):
  """The shapes of a model's parameters."""
  return jax.eval_shape(model.init, jax.random.key(0))


def adapter_base(home: Path, start: str, model: Model, seed: int, mesh) -> tuple[dict, str]:
  """(the parameters that the adapters in a workdir are trained on, their fingerprint).

  start: config.start; where it was overridden, the base is looked for there alone. ConfigError for a base that is gone,
  and for one that has changed.
  """
  told, source = _base_record(home), check_adapter_base(home, start)
  params, now = start_and_fingerprint(source, model, seed, mesh)
  if now != told["fingerprint"]:
    raise ConfigError(f"{home} holds adapters alone, trained on {told['start']}; {source} holds other numbers now, on "
                      "which they mean nothing: put the base back as it was, or begin another --workdir.")
  return params, now


def check_adapter_base(home: Path, start: str = "") -> str:
  """Where the base of a workdir of adapters is: where it was, or where config.start finds it now. ConfigError for one
  that is gone."""
  pinned, own = _base_record(home)["start"], recorded(home).get("start")
  for source in (pinned, own) if start in ("", own) else (start,):
    try:
      check_start(source)
      return source
    except ConfigError as error:
      refused = error
  raise ConfigError(f"{home} holds adapters alone, and their base is gone: {refused} Put it back, or say where it is: "
                    "`sftrl evaluate` takes --config.start=FROM.")


def load_with_adapters(home: Path, step: int | None, model: Model, mesh, lora: LoraConfig, start: str = "") -> tuple[dict, int, str]:
  """(parameters of `model`, step, fingerprint) of a workdir of adapters: its base with the adapters merged into it.

  lora: what was trained, perhaps at another strength; with rank 0 the adapters are left off.
  """
  params, fingerprint = adapter_base(home, start, model, recorded(home)["seed"], mesh)
  if not lora.rank:
    return params, checkpoint_ref.steps_of(home, repr(str(home)))[-1] if step is None else step, fingerprint
  shapes = {"lora": jax.eval_shape(lambda key: adapting.init(lora, param_shapes(model), key), jax.random.key(0))}
  like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes,
                      rules.shardings(shapes, mesh))
  found, step = stores.restore_params(home, step, like["lora"], root="lora")
  join = lambda params, found: adapting.merge(adapting.attach(params, found, lora))
  where = jax.tree.map(lambda x: x.sharding, params)
  merged = jax.jit(join, donate_argnums=0, out_shardings=where)(params, found)
  return merged, step, sha256([fingerprint, checksums(found)])


def start_and_fingerprint(start: str, model: Model, seed: int, mesh) -> tuple[dict, str]:
  """(parameters, fingerprint) of a start. The fingerprint is of what is stored: bits of a merge differ by machine."""
  home = checkpoint_ref.home_of(start)
  lora = adapters_of(home) if start != "scratch" else None
  if lora is None:
    params = load_start(start, model, seed, mesh)
    return params, sha256(checksums(params))
  params, _, fingerprint = load_with_adapters(home, checkpoint_ref.parse(start, checkpoint_ref.describe_start(start)).step, model, mesh, lora)
  return params, fingerprint


def _base_record(home: Path) -> dict:
  path = home / RECORD
  try:
    told = json.loads(path.read_text())
    return {name: str(told[name]) for name in ("start", "fingerprint")}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ConfigError(f"{home} holds adapters alone, but {path}, which says on which base, is missing or torn: restore "
                      "it, or begin another --workdir.") from error
