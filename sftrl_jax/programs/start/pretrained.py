"""Model and tokenizer that come with the weights a run starts from: `name = "pretrained"` in config.model and
config.tokenizer.

A run keeps both descriptions in WORKDIR/pretrained (config.json, tokenizer files), so that it can be evaluated, sampled
from, exported and started from after the weights it began with have moved.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax

from sftrl_jax import paths
from sftrl_jax.models import DecoderConfig, Model, lora as lora_layers
from sftrl_jax.models.lora import LoraConfig
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.start import checkpoint_ref, mix

if TYPE_CHECKING:
  from sftrl_jax.checkpoints.source import Source
  from sftrl_jax.text.tokenizer import Tokenizer

NAME = "pretrained"   # of the model, of the tokenizer, and of the directory in a workdir


@dataclasses.dataclass(frozen=True)
class PretrainedConfig:
  """What a config may say of a model whose numbers come with its weights.

  dtype: of activations and matmuls; parameters are trained in f32
  attention: how training rows attend: "splash" (TPU), "cudnn" (GPU, bfloat16), "xla" or "blocks" (anywhere), or "auto",
    which takes the best that the devices have; decoding over a cache is always "xla"
  remat: what the backward pass recomputes: "full" whole blocks (up to 1/3 more FLOPs), "light" cheap parts, "none"
    nothing; "offload" recomputes as "light" and keeps what that saves in the host's memory (of a CPU: as "light");
    "auto" (of a run) is replaced by the fastest of none, light and full that fits the memory
  unroll: blocks unrolled per step of the scan over layers
  flatten: whether matmuls have rows and tokens as one axis, which is equal to rounding and up to twice as fast on a
    CPU; "auto" is True where one CPU computes
  images: most pictures of a row, of a model that reads them; tiles count apart in Idefics3 and SmolVLM (0: the tiles of
    one picture)
  """

  dtype: Literal["float32", "bfloat16"] = "float32"
  attention: Literal["auto", "xla", "blocks", "splash", "cudnn"] = "auto"
  remat: Literal["none", "full", "light", "offload", "auto"] = "full"
  unroll: int = 1
  flatten: bool | Literal["auto"] = "auto"
  images: int = 0

  def __post_init__(self):
    if self.unroll < 1:
      raise ValueError(f"unroll is {self.unroll}; it must be at least 1.")
    if self.images < 0:
      raise ValueError(f"images is {self.images}; it must be positive, or 0 for the tiles of one picture.")
    for name, known in (("dtype", ("float32", "bfloat16")), ("remat", ("none", "full", "light", "offload", "auto")),
                        ("attention", ("auto", "xla", "blocks", "splash", "cudnn"))):
      if getattr(self, name) not in known:
        raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}.")


def weights(start: str) -> Source | None:
  """The weights that config.start names; None for scratch, a shipped base, the workdir of a run, or a mix."""
  if start in ("", "scratch") or start.startswith(("base:", mix.PREFIX)):
    return None
  if checkpoint_ref.is_workdir(checkpoint_ref.home_of(start)):
    return None
  from sftrl_jax.checkpoints import source as weight_source
  return _as_config_error(lambda: weight_source.resolve(start), start)


def described(start: str, workdir: Path | None = None) -> Source:
  """Where the model's numbers and the tokenizer are: in the run's own workdir once it has begun, else at its start."""
  homes, mixed = [workdir] if workdir is not None else [], mix.parse(start)
  start = mixed.first if mixed else start
  if start and checkpoint_ref.is_workdir(checkpoint_ref.home_of(start)):
    homes.append(checkpoint_ref.home_of(start))
  for home in homes:
    if (home / NAME / "config.json").is_file():
      from sftrl_jax.checkpoints.source import Source
      return Source("hf", paths.local_copy(home / NAME))
  source = weights(start)
  if source is None:
    raise ConfigError(f"config.model.name is '{NAME}', but {checkpoint_ref.describe_start(start)}, which is not a "
                      "pretrained model: give a Hugging Face directory or id, a .gguf file, smollm2, or the workdir "
                      "of a run begun from one.")
  return source


def model_config(start: str, settings: PretrainedConfig, workdir: Path | None = None) -> DecoderConfig:
  """The decoder that the weights are of, with what the config says of computing it."""
  source = described(start, workdir)
  config = _as_config_error(lambda: _reader(source).describe(source.path), start)
  fields = dataclasses.asdict(settings)
  images = fields.pop("images")
  if images and not hasattr(config, "images"):
    raise ConfigError(f"config.model.images is {images}, but {checkpoint_ref.describe_start(start)}, a model of text: "
                      "leave it at 0.")
  return dataclasses.replace(config, **fields, **({"images": images} if images else {}))


def tokenizer(start: str, workdir: Path | None = None) -> Tokenizer:
  """The tokenizer beside the weights."""
  source = described(start, workdir)
  reader = _reader(source)
  more = (reader.describe(source.path),) if source.kind == "hf" else ()
  words = _as_config_error(lambda: reader.tokenizer(source.path, *more), start)
  if words is None:
    raise ConfigError(f"config.tokenizer.name is '{NAME}', but {source.path} holds no tokenizer: add its files, or use "
                      "--config.tokenizer.name=bytes.")
  return words


def load(start: str, config: DecoderConfig, shardings: dict) -> dict | None:
  """params["model"] in f32 as the shardings say; None for a start that is no pretrained weights."""
  source = weights(start)
  if source is None:
    return None
  return _as_config_error(lambda: _reader(source).load_params(source.path, config, "float32", shardings), start)


def adapters(start: str) -> tuple[str, Path] | None:
  """(the start that is the base, the name of the adapters) where config.start names adapters of PEFT."""
  source = weights(start)
  if source is None or source.kind != "peft":
    return None
  return _as_config_error(lambda: _reader(source).opened(source.path).base_name, start), source.path


def read_adapters(start: str, path: Path, config: DecoderConfig) -> dict:
  """The adapters of PEFT that config.start names, on the host. path: as of `adapters`."""
  from sftrl_jax.checkpoints import peft
  return _as_config_error(lambda: peft.read(path, config), start)


def check_adapters(start: str, model: Model, lora: LoraConfig) -> None:
  """ConfigError where config.start names adapters of PEFT and config.lora trains others."""
  there = adapters(start)
  if there is None or not lora.rank:
    return
  from sftrl_jax.checkpoints import peft
  theirs = _as_config_error(lambda: peft.lora_of(there[1], model.config), start)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  same = lora_layers.chosen(lora, shapes).keys() == lora_layers.chosen(theirs, shapes).keys()
  if not same or lora.rank != theirs.rank or not math.isclose(lora.scale, theirs.scale, rel_tol=1e-6):
    raise ConfigError(
        f"{checkpoint_ref.describe_start(start)}, whose adapters are not those that config.lora says: to train them "
        f"on, use --config.lora.rank={theirs.rank} --config.lora.alpha={theirs.alpha:g} --config.lora.scaling="
        f"{theirs.scaling} --config.lora.targets=\"{theirs.targets}\"; to train others, merge them first: sftrl "
        f"convert {start} DIR, and start from DIR.")


def check(start: str, model: Model | None) -> bool:
  """Whether the start is pretrained weights; ConfigError when they are of another model than this one."""
  source = weights(start)
  if source is None or model is None:
    return source is not None
  theirs = _as_config_error(lambda: _reader(source).describe(source.path), start)
  computed = {field.name for field in dataclasses.fields(PretrainedConfig)} | {"init_std"}
  for field in dataclasses.fields(DecoderConfig):
    ours, there = getattr(model.config, field.name), getattr(theirs, field.name)
    if field.name not in computed and ours != there:
      raise ConfigError(f"{checkpoint_ref.describe_start(start)}, whose {field.name} is {there}, but config.model says "
                        f"{ours}: use --config.model.name={NAME} --config.tokenizer.name={NAME}.")
  # What is missing or cut off is an error before a workdir is made.
  _as_config_error(lambda: _reader(source).checked(source.path, theirs), start)
  return True


def keep(workdir: Path, start: str, config: DecoderConfig, tokenizer: Tokenizer) -> None:
  """Writes WORKDIR/pretrained, once. It is complete or absent: it is written beside and renamed, or its config.json is
  written last."""
  from sftrl_jax.checkpoints import hf, peft
  home = workdir / NAME
  if (home / "config.json").is_file():
    return
  began = described(start)
  kind, path = peft.base_of(began.path) if began.kind == "peft" else (began.kind, began.path)
  like = path if kind == "hf" else ""
  if not paths.is_here(home):
    with paths.staging(home, last="config.json") as folder:
      hf.save_config(folder, config, tokenizer, like)
    return
  beside = workdir / f".{NAME}"
  shutil.rmtree(beside, ignore_errors=True)
  beside.mkdir(parents=True)
  hf.save_config(beside, config, tokenizer, like)
  beside.rename(home)


def _reader(source: Source):
  from sftrl_jax.checkpoints import gguf, hf, peft
  return {"hf": hf, "gguf": gguf, "peft": peft}[source.kind]


def _as_config_error(make: Callable[[], Any], start: str) -> Any:
  """make(), whose errors become a ConfigError about config.start."""
  try:
    return make()
  except (ValueError, OSError, ImportError) as error:
    raise ConfigError(f"{checkpoint_ref.describe_start(start)}: {error}") from error
