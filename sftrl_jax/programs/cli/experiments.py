"""`sftrl configs`: every experiment of a folder, with its claim, hardware and minutes, read from the files' docstrings.

A docstring is: the claim in its first line; the commands, one an indented line `sftrl VERB --config=FILE[:choice] ...`;
a line `Hardware: WHERE. Minutes: HOW MANY.`; a line that begins `Result:`. The rest is for people.
"""

import ast
import dataclasses
import re
import symtable
from pathlib import Path

from sftrl_jax.programs.config import resolve, smoke
from sftrl_jax.programs.config.errors import ConfigError, first_line

COST = re.compile(r"^Hardware: (?P<hardware>.+?)\. Minutes: (?P<minutes>.+?)\.$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class ConfigEntry:
  """What the docstring of one file holds; "" and () for parts that it lacks. error: why its config cannot be used."""

  path: Path
  claim: str = ""
  commands: tuple[str, ...] = ()
  hardware: str = ""
  minutes: str = ""
  result: str = ""
  error: str = ""

  @property
  def choices(self) -> tuple[str, ...]:
    """The words that may follow the file's name: the choices in its commands, and `smoke`, which every config has."""
    in_commands = [smoke.split(config_of(command))[1] for command in self.commands]
    return (*dict.fromkeys(choice for choice in in_commands if choice), smoke.WORD)


def config_of(command: str) -> str:
  """The FILE.py[:choice] of a command line, "" if it has none."""
  match = re.search(r"--config=(\S+)", command)
  return match[1] if match else ""


def find(folder: Path) -> list[ConfigEntry]:
  """Every file under a folder that defines a get_config (or cannot be read), sorted by path, hidden ones left out.

  ConfigError where there is no such folder.
  """
  if not folder.is_dir():
    raise ConfigError(f"There is no folder {folder}: run `sftrl configs` where your configs/ is, or name a folder, "
                      "sftrl configs DIR.")
  files = [path for path in sorted(folder.rglob("*.py"))
           if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
  return [entry for entry in map(read, files) if entry]


def read(path: Path) -> ConfigEntry | None:
  """The entry of a file; None if it is no config, but a task that configs share, or an __init__.py."""
  try:
    text = path.read_text()
    tree, names = ast.parse(text), symtable.symtable(text, str(path), "exec").get_identifiers()
  except (SyntaxError, ValueError, OSError) as error:   # ValueError: not UTF-8, or a null byte
    return ConfigEntry(path, error=f"{type(error).__name__}: {first_line(error)}")
  if "get_config" not in names:
    return None
  docstring = ast.get_docstring(tree) or ""
  cost = COST.search(docstring)
  commands = re.findall(r"^ +(sftrl .*?)(?:\s{2,}\(.*\))?$", docstring, re.MULTILINE)
  result = re.search(r"^Result: (.+?)(?:\n\n|\Z)", docstring, re.MULTILINE | re.DOTALL)
  entry = ConfigEntry(path, docstring.partition("\n")[0], tuple(commands), cost["hardware"] if cost else "",
                      cost["minutes"] if cost else "", " ".join(result[1].split()) if result else "")
  try:
    resolve.load(str(path))
  except ConfigError as error:
    return dataclasses.replace(entry, error=first_line(error))
  return entry


def page(folder: Path) -> str:
  """The list of a folder's experiments as text."""
  entries = find(folder)
  if not entries:
    return f"No file under {folder} defines get_config."
  lines = []
  for entry in entries:
    cost = f"{entry.hardware}; minutes: {entry.minutes}" if entry.hardware else "no `Hardware: ... Minutes: ...` line"
    lines += [f"{entry.path}  (choices: {', '.join(entry.choices)})",
              *([f"  BROKEN: {entry.error}"] if entry.error else [f"  {entry.claim or 'no docstring'}", f"  {cost}"]),
              *(f"  {command}" for command in entry.commands), ""]
  return "\n".join([*lines, f"{len(entries)} configs. FILE.py:{smoke.WORD} is any of them on a toy scale, on one CPU "
                            "in under a minute; sftrl VERB --config=FILE.py --help prints its keys."])
