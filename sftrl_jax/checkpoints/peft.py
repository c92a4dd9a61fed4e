"""Adapters of PEFT: a directory with adapter_config.json and adapter_model.safetensors, which names its base.

It is named as DIR, or as DIR@BASE where the base is not where the file says. LoRA of the projections of a block is
read; whatever else PEFT has is refused by the key that asks for it.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh

from sftrl_jax import trees
from sftrl_jax.checkpoints import export, families, fill, gguf, hf, safetensors, source
from sftrl_jax.checkpoints.families.table import Tensor
from sftrl_jax.checkpoints.fill import Loaded
from sftrl_jax.models import DecoderConfig, lora as lora_layers
from sftrl_jax.models.lora import LoraConfig
from sftrl_jax.projections import PROJECTIONS, STACK

CONFIG, WEIGHTS = source.PEFT_CONFIG, "adapter_model.safetensors"
BASE = "base_model_name_or_path"
# Keys of adapter_config.json that say nothing about what the adapters compute.
HARMLESS = {"auto_mapping", BASE, "base_model_class", "bias", "exclude_modules", "inference_mode", "init_lora_weights",
            "layers_pattern", "lora_alpha", "lora_dropout", "megatron_core", "peft_type", "peft_version",
            "qalora_group_size", "r", "revision", "runtime_config", "target_modules", "task_type", "use_rslora"}
# Ways to begin that change the base too, so that the adapters mean nothing on the base as it is.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclasses.dataclass(frozen=True)
class Adapters:
  """A directory's files. base, base_name: what its base is, and how it is named. values: of its config."""

  home: Path
  base: source.Source
  base_name: str
  values: dict

  @property
  def reader(self) -> ModuleType:
    """Of the files of the base."""
    return {"hf": hf, "gguf": gguf}[self.base.kind]

  @property
  def scaling(self) -> str:
    return "root" if self.values.get("use_rslora") else "rank"


def opened(name: Path | str) -> Adapters:
  """The adapters that DIR or DIR@BASE names; ValueError for a config that no model here has, and for a lost base."""
  home, _, given = (str(name), "", "") if source.is_peft(Path(name)) else str(name).partition("@")
  path = Path(home) / CONFIG
  values = hf.table_of(path)
  _refuse_others(values, path)
  written = given or values.get(BASE)
  if not isinstance(written, str) or not written:
    raise ValueError(f"{path}: {BASE} is {written!r}, so the base of these adapters is not known: give {home}@BASE.")
  beside = Path(home) / written
  where = f"The base of the adapters in {home} is {written}" + ("" if given else f" ({BASE} in {CONFIG})")
  written = str(beside) if not given and not Path(written).exists() and beside.exists() else written
  try:
    resolved = source.resolve(written)
  except ValueError as error:
    raise ValueError(f"{where}: {error} Say where it is: {home}@BASE.") from error
  if resolved is None or resolved.kind == "peft":
    raise ValueError(f"{where}, which is no Hugging Face directory or id and no GGUF file: say where it is, "
                     f"{home}@BASE.")
  return Adapters(Path(home), resolved, written, values)


def _refuse_others(values: dict, path: Path) -> None:
  """ValueError that names the first key by which these are no plain LoRA adapters."""
  if values.get("peft_type") != "LORA":
    raise ValueError(f"{path}: peft_type is {values.get('peft_type')!r}; known: 'LORA'.")
  for name, known in (("task_type", (None, "CAUSAL_LM")), ("bias", (None, "none"))):
    if values.get(name) not in known:
      raise ValueError(f"{path}: {name} is {values[name]!r}, which no adapters here have; known: {known[1]!r}.")
  if str(values.get("init_lora_weights")).lower().startswith(CHANGES_BASE):
    raise ValueError(f"{path}: init_lora_weights is {values['init_lora_weights']!r}, which changes the base too: "
                     "convert them with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...).")
  others = [name for name, value in values.items() if name not in HARMLESS and value]
  if others:
    raise ValueError(f"{path}: {others[0]} is {values[others[0]]!r}, which no adapters here have: merge them with "
                     "PEFT's merge_and_unload(), save the model, and give that directory.")
  rank, alpha = values.get("r"), values.get("lora_alpha")
  if type(rank) is not int or rank < 1:
    raise ValueError(f"{path}: r is {rank!r}; it must be a whole number of at least 1.")
  if type(alpha) not in (int, float) or not 0 < alpha < float("inf"):
    raise ValueError(f"{path}: lora_alpha is {alpha!r}; it must be a positive number.")


