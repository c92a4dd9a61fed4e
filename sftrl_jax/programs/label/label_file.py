"""The labels of a person: a file of pairs that TRL and `sftrl preference` read, beside a record of every answer.

FILE holds a line for each pair of which one response was preferred. FILE.session holds a line for every answer, ties
and skipped ones too, with the row that it gave: it is written first and is the truth, so that a label survives whatever
ends the process, and labelling goes on where it was left.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from sftrl_jax import paths
from sftrl_jax.programs.config.errors import ConfigError

SESSION = ".session"   # no suffix of rows: a directory of labels may be config.data.path
UNUSABLE = "unusable"   # equal responses, or an empty one: nobody was asked
PICKS = ("1", "2", "tie", "skip", UNUSABLE)


@dataclasses.dataclass(frozen=True)
class Answer:
  """One answer.

  item: number of the item in its source
  pick: of PICKS
  first: the number, 0 or 1, of the item's response that was shown as [1]
  row: the pair that FILE gets, None where none was preferred
  agrees: whether the source prefers the same response; None where it prefers none, or the person none
  """

  item: int
  pick: str
  first: int = 0
  row: dict | None = None
  agrees: bool | None = None

  @property
  def asked(self) -> bool:
    """Whether a person has answered."""
    return self.pick != UNUSABLE


class LabelFile:
  """The answers so far, on disk. settings: what they depend on, as JSON; a file that was begun with others is refused.

  Raises ConfigError for that, and for a file that is not what its record says.
  """

  def __init__(self, out: Path, settings: dict[str, Any]):
    self.out, self.session = out, out.with_name(out.name + SESSION)
    self._settings = settings
    self.answers = self._read()
    self._match()

  def add(self, answer: Answer) -> None:
    """Writes an answer; it is safe when this returns."""
    self.answers.append(answer)
    _append(self.session, dataclasses.asdict(answer))
    if answer.row is not None:
      _append(self.out, answer.row)

  def undo(self) -> bool:
    """Takes the last answer of a person back; whether there was one."""
    asked = [place for place, answer in enumerate(self.answers) if answer.asked]
    if not asked:
      return False
    self.answers = self.answers[: asked[-1]]
    paths.write_whole(self.session, _lines([{"settings": self._settings}, *map(dataclasses.asdict, self.answers)]))
    paths.write_whole(self.out, self._pairs())
    return True

  @property
  def next_item(self) -> int:
    return self.answers[-1].item + 1 if self.answers else 0

  def _pairs(self) -> str:
    return _lines([answer.row for answer in self.answers if answer.row is not None])

  def _read(self) -> list[Answer]:
    """The answers of the record, which is begun if there is none; half a last line is cut off."""
    if not self.session.is_file():
      if self.out.exists():
        raise ConfigError(f"--out={self.out} is there already, and not from this verb (there is no {self.session.name}"
                          "): give another file.")
      self.out.parent.mkdir(parents=True, exist_ok=True)
      _append(self.session, {"settings": self._settings})
      return []
    text = self.session.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    try:
      first, *rest = [json.loads(line) for line in whole.splitlines()] or [{"settings": self._settings}]
      settings, answers = first["settings"], [Answer(**line) for line in rest]
      if any(answer.pick not in PICKS for answer in answers):
        raise ValueError("an answer is none that can be given")
    except (ValueError, TypeError, KeyError) as error:
      raise ConfigError(f"{self.session} is damaged ({error}): mend it, or give another --out.") from error
    differ = [key for key in self._settings if settings.get(key) != self._settings[key]]
    if differ:
      raise ConfigError(f"--out={self.out} was begun with other settings ({', '.join(differ)}): give the same command, "
                        "or another file.")
    if whole != text or not whole:
      paths.write_whole(self.session, _lines([{"settings": settings}, *map(dataclasses.asdict, answers)]))
    return answers

  def _match(self) -> None:
    """Writes what a killed process has not: FILE is what the record says of it."""
    text = self.out.read_text(encoding="utf-8") if self.out.is_file() else ""
    wanted = self._pairs()
    if not wanted.startswith(text):
      raise ConfigError(f"--out={self.out} is not what {self.session.name} says that it holds, so it was changed: move "
                        "both away to begin anew, or put it back.")
    if text != wanted:
      paths.write_whole(self.out, wanted)


def _lines(values: list[dict]) -> str:
  return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def _append(path: Path, value: dict) -> None:
  with paths.named_errors(path), path.open("a", encoding="utf-8") as file:
    file.write(_lines([value]))
    file.flush()
    os.fsync(file.fileno())
