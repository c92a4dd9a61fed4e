"""What a person sees of two responses: side by side where the terminal is wide enough, else one after the other.

Responses are hostile text: whatever would move a cursor, change the order of letters or be invisible is shown as its
number.
"""

import unicodedata
from collections.abc import Iterator

NARROWEST = 80   # columns of a terminal in which two responses stand side by side
GAP = " | "
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}   # categories of Unicode: controls, formats, surrogates, separators


def visible(text: str) -> str:
  """The text with every character that cannot be seen as \\x1b or \\u202e; line ends stay, a tab is two spaces."""
  return "".join(map(_visible, text.replace("\t", "  ")))


def _visible(character: str) -> str:
  if character == "\n" or unicodedata.category(character) not in HIDDEN:
    return character
  code = ord(character)
  return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def question(place: str, prompt: str, responses: tuple[str, str], width: int) -> str:
  """The page of one question. place: such as 7/20; width: of the terminal, 0 where there is none"""
  lines = [f"--- {place} ---", *wrapped(visible(prompt), width or 100), ""]
  left, right = (visible(response) for response in responses)
  if width < NARROWEST:
    return "\n".join([*lines, "[1]", *wrapped(left, width or 100), "", "[2]", *wrapped(right, width or 100), ""])
  half = (width - len(GAP)) // 2
  columns = [[f"[{number}]", *wrapped(text, half)] for number, text in ((1, left), (2, right))]
  for row in range(max(map(len, columns))):
    first, second = (column[row] if row < len(column) else "" for column in columns)
    lines.append(f"{first}{' ' * (half - cells(first))}{GAP}{second}".rstrip())
  return "\n".join([*lines, ""])


def wrapped(text: str, width: int) -> list[str]:
  """The lines of a text, none wider than `width` cells; they break at spaces where they can."""
  return [piece for line in text.split("\n") for piece in _pieces(line, width)]


def _pieces(line: str, width: int) -> Iterator[str]:
  while cells(line) > width:
    end = 1
    while cells(line[: end + 1]) <= width:
      end += 1
    space = line.rfind(" ", 1, end + 1)
    cut = space if space > 0 else end
    yield line[:cut]
    line = line[cut + (space > 0):]
  yield line


def cells(text: str) -> int:
  """Cells that a terminal takes for a text: two for wide letters, none for accents that are put on another."""
  return sum(0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
             for character in text)