def names_of(config: DecoderConfig) -> dict[str, Tensor]:
  """Our path of a factor -> PEFT's tensor, of every projection of this family's models."""
  names, family = {}, families.of(config)
  for path, weight in families.names_of(families.FAMILIES[family], config).items():
    if weight.part:
      raise ValueError(f"{family} keeps several projections in one tensor ({weight.name.rsplit('.', 2)[-2]}), and an "
                       "adapter of PEFT is of all of them together, ours of each: export the merged model instead.")
    each = PROJECTIONS.get(path.removeprefix(STACK).removesuffix("/kernel"))
    if path.endswith("/kernel") and each is not None:
      read, written = each.weight_axes.split(" ")[-1], each.weight_axes.split(" ")[-2]
      stem = f"base_model.model.{weight.name.removesuffix('.weight')}"
      for leaf, factor, axes in (("a", "A", f"{read}r -> r {read}"), ("b", "B", f"r{written} -> {written} r")):
        names[f"{STACK}{each.path}/{leaf}"] = Tensor(f"{stem}.lora_{factor}.weight", axes, numbers=weight.numbers)
  return names


def lora_of(name: Path | str, config: DecoderConfig) -> LoraConfig:
  """The adapters as config.lora describes them. config: of the base."""
  files = opened(name)
  paths = sorted({path.rpartition("/")[0].removeprefix(STACK) for path in _shapes(files, config)})
  return LoraConfig(files.values["r"], float(files.values["lora_alpha"]), tuple(f"*{path}" for path in paths),
                    files.scaling)


def read(name: Path | str, config: DecoderConfig) -> dict:
  """The tree of adapters in f32 on the host. ValueError for tensors that are missing, surplus or of another shape."""
  files = opened(name)
  shapes, names = _shapes(files, config), names_of(config)
  entries = safetensors.header(files.home / WEIGHTS)
  leaves = {path: np.stack([names[path].inward(np.asarray(entries[names[path].of_layer(n)].read(), np.float32),
                                               shape[1:]) for n in range(shape[0])])
            for path, shape in shapes.items()}
  return traverse_util.unflatten_dict(leaves, sep="/")


def _shapes(files: Adapters, config: DecoderConfig) -> dict[str, tuple[int, ...]]:
  """{path of a factor: shape} of the projections that the file adapts, which must be adapted in every layer."""
  if not (files.home / WEIGHTS).is_file():
    others = sorted(path.name for path in files.home.glob("adapter_model.*"))
    raise ValueError(f"{files.home} holds no {WEIGHTS}" + (
        f", and {others[0]} can run code when it is read, so it is not: load it where you trust it, and save it with "
        "PEFT's save_pretrained(..., safe_serialization=True)." if others else ": fetch it."))
  there = {name: entry.shape for name, entry in safetensors.header(files.home / WEIGHTS).items()}
  rank, shapes, wanted = files.values["r"], {}, {}
  for path, tensor in names_of(config).items():
    names = [tensor.of_layer(n) for n in range(config.layers)]
    each, leaf = PROJECTIONS[path.removeprefix(STACK).rpartition("/")[0]], path.rpartition("/")[2]
    if not any(name in there for name in names):
      continue
    sides = each.shape(config)[:len(each.reads)], each.shape(config)[len(each.reads):]
    shape = (*sides[0], rank) if leaf == "a" else (rank, *sides[1])
    shapes[path] = (config.layers, *shape)
    wanted.update(dict.fromkeys(names, tensor.shape(shape)))
  fill.refuse_others(str(files.home / WEIGHTS), there, wanted, lambda name: False)
  lonely = [path for path in shapes if path.rpartition("/")[0] + ("/b" if path.endswith("/a") else "/a") not in shapes]
  if lonely or not shapes:
    raise ValueError(f"{files.home / WEIGHTS} holds no whole adapters: {', '.join(lonely) or 'no tensor of any'}.")
  return shapes


