"""A row with two responses to one prompt as two sides, by the names of its columns, which are TRL's.

prompt: a text or a list of messages. Without it the prompt is what both sides begin with: the same messages, or the
  same characters up to a space.
chosen, rejected: the preferred response and the other one: two texts, or two lists of messages. Learned is what the
  assistant wrote after the prompt, with its end.
margin: by how much the preferred response is better; or score_chosen and score_rejected, of which it is the difference.

Both sides have the same ids up to the response, those that generation reads. A pair lies in one row, so a pair of more
than data.length tokens is dropped and counted: one that is cut would be of other responses.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from sftrl_jax.data import formats
from sftrl_jax.data.formats import Example
from sftrl_jax.data.lines import BadRow, Raw
from sftrl_jax.data.pairs.sides import SIDES, sides_of
from sftrl_jax.data.pictures.parts import PICTURES
from sftrl_jax.data.read import BESIDE, Columns
from sftrl_jax.data.rows import ALIKE, TOO_LONG, Form, refuse_ranges
from sftrl_jax.text.tokenizer import Tokenizer

FORMAT = "pairs"
SCORES = ("score_chosen", "score_rejected")
PAIRS = Columns(("prompt", *SIDES, "margin", *SCORES), "`chosen` and `rejected`, and a `prompt` if they do not begin "
                "with it")
AGAINST = "pairs whose preferred response has the lower score, read without a margin"


@dataclasses.dataclass(frozen=True)
class PairsConfig:
  """Own pairs: a file, a directory of files, or a data set of the hub.

  path: .jsonl, .json or .parquet, a directory of such files, or owner/name on the hub
  length: tokens of a packed row; a pair whose two sides have more is dropped and counted
  subset, split: of a data set of the hub
  on_bad_row: stop at a row that cannot be read, or skip and count it
  max_dropped: largest share of rows that may be dropped before the run is refused
  control_tokens: how texts that spell control tokens such as <|im_end|> are read: as letters (text), or as those
    tokens (tokens)
  shuffle: another order in every pass, by the seed; off keeps the order of the file
  pack: several pairs a row; off is one pair a row, so that config.batch counts pairs
  validation: share of the pairs that is held out, of which eval/loss and eval/accuracy are measured
  heldout: a file of other pairs, or a directory of such files, each of which is a variant by its name: their
    rewards/accuracies are in evals.jsonl
  flops: that the pairs have cost, charged with the first step; recorded: what pairs.json beside path says
  """

  path: str = ""
  length: int = 1024
  subset: str = ""
  split: str = "train"
  on_bad_row: Literal["error", "skip"] = "error"
  max_dropped: float = 0.05
  control_tokens: Literal["text", "tokens"] = "text"
  shuffle: bool = True
  pack: bool = True
  validation: float = 0.0
  heldout: str = ""
  flops: float | Literal["recorded"] = 0.0

  format = FORMAT   # of every row

  def __post_init__(self):
    if not self.path:
      raise ValueError("path is '', but preferences are learned from pairs: give --config.data.path=FILE, with columns "
                       f"{PAIRS.needed}.")
    refuse_ranges(self, 4)


@dataclasses.dataclass(frozen=True)
class Pair:
  """A row as two examples, the preferred one first. notes, unread: of both, as in Example."""

  sides: tuple[Example, Example]
  margin: float = 0.0
  notes: tuple[tuple[str, str], ...] = ()
  unread: tuple[str, ...] = ()


def margin_of(value: dict) -> tuple[float, tuple[tuple[str, str], ...]]:
  """(margin, notes) of a row; 0 where nobody has said."""
  if value.get("margin") is not None:
    margin = _number(value["margin"], "margin")
    if margin < 0:
      raise BadRow("negative margin", f"is {margin}, but the preferred response is the better one", "margin")
    return margin, ()
  if any(value.get(key) is None for key in SCORES):
    return 0.0, ()
  better, worse = (_number(value[key], key) for key in SCORES)
  return (better - worse, ()) if better >= worse else (0.0, ((AGAINST, f"{better} and {worse}"),))


def _number(value: Any, column: str) -> float:
  if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or abs(value) > 1e6:
    raise BadRow("no number", f"is {str(value)[:40]!r}, but should be a finite number of at most 1e6", column)
  return float(value)


def _pairs(config: PairsConfig, raws: Sequence[Raw], tokenizer: Tokenizer) -> list[tuple[str, Pair | BadRow]]:
  parted, rows = [], []
  for raw in raws:
    try:
      if raw.fault:
        raise raw.fault
      sides, margin = sides_of(raw.value), margin_of(raw.value)
    except BadRow as error:
      parted.append(error)
      continue
    parted.append(margin)
    rows += [("prompt_completion", side) for side in sides]
  read = iter(formats.examples(rows, tokenizer, config.control_tokens == "tokens"))
  return [(FORMAT, _pair((next(read), next(read)), *entry)) if isinstance(entry, tuple) else ("", entry)
          for entry in parted]


def _pair(sides: Sequence[Example | BadRow], margin: float, notes: tuple) -> Pair | BadRow:
  for name, side in zip(SIDES, sides, strict=True):
    if isinstance(side, BadRow):
      column = side.column.replace("completion", name) if "completion" in side.column else side.column
      return BadRow(side.reason, side.message, "prompt" if column == "prompt" else column or name)
  return Pair(tuple(sides), margin, tuple(dict.fromkeys((*notes, *sides[0].notes, *sides[1].notes))),
              tuple(dict.fromkeys((*sides[0].unread, *sides[1].unread))))


def _fitted(config: PairsConfig, pair: Pair | BadRow, counts: Counter
            ) -> list[tuple[Sequence[int], Sequence[bool], tuple[int, ...]]]:
  """The two sides of a pair that fits a row."""
  del counts
  if isinstance(pair, BadRow):
    raise pair
  begins = []
  for name, side in zip(SIDES, pair.sides, strict=True):
    if not any(side.learned[1:]):   # the first token of a side is never a target
      raise BadRow("nothing to learn", f"has nothing to learn in {len(side.ids)} tokens", name)
    begins.append(side.ids[: side.learned.index(True)])
  if (pair.sides[0].ids, pair.sides[0].shown) == (pair.sides[1].ids, pair.sides[1].shown):
    raise BadRow(ALIKE, "has the same ids as rejected", "chosen")
  if begins[0] != begins[1]:
    raise BadRow("unequal prompts", "is rendered otherwise before rejected than before chosen", "prompt")
  size = sum(len(side.ids) for side in pair.sides)
  if size > config.length:
    raise BadRow(TOO_LONG, f"has {size} tokens on both sides together")
  return [(side.ids, [False, *side.learned[1:]], side.shown) for side in pair.sides]


def _used(name: str, value: dict) -> set[str]:
  chat = isinstance(value.get("chosen"), list) or isinstance(value.get("prompt"), list)
  scores = () if value.get("margin") is not None else SCORES
  return {"prompt", *SIDES, "margin", *scores, *((*BESIDE, *PICTURES) if chat else ())}


PAIR_A_ROW = Form(PAIRS, _pairs, _fitted, _used)
