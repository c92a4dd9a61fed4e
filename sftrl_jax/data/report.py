"""The summary of a person's own data before the first step: what was read, what was not used and why, an example."""

import dataclasses
from collections.abc import Sequence

from sftrl_jax.text.tokenizer import Tokenizer

BAR = 40
SHOWN = 400   # tokens of the example
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
class Report:
  """An account of every row. `tokens` and `label_tokens` are of the rows kept; `ends`: those whose last token is <eos>;
  `trailing`: those whose messages after the assistant's last one were left out."""

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
  ignored: tuple[str, ...]
  sha256: str
  first: str   # place of the example that is shown
  lengths: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Packed:
  """How the examples lie in rows, in the first pass. filled: share of the places that hold a token."""

  rows: int
  filled: float
  steps: float   # steps a pass
  held: int      # examples held out


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
  if report.ignored:
    lines.append(f"  not read   the columns {', '.join(report.ignored)}")
  lines += [f"  tokens     {report.tokens:,}, of which {report.label_tokens:,} "
            f"({report.label_tokens / report.tokens:.1%}) are learned; {report.ends:,} of {report.kept:,} end in <eos>",
            f"  packed     {packed.rows:,} rows of {report.length} tokens a pass, {packed.filled:.1%} full; a pass is "
            f"{packed.steps:.1f} steps"]
  if packed.held:
    lines.append(f"  held out   {packed.held:,} examples, for eval/loss")
  lines += ["  tokens an example", *_bars(report.lengths), f"  the example of {report.first}:",
            *(f"    {line}" for line in example.splitlines())]
  return "\n".join(lines)


def reasons(report: Report) -> list[str]:
  """Why rows were dropped, and where the first of them are."""
  return [f"{each.count:,} {each.reason} ({', '.join(each.first)}{', ...' if each.count > len(each.first) else ''})"
          for each in report.dropped]


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
