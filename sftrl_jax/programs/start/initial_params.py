"""The parameters that a run begins with: random, shipped, pretrained, a step of another run (checkpoint_ref.py), or a
mix of two of these (mix.py).

A step of a run that trained adapters is its base with the adapters merged into it, and that base is a start again: the
recursion is in this file. WORKDIR/base.json records the base of a workdir of adapters.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from sftrl_jax import trees
from sftrl_jax.checkpoints import store
from sftrl_jax.checkpoints.checksum import checksums, sha256
from sftrl_jax.models import DecoderConfig, Model, lora as lora_layers
from sftrl_jax.models.lora import LoraConfig
from sftrl_jax.parallel import rules
from sftrl_jax.programs.config.errors import ConfigError, recorded
from sftrl_jax.programs.config.resolve import build
from sftrl_jax.programs.start import checkpoint_ref, mix, pretrained
from sftrl_jax.programs.start.checkpoint_ref import CheckpointRef
from sftrl_jax.programs.start.mix import Mix

RECORD = "base.json"
BASES = Path(__file__).parents[2] / "bases"
# The fields of a model that the shapes of its parameters depend on.
SHAPING = ("width", "layers", "heads", "kv_heads", "head_dim", "mlp_dim", "mlp", "tie_embeddings")


def check_start(start: str, model: Model | None = None, lora: LoraConfig = LoraConfig()) -> None:  # noqa: B008
  """ConfigError for a start that does not exist, or that is not of this model, before anything is written.

  lora: the adapters that are to be trained; those of PEFT are trained on as they are
  """
  if start == "scratch":
    return
  if mixed := mix.parse(start):
    for each in (mixed.first, mixed.second):
      try:
        check_start(each, model, lora)
      except ConfigError as error:
        raise ConfigError(f"{checkpoint_ref.describe_start(start)}, whose two starts must hold the parameters of one "
                          f"model, that of this config: {error}") from error
    return
  if start.startswith("base:"):
    if not _base_file(start).is_file():
      shipped = ", ".join(f"base:{path.stem}" for path in sorted(BASES.glob("*.npz")))
      raise ConfigError(f"config.start is {start!r}, which is not shipped; there are: {shipped or 'none'}.")
    if model is not None:
      _read_arrays(_base_file(start), param_shapes(model))
    return
  if pretrained.check(start, model):
    if model is not None:
      pretrained.check_adapters(start, model, lora)
    return
  ref = _checkpoint(start)
  if model is not None:
    _refuse_other_shape(ref, model)
  if adapters_of(ref.home):
    check_adapter_base(ref.home)


def load_start(start: str, model: Model, seed: int, mesh: Mesh) -> dict:
  """params["model"] on the mesh, f32. seed: of a random start. Raises ConfigError."""
  abstract = abstract_params(model, mesh)
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  if start == "scratch":
    return jax.jit(model.init, out_shardings=shardings)(jax.random.key(seed))
  if mixed := mix.parse(start):
    return _load_mix(mixed, model, seed, mesh)
  if start.startswith("base:"):
    return _load_shipped(_base_file(start), abstract)
  weights = pretrained.load(start, model.config, shardings)
  if weights is not None:
    return weights
  ref = _checkpoint(start)
  _refuse_other_shape(ref, model)
  if lora := adapters_of(ref.home):
    return load_with_adapters(ref.home, ref.step, model, mesh, lora, ema=ref.ema)[0]
  return store.restore_params(ref.home, ref.step, abstract, ema=ref.ema)[0]


def lerp(first: dict, second: dict, share: float) -> dict:
  """(1 - share) * first + share * second, leaf by leaf in f32; one of the two itself at share 0 and 1."""
  if share in (0, 1):
    return second if share else first
  return jax.jit(lambda *pair: jax.tree.map(_between(share), *pair))(first, second)


def _between(share: float) -> Callable[[jax.Array, jax.Array], jax.Array]:
  return lambda a, b: ((1 - share) * a + share * b).astype(a.dtype)


def param_shapes(model: Model) -> dict:
  """The shapes of a model's parameters, in a tree of the caller's own."""
  return jax.tree.map(lambda shape: shape, model.shapes)


def abstract_params(model: Model, mesh: Mesh) -> dict:
  """The shapes of a model's parameters with their shardings."""
  shapes = {"model": param_shapes(model)}
  return abstract_with(shapes, rules.shardings(shapes, mesh))["model"]


