"""`sftrl convert FROM TO`: a model from anywhere, written as a directory that transformers opens."""

import dataclasses
import resource
import sys
import time
from pathlib import Path

from sftrl_jax import trees
from sftrl_jax.checkpoints import export, gguf, hf, source as sources
from sftrl_jax.checkpoints.fill import Loaded
from sftrl_jax.paths import local_copy
from sftrl_jax.programs.config.errors import ConfigError, as_local_path
from sftrl_jax.programs.start import checkpoint_ref

DTYPES = ("float32", "bfloat16")


def run(name: str, target: str, dtype: str = "") -> None:
  """Writes FROM as TO and says what, how long and how much memory; ConfigError before anything is written."""
  if dtype not in ("", *DTYPES):
    raise ConfigError(f"--dtype={dtype}: it must be one of {', '.join(DTYPES)}.")
  began = time.monotonic()
  try:
    export.refuse_occupied(as_local_path(target, "TO"))
    loaded, like, told = _opened(name, dtype)
    hf.save(target, loaded.config, loaded.params, loaded.tokenizer, like)
  except (ValueError, OSError) as error:
    raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from error
  words = "its tokenizer" if hasattr(loaded.tokenizer, "save") else "no tokenizer, for it has none that has files"
  size = sum(path.stat().st_size for path in Path(target).rglob("*") if path.is_file())
  print(f"Written: {target} from {told}\n{trees.size(loaded.params):,} parameters in {loaded.params['embed'].dtype}, "
        f"with {words}: {size / 1e6:.1f} MB on disk, {time.monotonic() - began:.1f} s, at most {peak() / 1e6:.0f} MB "
        "of memory")


def peak() -> float:
  """The most bytes that this process has held at once."""
  told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return told if sys.platform == "darwin" else told * 1024


def _opened(name: str, dtype: str) -> tuple[Loaded, Path | str, str]:
  """(the model, a directory whose config.json may be kept, what it was)."""
  if checkpoint_ref.is_workdir(checkpoint_ref.home_of(name)):
    return _of_run(name, dtype)
  found = sources.resolve(name)
  if found is None:
    raise ConfigError(f"{name!r} is neither the workdir of a run (WORKDIR, WORKDIR@STEP, WORKDIR@best:VARIANT), nor a "
                      "Hugging Face directory or id, nor a .gguf file, nor smollm2.")
  if found.kind == "gguf":
    return gguf.load(found.path, dtype or "float32"), "", f"{name}, a GGUF file"
  return hf.load(found.path, dtype or hf.dtype_of(found.path)), found.path, f"{name}, a Hugging Face directory"


def _of_run(name: str, dtype: str) -> tuple[Loaded, Path | str, str]:
  import jax

  from sftrl_jax.checkpoints import families
  from sftrl_jax.programs.experiment import saved_run
  from sftrl_jax.programs.experiment.build import build_experiment
  origin = saved_run.parse(name)
  if origin.note:
    print(origin.note)
  config = saved_run.config_of(origin.home, [("mesh.data", "1"), ("mesh.fsdp", "-1"), ("mesh.tensor", "1")])
  experiment = build_experiment(config, saved_run.verb_of(origin.home), origin.home)
  families.of(experiment.model.config)   # told before anything is loaded
  with jax.set_mesh(experiment.mesh):
    params, step = saved_run.parameters(experiment, origin.home, origin.step)
  params = trees.cast(params, dtype or "float32")
  decoder = dataclasses.replace(experiment.model.config, dtype=dtype or "float32")
  kept = origin.home / "pretrained"
  return (Loaded(decoder, params, experiment.tokenizer), local_copy(kept) if kept.is_dir() else "",
          f"{origin.home} at step {step}")
