"""What a person is told when a word of a command or a config is wrong."""

import difflib
import json


class ConfigError(ValueError):
  """A config that a person can mend; the message names the key or file, the value, the rule and the way out."""


def nearest(word, names, prefix="") -> str:
  """The end of an error about an unknown word: `: did you mean "gamma"? Valid: ...`, with a full stop."""
  names = list(names)
  close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
  guess = f": did you mean {prefix}{close[0]}?" if close else "."
  return f"{guess} Valid: {', '.join(names)}." if names else f"{guess} It has no keys."


def refuse_file(flag, path) -> None:
  """ConfigError where a directory that will be written is a file, or lies in one; nothing is made."""
  taken = next((above for above in (path, *path.parents) if above.exists() and not above.is_dir()), None)
  if taken:
    what = f"{flag}={path}" if taken == path else f"{flag}={path}: {taken}"
    raise ConfigError(f"{what} is a file: give a directory, which is made if it is missing.")


def recorded(workdir) -> dict:
  """The config that a workdir was begun with; ConfigError for one that is torn."""
  path = workdir / "config.json"
  try:
    return json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise ConfigError(f"{path} is no JSON ({error}): restore it, or give another workdir.") from error