def abstract_with(shapes: Any, shardings: Any) -> Any:
  """A tree of shapes with a tree of shardings, as ShapeDtypeStructs."""
  return jax.tree.map(lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, shardings)


def adapters_of(home: Path) -> LoraConfig | None:
  """The adapters that the run in a workdir trains; None where it trains the model, and for what is no workdir."""
  try:
    section = recorded(home).get("lora", {}) if checkpoint_ref.is_workdir(home) else {}
  except (OSError, ConfigError):
    return None  # a checkpoint can be a start even if its config is lost
  return build(LoraConfig, section, "config.lora") if section.get("rank") else None


def adapter_base(home: Path, start: str, model: Model, seed: int, mesh: Mesh) -> tuple[dict, str]:
  """(the parameters that the adapters in a workdir are trained on, their fingerprint).

  start: config.start; where it was overridden, the base is looked for there alone. ConfigError for a base that is gone,
  and for one that has changed.
  """
  record, source = _base_record(home), check_adapter_base(home, start)
  params, fingerprint = start_and_fingerprint(source, model, seed, mesh)
  if fingerprint != record["fingerprint"]:
    raise ConfigError(f"{home} holds adapters alone, trained on {record['start']}; {source} holds other numbers now, "
                      "on which they mean nothing: put the base back as it was, or use another --workdir.")
  return params, fingerprint


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


def load_with_adapters(home: Path, step: int | None, model: Model, mesh: Mesh, lora: LoraConfig,
                       start: str = "", ema: bool = False) -> tuple[dict, int, str]:
  """(parameters of `model`, step, fingerprint) of a workdir of adapters: its base with the adapters merged into it.

  lora: what was trained, perhaps at another strength; with rank 0 the adapters are left off. ema: their average
  """
  params, fingerprint = adapter_base(home, start, model, recorded(home)["seed"], mesh)
  if not lora.rank:
    return params, checkpoint_ref.steps_of(home, repr(str(home)))[-1] if step is None else step, fingerprint
  adapters, step = load_adapters(home, step, model, mesh, lora, ema)
  join = lambda params, adapters: lora_layers.merge(lora_layers.attach(params, adapters, lora))
  shardings = jax.tree.map(lambda x: x.sharding, params)
  merged = jax.jit(join, donate_argnums=0, out_shardings=shardings)(params, adapters)
  return merged, step, sha256([fingerprint, checksums(adapters)])


def load_adapters(home: Path, step: int | None, model: Model, mesh: Mesh, lora: LoraConfig, ema: bool = False
                  ) -> tuple[dict, int]:
  """(the adapters alone, step) of a workdir of adapters. ema: their average"""
  shapes = {"lora": jax.eval_shape(lambda key: lora_layers.init(lora, param_shapes(model), key), jax.random.key(0))}
  abstract = abstract_with(shapes, rules.shardings(shapes, mesh))
  return store.restore_params(home, step, abstract["lora"], root="lora", ema=ema)


def reference_params(home: Path, start: str, model: Model, seed: int, mesh: Mesh) -> dict:
  """The parameters with which the run in a workdir of adapters began: its base, with adapters of PEFT if it began with
  some."""
  if pretrained.adapters(start):
    return load_start(start, model, seed, mesh)
  return adapter_base(home, start, model, seed, mesh)[0]


def base_name(home: Path) -> str:
  """The start that the adapters in a workdir were trained on."""
  return _base_record(home)["start"]


