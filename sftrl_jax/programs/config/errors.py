"""What a person is told when a word of a command or a config is wrong."""

import difflib
import json
import pathlib

from sftrl_jax import paths


class ConfigError(ValueError):
  """A config that a person can mend; the message names the key or file, the value, the rule and the way out."""


class AbortAllProcesses(ConfigError):
  """What all processes of a run have refused together: each raises it, and nobody waits for another."""


def nearest(word, names, prefix="") -> str:
  """The end of an error about an unknown word: `: did you mean "gamma"? Valid: ...`, with a full stop."""
  names = list(names)
  close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
  guess = f": did you mean {prefix}{close[0]}?" if close else "."
  return f"{guess} Valid: {', '.join(names)}." if names else f"{guess} It has no keys."


def refuse_file(flag, path) -> None:
  """ConfigError where a directory that will be written is a file, or lies in one; nothing is made."""
  above = (path, *path.parents) if paths.is_here(path) else (path,)
  taken = next((above for above in above if above.exists() and not above.is_dir()), None)
  if taken:
    what = f"{flag}={path}" if taken == path else f"{flag}={path}: {taken}"
    raise ConfigError(f"{what} is a file: give a directory, which is made if it is missing.")


def as_path(text, flag="") -> pathlib.PurePath:
  """The path of a workdir, perhaps in a bucket; ConfigError for an address that is neither. flag: who gave it."""
  try:
    return paths.as_path(text)
  except ValueError as error:
    raise ConfigError(f"{flag}={error}" if flag else str(error)) from error


def as_local_path(text, flag) -> pathlib.Path:
  """A path of this machine; ConfigError for an address in a bucket. flag: who gave it."""
  try:
    return paths.local_path(text, f"{flag}=")
  except ValueError as error:
    raise ConfigError(str(error)) from error


def refuse_unreachable(flag, path) -> None:
  """ConfigError for a bucket that is not there, or that this machine may not look into."""
  if paths.is_here(path):
    return
  bucket, reason = path, "there is no such bucket, or it may not be seen"
  while len(bucket.parts) > 3:   # /, gs, BUCKET
    bucket = bucket.parent
  try:
    if bucket.exists():
      return
  except Exception as error:   # any of the client's
    reason = f"{type(error).__name__}: {str(error).strip()[:200]}"
  raise ConfigError(f"{flag}={path}: {bucket} cannot be reached ({reason}). Make it with `gcloud storage buckets "
                    f"create {bucket}`, or see that this machine may use it (`gcloud auth application-default login`).")


def recorded(workdir) -> dict:
  """The config that a workdir was begun with; ConfigError for one that is torn."""
  path = workdir / "config.json"
  try:
    return json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise ConfigError(f"{path} is no JSON ({error}): restore it, or give another workdir.") from error
