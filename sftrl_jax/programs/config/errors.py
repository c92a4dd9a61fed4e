"""Errors that the user can fix, and the checks of paths and names that raise them."""

import difflib
import errno
import json
import os
import pathlib
from collections.abc import Iterable

from sftrl_jax import paths


class ConfigError(ValueError):
  """A mistake that the user can fix; the message names the key or file, the value, the rule and the way out."""


class AbortAllProcesses(ConfigError):
  """Raised by all processes of a run for the same reason, so that none waits for another."""


def closest(word: str, names: Iterable[str], cutoff: float = 0.6) -> str:
  """The name that a misspelt word resembles most, "" if none is similar. cutoff: of difflib's ratio, from 0 to 1."""
  return next(iter(difflib.get_close_matches(word, list(names), n=1, cutoff=cutoff)), "")


def nearest(word: str, names: Iterable[str], prefix: str = "", list_title: str = "Valid", cutoff: float = 0.6) -> str:
  """The end of an error about an unknown word: `: did you mean gamma? Valid: gamma, clip.`

  prefix: before the guessed name
  list_title: of the list of all names
  """
  names = list(names)
  match = closest(word, names, cutoff)
  guess = f": did you mean {prefix}{match}?" if match else "."
  return f"{guess} {list_title}: {', '.join(names)}." if names else f"{guess} It has no keys."


def first_line(error: Exception) -> str:
  """The first line of an error's message, or its type where the message is empty."""
  return next(iter(str(error).strip().splitlines()), type(error).__name__)


def refuse_file(flag: str, path: pathlib.PurePath) -> None:
  """ConfigError where a directory that will be written is a file or is inside one. Writes nothing."""
  ancestors = (path, *path.parents) if paths.is_here(path) else (path,)
  file = next((ancestor for ancestor in ancestors if ancestor.exists() and not ancestor.is_dir()), None)
  if file:
    subject = f"{flag}={path}" if file == path else f"{flag}={path}: {file}"
    raise ConfigError(f"{subject} is a file: give a directory, which is created if it is missing.")


def as_path(text: str | pathlib.PurePath, flag: str = "") -> pathlib.PurePath:
  """The path of a workdir, on this machine or in a bucket. ConfigError, with the flag, for another kind of address."""
  try:
    return paths.as_path(text)
  except ValueError as error:
    raise ConfigError(f"{flag}={error}" if flag else str(error)) from error


def as_local_path(text: str, flag: str) -> pathlib.Path:
  """A path on this machine. ConfigError, naming the flag, for an address in a bucket."""
  try:
    return paths.local_path(text, f"{flag}=")
  except ValueError as error:
    raise ConfigError(str(error)) from error


def refuse_unreachable(flag: str, path: pathlib.PurePath) -> None:
  """ConfigError for a name that the file system does not take, and for a bucket that does not exist, or that this
  machine may not read."""
  if paths.is_here(path):
    try:
      os.stat(path)
    except OSError as error:
      if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        raise ConfigError(f"{flag}={path}: {error.strerror}. Give another path.") from error
    return
  bucket, reason = path, "there is no such bucket, or this machine may not see it"
  while len(bucket.parts) > 3:   # /, gs, BUCKET
    bucket = bucket.parent
  try:
    if bucket.exists():
      return
  except Exception as error:   # of any type: it depends on the client of the store
    reason = f"{type(error).__name__}: {str(error).strip()[:200]}"
  raise ConfigError(f"{flag}={path}: {bucket} cannot be reached ({reason}). Make it with `gcloud storage buckets "
                    f"create {bucket}`, or give this machine access to it (`gcloud auth application-default login`).")


def recorded(workdir: pathlib.Path) -> dict:
  """The content of a workdir's config.json: the config of its run. ConfigError where the file is damaged."""
  return read_json(workdir / "config.json", "restore it, or give another workdir")


def read_json(path: pathlib.Path, way_out: str) -> dict:
  """The content of a JSON file. ConfigError, with the way out, where the file is damaged."""
  try:
    return json.loads(path.read_text())
  except (ValueError, RecursionError) as error:
    raise ConfigError(f"{path} is no JSON ({error}): {way_out}.") from error
