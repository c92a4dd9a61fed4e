"""A person's own rows as one corpus of token ids, read once, with an account of every row that is not in it.

Tokens of all rows lie in one flat int32 array beside one flag each, so that millions of rows are never a million Python
objects. A row that is too long is cut and counted; one that then has nothing left to learn is dropped and counted. One
with pictures is never cut, but dropped and counted.
"""

import array
import dataclasses
import hashlib
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from sftrl_jax.data import formats
from sftrl_jax.data.batches import lay
from sftrl_jax.data.lines import BadRow, Raw
from sftrl_jax.data.mix import MixConfig, mix_of
from sftrl_jax.data.pictures.row_pictures import RowPictures
from sftrl_jax.data.read import EXAMPLES, Columns, read
from sftrl_jax.data.report import Dropped, Noted, Report, reasons
from sftrl_jax.inputs import Inputs, Slot
from sftrl_jax.objectives.batches import TokenBatch
from sftrl_jax.text.images import Pictures
from sftrl_jax.text.tokenizer import Tokenizer

SHOWN = 3     # places named of every reason why rows were dropped
CHUNK = 256   # rows rendered at once
RECORDED = "recorded"   # config.data.flops: see programs/loop/pairs/sampling.py


@dataclasses.dataclass(frozen=True)
class RowsConfig:
  """Own data: a file, a directory of files, or a data set of the hub.

  path: .jsonl, .json or .parquet, a directory of such files, or owner/name on the hub; empty for the environment's
    demonstrations
  length: tokens of a packed row; a longer example is cut, or with pictures dropped and counted
  format: messages, prompt_completion, text, or chosen (the preferred response of a pair); auto chooses one of the first
    three for each row, by the columns that are not null
  subset: of a data set of the hub
  split: of a data set of the hub
  on_bad_row: stop at a row that cannot be read, or skip and count it
  max_dropped: largest share of rows that may be dropped before the run is refused
  control_tokens: how rows of text, and texts as prompt and completion, that spell control tokens such as <|im_end|> are
    read: as letters (text), or as those tokens (tokens), for chats that were rendered beforehand
  truncate: cut an example that is longer than length; off drops and counts it
  shuffle: another order in every pass, by the seed; off keeps the order of the file
  pack: several examples a row, none sees another; off is one example a row
  validation: share of the examples that is held out, of which eval/loss is measured
  flops: that the rows have cost, charged with the first step; recorded: what pairs.json beside path says
  mix: replay of old data, see data/mix.py
  """

  path: str
  length: int = 1024
  format: Literal["auto", "messages", "prompt_completion", "text", "chosen"] = formats.AUTO
  subset: str = ""
  split: str = "train"
  on_bad_row: Literal["error", "skip"] = "error"
  max_dropped: float = 0.05
  control_tokens: Literal["text", "tokens"] = "text"
  truncate: bool = True
  shuffle: bool = True
  pack: bool = True
  validation: float = 0.0
  flops: float | Literal["recorded"] = 0.0
  mix: MixConfig = MixConfig()

  def __post_init__(self):
    refuse_ranges(self, 2)
    object.__setattr__(self, "mix", mix_of(self))


def refuse_ranges(config: Any, least: int) -> None:
  """ValueError, beginning with the key, for a number out of its range. least: tokens of the shortest packed row"""
  if config.length < least:
    raise ValueError(f"length is {config.length}; a row needs at least {least} tokens.")
  if not 0 <= config.max_dropped <= 1:
    raise ValueError(f"max_dropped is {config.max_dropped}; it is a share of the rows, from 0 to 1.")
  if not 0 <= config.validation < 1:
    raise ValueError(f"validation is {config.validation}; it is a share of the examples, from 0 to below 1.")
  if config.flops != RECORDED and not config.flops >= 0:
    raise ValueError(f"flops is {config.flops}; it must be 0 (the rows cost nothing), positive, or {RECORDED!r}.")


