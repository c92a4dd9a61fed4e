"""`sftrl convert FROM TO`: writes any model that we can read as a directory that transformers opens."""

import dataclasses
import time
from pathlib import Path

import jax

from sftrl_jax import trees
from sftrl_jax.checkpoints import export, families, hf, peft
from sftrl_jax.checkpoints.export import ScoreHead
from sftrl_jax.checkpoints.fill import Loaded
from sftrl_jax.checkpoints.source import is_hf, resolve
from sftrl_jax.paths import local_copy
from sftrl_jax.programs.config.errors import ConfigError, as_local_path
from sftrl_jax.programs.experiment import saved_run
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.runtime.lock import only_output
from sftrl_jax.programs.runtime.process import peak_memory
from sftrl_jax.programs.start import checkpoint_ref, initial_params
from sftrl_jax.programs.start.checkpoint_ref import CheckpointRef
from sftrl_jax.programs.start.open_model import open_model

DTYPES = ("float32", "bfloat16")


def run(source: str, target: str, dtype: str = "", adapters: bool = False) -> None:
  """Writes the model `source` into the directory `target` and prints its size, the seconds and the peak of memory.

  source: the workdir of a run, a Hugging Face directory or hub id, a .gguf file, or smollm2
  dtype: of the weights that are written; "" keeps a Hugging Face directory's, and is float32 for all others
  adapters: write those of a run alone, for PEFT, and not the model that they are merged into

  Raises ConfigError before anything is written.
  """
  if dtype not in ("", *DTYPES):
    raise ConfigError(f"--dtype={dtype}: it must be one of {', '.join(DTYPES)}.")
  if adapters:
    return _write_adapters(source, target, dtype)
  start_time = time.monotonic()
  try:
    out = as_local_path(target, "TO")
    export.refuse_occupied(out)
    with only_output(out, "TO"):
      model, like, description, head = _load(source, dtype)
      hf.save(target, model.config, model.params, model.tokenizer, like, head)
  except (ValueError, OSError) as error:
    raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from error
  tokenizer = "its tokenizer" if hasattr(model.tokenizer, "save") else "no tokenizer, for it has none that has files"
  size = sum(path.stat().st_size for path in Path(target).rglob("*") if path.is_file())
  print(f"Written: {target} from {description}\n{trees.size(model.params):,} parameters in "
        f"{model.params['embed'].dtype}, with {tokenizer}: {size / 1e6:.1f} MB on disk, "
        f"{time.monotonic() - start_time:.1f} s, at most {peak_memory() / 1e6:.0f} MB of memory")


def _write_adapters(source: str, target: str, dtype: str) -> None:
  if dtype not in ("", "float32"):
    raise ConfigError(f"--dtype={dtype}: adapters are written in float32; leave it out.")
  home = checkpoint_ref.home_of(source)
  lora = initial_params.adapters_of(home)
  if lora is None:
    raise ConfigError(f"--adapters: {source} holds no adapters: give the workdir of a run with config.lora.rank, or "
                      "leave --adapters out.")
  ref, experiment = _experiment(source)
  with jax.set_mesh(experiment.mesh):
    params, step = initial_params.load_adapters(home, ref.step, experiment.model, experiment.mesh, lora, ref.ema)
  base = initial_params.base_name(home)
  try:
    out = as_local_path(target, "TO")
    with only_output(out, "TO"):
      peft.save(out, experiment.model.config, params, lora, base, experiment.tokenizer)
  except (ValueError, OSError) as error:
    raise ConfigError(str(error)) from error
  print(f"Written: {target} from {home} at step {step}\n{trees.size(params):,} parameters of adapters on {base}")
  if checkpoint_ref.is_workdir(checkpoint_ref.home_of(base)) or not is_hf(Path(base)) and Path(base).exists():
    print(f"PEFT cannot open {base}: write it with `sftrl convert {base} DIR`, and name DIR as base_model_name_or_path "
          f"in {Path(target) / peft.CONFIG}.")


def _experiment(source: str) -> tuple[CheckpointRef, Experiment]:
  """The checkpoint that FROM names and its run, on one device."""
  ref = saved_run.parse(source)
  if ref.note:
    print(ref.note)
  config = saved_run.config_of(ref.home, [("mesh.data", "1"), ("mesh.fsdp", "-1"), ("mesh.tensor", "1")])
  return ref, build_experiment(config, saved_run.verb_of(ref.home), ref.home, scored=False)


def _load(source: str, dtype: str) -> tuple[Loaded, Path | str, str, ScoreHead | None]:
  """Returns the model, a directory whose config.json may be kept ("" for none), a description of the source, and the
  head of a reward model."""
  if checkpoint_ref.is_workdir(checkpoint_ref.home_of(source)):
    return _load_run(source, dtype)
  model = open_model(source, dtype)
  if model.kind == "gguf":
    return model, "", f"{source}, a GGUF file", None
  kind = "adapters of PEFT on their base" if resolve(source).kind == "peft" else "a Hugging Face directory"
  return model, model.path, f"{source}, {kind}", None


def _load_run(source: str, dtype: str) -> tuple[Loaded, Path | str, str, ScoreHead | None]:
  ref, experiment = _experiment(source)
  families.of(experiment.model.config)   # raises before parameters are loaded if no known architecture can hold them
  if saved_run.is_reward_model(experiment):
    export.scorer_of(experiment.model.config)
  with jax.set_mesh(experiment.mesh):
    params, step = saved_run.parameters(experiment, ref)
    head = saved_run.score_head(experiment, ref.home, step) if saved_run.is_reward_model(experiment) else None
  params = trees.cast(params, dtype or "float32")
  decoder = dataclasses.replace(experiment.model.config, dtype=dtype or "float32")
  pretrained = ref.home / "pretrained"
  return (Loaded(decoder, params, experiment.tokenizer), local_copy(pretrained) if pretrained.is_dir() else "",
          f"{ref.home}{', a reward model,' * (head is not None)} at step {step}", head)
