"""The summary of a person's own data before the first step: what was read, what was not used and why, an example."""

import dataclasses
from collections.abc import Sequence

from sftrl_jax.text.tokenizer import Tokenizer

BAR = 40
SHOWN = 400   # tokens of the example
NAMED = 24    # columns and keys that are named
GREEN, PLAIN = "\033[32m", "\033[0m"
# What would move a terminal's cursor is shown as its number.
CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


@dataclasses.dataclass(frozen=True)
class Dropped:
  """Rows that are not used. first: the places of the first of them."""

  reason: str
  count: int
  first: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Noted:
  """Rows that are trained on, but not as a reader would expect. first: the places of the first of them; example: of the
  first."""

  what: str
  count: int
  first: tuple[str, ...]
  example: str


@dataclasses.dataclass(frozen=True)
class Report:
  """An account of every row. `tokens` and `label_tokens` are of the rows kept; `ends`: those whose last token is <eos>;
  `trailing`: those whose messages after the assistant's last one were left out; `ignored`: columns and keys that
  nothing reads, and how many rows, or messages, have them; `duplicates`: examples that are equal to an earlier one;
  `pictures`: of all examples, and how many of them differ."""

  path: str
  format: str
  read: int
  kept: int
  dropped: tuple[Dropped, ...]
  truncated: int
  trailing: int
  length: int
  tokens: int
  label_tokens: int
  ends: int
  ignored: tuple[tuple[str, int], ...]
  sha256: str
  first: str   # place of the example that is shown
  lengths: tuple[tuple[int, int], ...]
  notes: tuple[Noted, ...] = ()
  duplicates: int = 0
  pictures: tuple[int, int] = (0, 0)


@dataclasses.dataclass(frozen=True)
class Packed:
  """How the examples lie in rows, in the first pass. filled: share of the places that hold a token. overlap: examples
  held out that are equal to one that is trained on."""

  rows: int
  filled: float
  steps: float   # steps a pass
  held: int      # examples held out
  overlap: int = 0


def text(report: Report, packed: Packed, example: str) -> str:
  """The report as lines for a person. example: as `marked` shows it."""
  lost = report.read - report.kept
  lines = [f"Data: {report.path}, as {report.format}",
           f"  rows       {report.read:,} read, {report.kept:,} kept, {lost:,} dropped ({lost / report.read:.1%})"]
  lines += [f"             {reason}" for reason in reasons(report)]
  if report.truncated:
    lines.append(f"  truncated  {report.truncated:,} ({report.truncated / report.kept:.1%}) to {report.length} tokens")
  if report.trailing:
    lines.append(f"  left out   what follows the assistant's last message, in {report.trailing:,} rows")
  lines += [f"  warning    {note.count:,} {note.what} ({_places(note)}): {note.example}" for note in report.notes]
  if report.ignored:
    named = [f"{name.translate(CONTROL)} ({count:,})" for name, count in report.ignored]
    lines.append(f"  not read   {', '.join(named[:NAMED])}{f' and {len(named) - NAMED} more' if named[NAMED:] else ''}")
  if report.duplicates:
    lines.append(f"  twice      {report.duplicates:,} examples are equal to an earlier one")
  lines += [f"  tokens     {report.tokens:,}, of which {report.label_tokens:,} "
            f"({report.label_tokens / report.tokens:.1%}) are learned; {report.ends:,} of {report.kept:,} end in <eos>",
            f"  packed     {packed.rows:,} rows of {report.length} tokens a pass, {packed.filled:.1%} full; a pass is "
            f"{packed.steps:.1f} steps"]
  if report.pictures[0]:
    lines.append(f"  pictures   {report.pictures[0]:,}, of which {report.pictures[1]:,} differ")
  if packed.held:
    lines.append(f"  held out   {packed.held:,} examples, for eval/loss")
  if packed.overlap:
    lines.append(f"  warning    {packed.overlap:,} of the examples held out are trained on too, which makes eval/loss "
                 "too low: remove rows that are there twice")
  lines += ["  tokens an example", *_bars(report.lengths), f"  the example of {report.first}:",
            *(f"    {line}" for line in example.splitlines())]
  return "\n".join(lines)


def reasons(report: Report) -> list[str]:
  """Why rows were dropped, and where the first of them are."""
  return [f"{each.count:,} {each.reason} ({_places(each)})" for each in report.dropped]


def _places(each: Dropped | Noted) -> str:
  return ", ".join(each.first) + (", ..." if each.count > len(each.first) else "")


def plain(report: Report, packed: Packed, example: str) -> dict:
  """The report as data.json holds it."""
  return {**dataclasses.asdict(report), "packed": dataclasses.asdict(packed), "example": example}


def marked(tokenizer: Tokenizer, ids: Sequence[int], weights: Sequence, colour: bool = False) -> str:
  """A sequence as text, with [[ ]] around what is learned, or that in green."""
  runs: list[tuple[bool, list[int]]] = []
  for token, weight in zip(ids[:SHOWN], weights[:SHOWN], strict=True):
    if not runs or runs[-1][0] != (weight > 0):
      runs.append((bool(weight > 0), []))
    runs[-1][1].append(int(token))
  before, after = (GREEN, PLAIN) if colour else ("[[", "]]")
  texts = [(learned, tokenizer.decode(some).translate(CONTROL)) for learned, some in runs]
  shown = [f"{before}{text}{after}" if learned else text for learned, text in texts]
  return (" " if tokenizer.kind == "words" else "").join([*shown, *(["..."] if len(ids) > SHOWN else [])])


def _bars(lengths: Sequence[tuple[int, int]]) -> list[str]:
  most = max(count for _, count in lengths)
  return [f"    up to {size:>7,} {count:>9,} {'#' * -(-BAR * count // most)}" for size, count in lengths]
