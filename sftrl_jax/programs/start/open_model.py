"""Opens a model that no run of ours trained: a Hugging Face directory or hub id, adapters of PEFT, a GGUF file, or
`smollm2`. Adapters are merged into their base.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from jax.sharding import Mesh

from sftrl_jax.checkpoints import gguf, hf, peft
from sftrl_jax.checkpoints.fill import Loaded
from sftrl_jax.checkpoints.source import resolve
from sftrl_jax.programs.config.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Opened(Loaded):
  """A loaded model and its files. config.dtype is the dtype of the parameters; tokenizer is None if there are no files.

  path: the Hugging Face directory, or the GGUF file; of adapters, their base's
  """

  path: Path
  kind: Literal["hf", "gguf"]


def open_model(source: str, dtype: str = "", mesh: Mesh | None = None) -> Opened:
  """Loads the model that `source` names, with its tokenizer.

  source: a Hugging Face directory or hub id, a directory of adapters (DIR or DIR@BASE), a .gguf file, or smollm2
  dtype: of the parameters, float32 or bfloat16; "" for the dtype that holds a directory's weights without loss, and
    float32 for a GGUF file
  mesh: the parameters are split over it by parallel/rules.py; None for one device

  Raises ConfigError if `source` names none of these, or if its files are missing, broken or of an unknown architecture.
  """
  try:
    files = resolve(source)
    if files is None:
      raise ConfigError(f"{source!r} is neither the workdir of a run (WORKDIR, WORKDIR@STEP, WORKDIR@best:VARIANT), "
                        "nor a Hugging Face directory or id, nor a .gguf file, nor smollm2.")
    kind, path = files.kind, files.path
    if kind == "peft":
      kind, path = peft.base_of(path)
      dtype = dtype or (hf.dtype_of(path) if kind == "hf" else "float32")
      loaded = peft.load(files.path, dtype, mesh)
    elif kind == "hf":
      loaded = hf.load(files.path, dtype or hf.dtype_of(files.path), mesh)
    else:
      loaded = gguf.load(files.path, dtype or "float32", mesh)
  except (ValueError, OSError, ImportError) as error:
    raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from error
  return Opened(loaded.config, loaded.params, loaded.tokenizer, path, kind)
