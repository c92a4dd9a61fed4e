"""Compiled programs on disk: a command reads those that an earlier one compiled for the same machine and threads.

JAX's own cache is the one of a variable JAX_COMPILATION_CACHE_DIR, and then nothing here happens. It reads whatever a
file holds, writes files in place and never removes one. A cache that is on by default has to do better: here an entry
begins with a checksum of its key and content, is written in one move, and the oldest ones are removed.
"""

import contextlib
import hashlib
import os
import platform
import sys
import tempfile
from pathlib import Path

from sftrl_jax.checkpoints import source
from sftrl_jax.programs.runtime.process import cores

VARIABLE, OFF = "SFTRL_COMPILE_CACHE", "off"   # the variable's value: a directory, or `off`
LIMIT = 2 << 30   # bytes of all entries below the directory
SUFFIX = ".program"
OURS = f"{'[0-9a-f]' * 16}/{'[0-9a-f]' * 64}.*"   # FOLDER/ENTRY below the directory, half-written ones included
DIGEST = hashlib.sha256().digest_size
USED = []   # the cache of this process, once there is one


class CompileCache:
  """The entries of one folder, as JAX reads and writes them (jax._src.compilation_cache_interface.CacheInterface).

  Nothing here raises an OSError: what cannot be read is compiled, what cannot be written is compiled again next time.
  """

  def __init__(self, folder: Path):
    self._path, self.hits = folder, 0   # JAX logs _path

  def get(self, key: str) -> bytes | None:
    """The content of an entry, or None. One that is damaged, or another entry's, is removed."""
    path = self._file(key)
    try:
      entry = path.read_bytes()
    except OSError:
      return None
    content = entry[DIGEST:]
    if entry[:DIGEST] != _digest(key, content):
      _remove(path)
      return None
    with contextlib.suppress(OSError):
      os.utime(path)   # the oldest are removed first
    self.hits += 1
    return content

  def put(self, key: str, value: bytes) -> None:
    """Replaces an entry in one move: processes that read meanwhile see the old one or the new one."""
    path, half = self._file(key), None
    try:
      with tempfile.NamedTemporaryFile(dir=self._path, prefix=f"{path.stem}.", delete=False) as file:
        half = Path(file.name)
        file.write(_digest(key, value) + value)
      half.replace(path)
    except OSError:
      if half is not None:
        _remove(half)

  def _file(self, key: str) -> Path:
    # Not the key itself, which begins with the name of a function: file systems take names of 255 bytes.
    return self._path / f"{hashlib.sha256(key.encode()).hexdigest()}{SUFFIX}"


def use(several: bool = False) -> None:
  """Makes JAX keep compiled programs, unless its own configuration or the variable already says where, or not to.

  They are kept in the directory of SFTRL_COMPILE_CACHE, else in ~/.cache/sftrl_jax/compiled. One that cannot be used
  is named on stderr, and costs compiling alone.
  several: whether this is one of several processes. These share a directory only where the variable gives one
  """
  import jax
  from jax._src import compilation_cache  # JAX has no public way to check, bound or replace what it reads
  place = os.environ.get(VARIABLE, "")
  if (place == OFF or several and not place or jax.config.jax_compilation_cache_dir
      or not jax.config.jax_enable_compilation_cache or not hasattr(compilation_cache, "_cache_initialized")):
    return
  try:
    home = Path(place).absolute() if place else source.cache() / "compiled"
    folder = home / fingerprint()
    _refuse_unsafe(folder)
  except (OSError, RuntimeError) as error:   # RuntimeError: the user has no home
    print(f"Compiled programs are not kept: {error}. {VARIABLE}=DIR keeps them elsewhere, {VARIABLE}={OFF} silences "
          "this.", file=sys.stderr)
    return
  trim(home)
  for name, value in {"jax_compilation_cache_dir": str(folder), "jax_persistent_cache_min_compile_time_secs": 0.0,
                      "jax_persistent_cache_enable_xla_caches": ""}.items():
    if name.upper() not in os.environ:
      jax.config.update(name, value)
  compilation_cache.reset_cache()
  compilation_cache._cache, compilation_cache._cache_initialized = CompileCache(folder), True
  USED.append(compilation_cache._cache)


def summary() -> str:
  """What to add to a sentence that says how many programs were compiled; "" where none was read."""
  hits = sum(cache.hits for cache in USED)
  return f", {hits} of them read from {USED[-1]._path}" if hits else ""


def fingerprint() -> str:
  """What decides how XLA compiles on a CPU and is not in JAX's key of an entry: the processor and the threads.

  With a home that machines share, each kind of machine reads its own programs.
  """
  processor = platform.processor()
  with contextlib.suppress(OSError):
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = {line.partition("\t")[0]: line for line in reversed(lines)}   # of the first core
    processor = "\n".join(named.get(name, "") for name in ("model name", "flags", "Features"))
  facts = (platform.machine(), processor, str(cores()), os.environ.get("NPROC", ""), os.environ.get("XLA_FLAGS", ""))
  return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def trim(home: Path, limit: int = LIMIT) -> None:
  """Removes the entries below a directory that were used longest ago, until the others have at most `limit` bytes.

  Whatever else is there stays: the user may have given a directory that holds more.
  """
  entries = []
  with contextlib.suppress(OSError):
    for path in home.glob(OURS):
      with contextlib.suppress(OSError):   # another process removed it
        status = path.stat()
        entries.append((status.st_mtime, status.st_size, path))
  size = sum(entry[1] for entry in entries)
  for _, bytes_, path in sorted(entries):
    if size <= limit:
      return
    _remove(path)
    size -= bytes_


def _refuse_unsafe(folder: Path) -> None:
  """Makes the folder; OSError unless it is this user's alone: who writes an entry decides what a later command runs."""
  folder.mkdir(mode=0o700, parents=True, exist_ok=True)
  status = folder.stat()
  if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
    raise OSError(f"{folder} belongs to another user, or others may write there")
  with tempfile.TemporaryFile(dir=folder):
    pass


def _digest(key: str, content: bytes) -> bytes:
  return hashlib.sha256(key.encode() + b"\0" + content).digest()


def _remove(path: Path) -> None:
  with contextlib.suppress(OSError):
    path.unlink()