Rows = RowsConfig   # its name before, which scripts of users import


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
  """Examples one after another: example i is tokens[offsets[i] : offsets[i + 1]], and `learned` marks which of its
  tokens are to be learned. digests: equal for equal examples."""

  tokens: np.ndarray    # int32
  learned: np.ndarray   # bool
  offsets: np.ndarray   # int64, one more than there are examples
  report: Report
  digests: np.ndarray   # uint64
  margins: np.ndarray | None = None   # f32, of pairs, where two examples are one; see data/pairs/rows.py
  pictures: RowPictures | None = None   # for a model that reads some

  @property
  def count(self) -> int:
    return len(self.offsets) - 1

  @property
  def sizes(self) -> np.ndarray:
    """Places that each example takes in a row: its last token is only ever a target."""
    return np.diff(self.offsets) - 1

  @property
  def most(self) -> int:
    """Most examples of a packed row."""
    return sys.maxsize

  @property
  def pictured(self) -> tuple[np.ndarray, int] | None:
    """(pictures of each example, most of a packed row); None for a model of text."""
    return None if self.pictures is None else (self.pictures.counts, self.pictures.reader.images)

  def example(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    span = slice(self.offsets[index], self.offsets[index + 1])
    return self.tokens[span], self.learned[span]

  def laid(self, spans: Sequence[np.ndarray], rows: int, length: int) -> TokenBatch:
    """A batch whose row r holds the examples spans[r], each its own segment."""
    sequences, weights, slots = [], [], []
    for row, span in enumerate(spans):
      start = 0
      for segment, index in enumerate(span.tolist(), start=1):
        ids, learned = self.example(index)
        sequences.append(ids)
        weights.append(learned)
        slots.append(Slot(row, start, segment))
        start += len(ids) - 1
    batch = lay(sequences, weights, slots, rows, length)
    return batch.replace(inputs=self.with_pictures(batch.inputs, spans))

  def with_pictures(self, inputs: Inputs, spans: Sequence[Sequence[int]]) -> Inputs:
    """The inputs with the pictures of the examples of each row, which are decoded now; as they are for a model of text.
    """
    if self.pictures is None:
      return inputs
    rows: list[Pictures] = [self.pictures.pixels(span) for span in spans]
    return self.pictures.reader.add(inputs, rows)


@dataclasses.dataclass(frozen=True)
class Form:
  """What the rows of a corpus are.

  columns: that a row is read from
  examples: (config, raws, tokenizer) -> (format, the row as it is understood, or its BadRow) of each
  fitted: (config, what is understood, counts) -> (ids, flags, numbers of its pictures) of its examples; BadRow if it
    cannot be used
  used: (format, value) -> the columns that are read
  """

  columns: Columns
  examples: Callable[[Any, Sequence[Raw], Tokenizer], list[tuple[str, Any]]]
  fitted: Callable[[Any, Any, Counter], list[tuple[Sequence[int], Sequence[bool], Sequence[int]]]]
  used: Callable[[str, dict], set[str]]


def load(rows: RowsConfig, tokenizer: Tokenizer, form: Form | None = None) -> Corpus:
  """All rows as ids. ValueError for the first bad row (or where on_bad_row is skip, for too many), and for nothing to
  train on; every message names file, row and column.

  form: of the rows, EXAMPLE_A_ROW if left out
  """
  form = form or EXAMPLE_A_ROW
  tokens, learned, offsets = array.array("i"), bytearray(), array.array("q", [0])
  counts, dropped, notes, ignored, formats_read = Counter(), _Places(), _Places(), Counter(), Counter()
  first, raws, digests = "", iter(_shown(read(rows.path, rows.subset, rows.split, form.columns))), array.array("Q")
  margins, pictures = array.array("f"), RowPictures(tokenizer.reader) if tokenizer.reader else None
  while some := list(itertools.islice(raws, CHUNK)):
    some = some if pictures is None else list(map(pictures.opened, some))
    for raw, (kind, drafted) in zip(some, form.examples(rows, some, tokenizer), strict=True):
      counts["read"] += 1
      ignored.update(key for key in raw.columns if kind and key not in form.used(kind, raw.value))
      try:
        examples = form.fitted(rows, drafted, counts)
        if pictures is not None:
          pictures.refuse_misfits(examples)
      except BadRow as error:
        if error.reason not in LONG and rows.on_bad_row == "error":
          raise ValueError(_told(raw, error)) from error
        dropped.add(error.reason, raw)
        continue
      first = first or _spot(raw)
      formats_read[kind] += 1
      ignored.update(drafted.unread)
      for what, example in drafted.notes:
        if what == formats.TRAILING:
          counts["trailing"] += 1
        else:
          notes.add(what, raw, example)
      for ids, flags, shown in examples:
        tokens.extend(ids)
        learned.extend(flags)
        offsets.append(len(tokens))
        if pictures is not None:
          pictures.add_example(ids, shown)
      counts["ends"] += all(ids[-1] == tokenizer.eos for ids, _, _ in examples)
      digests.append(_digest_of(examples, pictures))
      margins.append(getattr(drafted, "margin", 0.0))
  arrays = (np.frombuffer(tokens, np.int32), np.frombuffer(learned, bool), np.frombuffer(offsets, np.int64))
  numbers = np.frombuffer(digests, np.uint64)
  kept = counts["read"] - sum(dropped.counts.values())
  report = Report(rows.path, ", ".join(formats_read) or rows.format, counts["read"], kept, dropped.as_(Dropped),
                  counts["truncated"], counts["trailing"], rows.length, len(tokens), int(arrays[1].sum()),
                  counts["ends"], tuple(sorted(ignored.items())), _digest(*arrays, pictures=pictures), first,
                  _histogram(np.diff(arrays[2])), notes.as_(Noted), kept - len(np.unique(numbers)),
                  (pictures.shown, pictures.different) if pictures else (0, 0))
  _refuse(rows, report)
  return Corpus(*arrays, report, numbers, np.frombuffer(margins, np.float32), pictures)


class _Places:
  """What was found in rows: how often, and where the first of them are."""

  def __init__(self):
    self.counts, self._first, self._examples = Counter(), {}, {}

  def add(self, what: str, raw: Raw, example: str = "") -> None:
    self.counts[what] += 1
    self._examples.setdefault(what, example)
    if self.counts[what] <= SHOWN:
      self._first.setdefault(what, []).append(_spot(raw))

  def as_(self, kind: type) -> tuple:
    """All of it as Dropped, or as Noted, which have an example."""
    more = lambda what: (self._examples[what],) if kind is Noted else ()
    return tuple(kind(what, count, tuple(self._first[what]), *more(what)) for what, count in self.counts.items())


def _digest_of(examples: Sequence[tuple[Sequence[int], Sequence[bool], Sequence[int]]], pictures: RowPictures | None
               ) -> int:
  content = b"".join(np.asarray(ids, np.int32).tobytes() + np.asarray(flags, bool).tobytes() + (
      pictures.digests(shown) if pictures else b"") for ids, flags, shown in examples)
  return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())


