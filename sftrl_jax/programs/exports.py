"""WORKDIR/exports/STEP: the model as it is judged, adapters merged, in a directory that transformers opens."""

from pathlib import Path

from sftrl_jax import places
from sftrl_jax.programs.mistakes import ConfigError
from sftrl_jax.programs.pretrained import NAME


def check(config: dict) -> None:
  """ConfigError where a run is to export a model that transformers has no name for."""
  every, name = config["checkpoint"]["export_every"], config["model"].get("name", "decoder")
  if every and name != NAME:
    raise ConfigError(f"config.checkpoint.export_every is {every}, but config.model.name is {name!r}, a model that "
                      f"transformers does not know: begin from pretrained weights with --config.model.name={NAME}, or "
                      "leave it at 0.")


def write(parts, params: dict, workdir: Path, step: int) -> None:
  """Writes plain parameters of `model`, in all processes together. A step that is there stays."""
  from sftrl_jax.checkpoints import hf
  home = workdir / "exports" / str(step)
  if not (home / "config.json").is_file():
    with places.made(home, last="config.json") as folder:
      hf.save(folder, parts.model.config, params, parts.tokenizer, like=places.local_copy(workdir / NAME))