def start_and_fingerprint(start: str, model: Model, seed: int, mesh: Mesh) -> tuple[dict, str]:
  """(parameters, fingerprint) of what adapters are trained on. The fingerprint is of what is stored: bits of a merge
  differ by machine. Adapters of PEFT are trained on themselves, so that their base is meant."""
  if there := pretrained.adapters(start):
    start = there[0]
  home = checkpoint_ref.home_of(start)
  lora = adapters_of(home) if start != "scratch" else None
  if lora is None:
    params = load_start(start, model, seed, mesh)
    return params, sha256(checksums(params))
  ref = _checkpoint(start)
  params, _, fingerprint = load_with_adapters(home, ref.step, model, mesh, lora, ema=ref.ema)
  return params, fingerprint


def _checkpoint(start: str) -> CheckpointRef:
  if not start:
    raise ConfigError("config.start is '': give scratch, base:NAME, pretrained weights (a Hugging Face directory or "
                      "id, a .gguf file, smollm2), the workdir of a run, WORKDIR[@STEP], or mix:A,B,0.5 of two.")
  return checkpoint_ref.parse(start, checkpoint_ref.describe_start(start))


def _base_file(start: str) -> Path:
  return BASES / f"{start.removeprefix('base:')}.npz"


def _load_mix(mixed: Mix, model: Model, seed: int, mesh: Mesh) -> dict:
  """(1 - share) * first + share * second, leaf by leaf in f32."""
  first, second = (load_start(each, model, seed, mesh) for each in (mixed.first, mixed.second))
  shardings = jax.tree.map(lambda x: x.sharding, first)
  return jax.jit(lambda *pair: jax.tree.map(_between(mixed.share), *pair), donate_argnums=0, out_shardings=shardings)(
      first, second)


def _load_shipped(path: Path, abstract: dict) -> dict:
  arrays = _read_arrays(path, abstract)
  put = lambda name, leaf: jax.device_put(arrays[name].astype(leaf.dtype), leaf.sharding)
  return trees.map_with_path(put, abstract)


def _read_arrays(path: Path, like: dict) -> dict:
  """The arrays of a file by path; ConfigError unless they are exactly those of `like`."""
  with np.load(path, allow_pickle=False) as file:
    arrays = {name: file[name] for name in file.files}
  wanted = trees.leaves(like)
  if arrays.keys() != wanted.keys():
    raise ConfigError(f"config.start is of another model: {path.name} holds other parameters than this model has. Keep "
                      "the model of the config it came from, or use --config.start=scratch.")
  for name, leaf in wanted.items():
    if arrays[name].shape != leaf.shape:
      raise ConfigError(f"{path.name}: {name} has shape {arrays[name].shape}, but {leaf.shape} in this model.")
  return arrays


def _refuse_other_shape(ref: CheckpointRef, model: Model) -> None:
  """ConfigError naming the key in which the model of a run differs from this one."""
  path = ref.home / "config.json"
  if not path.is_file():
    return
  try:
    section = json.loads(path.read_text())["model"]
    trained = DecoderConfig(**{name: section[name] for name in SHAPING})
  except (ValueError, TypeError, KeyError):
    return  # of another version, or torn: restoring compares every shape
  for name in SHAPING:
    ours, theirs = getattr(model.config, name), getattr(trained, name)
    if theirs != ours:
      raise ConfigError(f"config.start={ref} was trained with model.{name} = {theirs}, but this config has {ours}: "
                        f"keep the model of the run it starts from, --config.model.{name}={theirs}.")


def _base_record(home: Path) -> dict:
  path = home / RECORD
  try:
    record = json.loads(path.read_text())
    return {name: str(record[name]) for name in ("start", "fingerprint")}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ConfigError(f"{home} holds adapters alone, but {path}, which names their base, is missing or torn: restore "
                      "it, or use another --workdir.") from error