TOO_LONG, CUT_OFF = "longer than data.length", "nothing to learn within data.length"
ALIKE = "pairs whose sides are the same ids"
LONG = (TOO_LONG, CUT_OFF, formats.SILENT, ALIKE)   # no mistake of the row: always counted, never an error by itself


def _examples(rows: RowsConfig, raws: Sequence[Raw],
              tokenizer: Tokenizer) -> list[tuple[str, formats.Example | BadRow]]:
  """(format, what formats.examples gives) of each row, or its own fault."""
  kinds = [raw.fault or _kind(rows.format, raw) for raw in raws]
  good = [(kind, raw.value) for kind, raw in zip(kinds, raws, strict=True) if isinstance(kind, str)]
  drafts = iter(formats.examples(good, tokenizer, rows.control_tokens == "tokens"))
  return [(kind, next(drafts)) if isinstance(kind, str) else ("", kind) for kind in kinds]


def _kind(kind: str, raw: Raw) -> str | BadRow:
  """The format of a row, or why it has none."""
  try:
    return formats.format_of(raw.value, raw.columns) if kind == formats.AUTO else kind
  except BadRow as error:
    return error


def _fitted(rows: RowsConfig, drafted: formats.Example | BadRow, counts: Counter
            ) -> list[tuple[Sequence[int], Sequence[bool], tuple[int, ...]]]:
  """An example cut to the length of a row."""
  if isinstance(drafted, BadRow):
    raise drafted
  ids, flags = drafted.ids, drafted.learned
  most = rows.length + 1
  if len(ids) > most and (drafted.shown or not rows.truncate):
    raise BadRow(TOO_LONG, f"has {len(ids)} tokens")
  if not any(flags[1:most]):   # the first token of an example is never a target
    raise BadRow(CUT_OFF if len(ids) > most else "nothing to learn", f"has nothing to learn in {len(ids)} tokens")
  counts["truncated"] += len(ids) > most
  return [(ids[:most], [False, *flags[1:most]], drafted.shown)]   # without a <bos> it would count as a label


EXAMPLE_A_ROW = Form(EXAMPLES, _examples, _fitted, formats.used)


def _refuse(rows: RowsConfig, report: Report) -> None:
  """ValueError for a corpus that nobody can have meant to train on."""
  if not report.read:
    raise ValueError(f"{rows.path} has no rows: it is empty. Give a file with one row a line, such as "
                     '{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}.')
  lost = report.read - report.kept
  why = "; ".join(reasons(report))
  if not report.kept or not report.label_tokens:
    raise ValueError(f"{rows.path}: none of {report.read} rows can be trained on: {why}.")
  if lost > rows.max_dropped * report.read:
    raise ValueError(f"config.data.max_dropped is {rows.max_dropped:g}, but {lost} of {report.read} rows "
                     f"({lost / report.read:.1%}) of {rows.path} cannot be used: {why}. Mend them, or use "
                     f"--config.data.max_dropped={-(-1000 * lost // report.read) / 1000:g} or more.")


def _told(raw: Raw, error: BadRow) -> str:
  column = f", column {error.column}" if error.column else ""
  return (f"{raw.file}, row {raw.number}{column}: {error.message}. Mend the row, or skip and count such rows with "
          "--config.data.on_bad_row=skip.")


def _spot(raw: Raw) -> str:
  return f"{Path(raw.file).name}:{raw.number}"


def _shown(raws):
  """The rows, with a bar on a terminal: tokenizing millions takes minutes."""
  return tqdm(raws, desc="reading rows", unit=" rows", disable=not sys.stderr.isatty(), leave=False)


def _digest(*arrays: np.ndarray, pictures: RowPictures | None = None) -> str:
  """What a resume compares: ids, flags and where examples begin, so that no other order passes for the same."""
  digest = hashlib.sha256()
  for each in arrays:
    digest.update(memoryview(np.ascontiguousarray(each)).cast("B"))
  if pictures is not None and pictures.shown:
    digest.update(pictures.digest())
  return digest.hexdigest()


def _histogram(sizes: np.ndarray) -> tuple[tuple[int, int], ...]:
  """(largest size of the bin, examples in it), by powers of two."""
  if not len(sizes):
    return ()
  powers = np.ceil(np.log2(np.maximum(sizes, 1))).astype(int)
  return tuple((2**power, int((powers == power).sum())) for power in range(powers.min(), powers.max() + 1))
