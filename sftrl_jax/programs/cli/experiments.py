"""`sftrl configs`: every experiment of a folder, with its claim, hardware and minutes, read from the files' docstrings.

A docstring is: the claim in its first line; the commands, one an indented line `sftrl VERB --config=FILE[:choice] ...`;
a line `Hardware: WHERE. Minutes: HOW MANY.`; a line that begins `Result:`. What else it says is for people.
"""

import ast
import dataclasses
import re
from pathlib import Path

from sftrl_jax.programs.config import resolve, smoke
from sftrl_jax.programs.config.errors import ConfigError

COST = re.compile(r"^Hardware: (?P<hardware>.+?)\. Minutes: (?P<minutes>.+?)\.$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Entry:
  """What one file says of itself; "" and () for what it does not say. error: why it cannot be used."""

  path: Path
  claim: str = ""
  commands: tuple[str, ...] = ()
  hardware: str = ""
  minutes: str = ""
  result: str = ""
  error: str = ""

  @property
  def choices(self) -> tuple[str, ...]:
    """What may follow the file's name: the choices its commands show, and the one that every config has."""
    shown = [smoke.split(spec)[1] for spec in map(config_of, self.commands)]
    return (*dict.fromkeys(choice for choice in shown if choice), smoke.WORD)


def config_of(command: str) -> str:
  """The FILE.py[:choice] of a command line, "" if it has none."""
  found = re.search(r"--config=(\S+)", command)
  return found[1] if found else ""


def find(folder: Path) -> list[Entry]:
  """Every file under a folder that defines a get_config (or cannot be read), by path. ConfigError for no folder."""
  if not folder.is_dir():
    raise ConfigError(f"There is no folder {folder}: run `sftrl configs` where your configs/ is, or name a folder, "
                      "sftrl configs DIR.")
  shown = lambda path: not any(part.startswith(".") for part in path.relative_to(folder).parts)
  return [entry for entry in map(read, filter(shown, sorted(folder.rglob("*.py")))) if entry]


def read(path: Path) -> Entry | None:
  """What a file says of itself; None if it is no config: a task that configs share, an __init__.py."""
  try:
    tree = ast.parse(path.read_text())
  except (SyntaxError, ValueError, OSError) as error:   # ValueError: not UTF-8, or a null byte
    return Entry(path, error=_first_line(f"{type(error).__name__}: {error}"))
  if "get_config" not in _names(tree):
    return None
  said = ast.get_docstring(tree) or ""
  cost = COST.search(said)
  commands = re.findall(r"^ +(sftrl .*?)(?:\s{2,}\(.*\))?$", said, re.MULTILINE)
  result = re.search(r"^Result: (.+?)(?:\n\n|\Z)", said, re.MULTILINE | re.DOTALL)
  entry = Entry(path, said.partition("\n")[0], tuple(commands), cost["hardware"] if cost else "",
                cost["minutes"] if cost else "", " ".join(result[1].split()) if result else "")
  try:
    resolve.load(str(path))
  except ConfigError as error:
    return dataclasses.replace(entry, error=_first_line(str(error)))
  return entry


def page(folder: Path) -> str:
  """The list as text."""
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


def _names(tree: ast.Module) -> set[str]:
  """What a module defines at its top: functions, imported names, and names that are given a value."""
  names = set()
  for node in tree.body:
    if isinstance(node, (ast.FunctionDef, ast.ImportFrom, ast.Import)):
      names |= {node.name} if isinstance(node, ast.FunctionDef) else {it.asname or it.name for it in node.names}
    elif isinstance(node, ast.Assign):
      names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
  return names


def _first_line(text: str) -> str:
  return text.strip().splitlines()[0]