def describe(name: Path | str) -> DecoderConfig:
  """The model of the base."""
  files = opened(name)
  return files.reader.describe(files.base.path)


def base_of(name: Path | str) -> tuple[str, Path]:
  """(kind, path) of the base."""
  base = opened(name).base
  return base.kind, base.path


def tokenizer(name: Path | str, *_: Any) -> Any:
  """The tokenizer beside the adapters, as it was trained with; else that of the base."""
  files = opened(name)
  module, path = files.reader, files.base.path
  if any((files.home / file).is_file() for file in ("tokenizer.json", "tokenizer.model")):
    from sftrl_jax.text import pretrained
    hf.refuse_larger(files.home, module.describe(path).vocab)
    return pretrained.load(files.home, stops=hf.stops(path) if module is hf else ())
  return module.tokenizer(path, *((module.describe(path),) if module is hf else ()))


def checked(name: Path | str, config: DecoderConfig) -> None:
  """One ValueError for all tensors, of the base or of the adapters, that are missing, surplus or of another shape."""
  files = opened(name)
  files.reader.checked(files.base.path, config)
  _shapes(files, config)


def load_params(name: Path | str, config: DecoderConfig, dtype: str = "float32", shardings: Any = None) -> dict:
  """The parameters of the base with the adapters merged into them."""
  files = opened(name)
  adapters, lora = read(name, config), lora_of(name, config)
  params = files.reader.load_params(files.base.path, config, dtype, shardings)
  merge = lambda params, adapters: lora_layers.merge(lora_layers.attach(params, adapters, lora))
  return jax.jit(merge, donate_argnums=0, out_shardings=jax.tree.map(lambda x: x.sharding, params))(params, adapters)


def load(name: Path | str, dtype: str = "", mesh: Mesh | None = None) -> Loaded:
  """The merged model in `dtype` ("": float32) over the mesh, and its tokenizer."""
  config = dataclasses.replace(describe(name), dtype=dtype or "float32")
  words = tokenizer(name)
  return Loaded(config, load_params(name, config, config.dtype, hf.parameter_shardings(config, mesh)), words)


def save(directory: Path | str, config: DecoderConfig, adapters: dict, lora: LoraConfig, base: str,
         tokenizer: Any) -> None:
  """Writes adapters of a run for PEFT, and the tokenizer beside them. ValueError unless the directory is new or empty.

  base: what PEFT is to load them on, a Hugging Face directory or id
  """
  directory, names = Path(directory).absolute(), names_of(config)
  if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
    raise ValueError(f"{directory} is not empty: give another directory.")
  joined = sorted(trees.leaves(adapters).keys() - names.keys())
  if joined and not joined[0].startswith(STACK):
    raise ValueError(f"{joined[0].rpartition('/')[0]} is outside of the decoder's own blocks, where adapters are not "
                     "written for PEFT: write the merged model, without --adapters.")
  if joined:
    raise ValueError(f"{joined[0].rpartition('/')[0]} is no matrix of its own in {families.of(config)}, so PEFT has no "
                     "place for its adapters: write the merged model, without --adapters.")
  part = directory.with_name(f".{directory.name}.partial")
  shutil.rmtree(part, ignore_errors=True)
  part.mkdir(parents=True)
  try:
    if hasattr(tokenizer, "save"):
      tokenizer.save(part)
    safetensors.write(part / WEIGHTS, fill.named(adapters, names), np.dtype(np.float32),
                      export.tensors(names, adapters, np.dtype(np.float32)))
    stems = {name.name.rpartition(".lora_")[0].rpartition(".")[2] for path, name in names.items()
             if path in trees.leaves(adapters)}
    alpha = int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha
    values = {"peft_type": "LORA", "task_type": "CAUSAL_LM", BASE: base, "r": lora.rank, "lora_alpha": alpha,
              "use_rslora": lora.scaling == "root", "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
              "init_lora_weights": True, "inference_mode": True, "modules_to_save": None,
              "target_modules": sorted(stems)}
    (part / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    part.replace(directory)
  finally:
    shutil.rmtree(part, ignore_errors=True)
