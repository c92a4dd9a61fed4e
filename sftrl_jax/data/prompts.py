"""Prompts of a data set as an environment: one response an episode, which a reward function or a reward model scores.

A row has its prompt, by the names of columns that TRL uses too, in
  prompt: a text, which is the user's message, or a list of messages whose last one is the user's;
  messages, or ShareGPT's conversations: without `prompt`; where the last message is the assistant's, it is the answer;
  chosen, rejected: without these; what both begin with, as data/pairs/rows.py reads it.
A column `system` is a message before it. All columns but `prompt` are kept, for reward functions.

It is no file of envs/, because that room reads no files and lies below this one.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from sftrl_jax.chat import Chat, Message
from sftrl_jax.data.formats import system_of, template_args
from sftrl_jax.data.lines import BadRow, Raw
from sftrl_jax.data.messages import kind, listed, text_of
from sftrl_jax.data.pictures.parts import PICTURES
from sftrl_jax.data.read import Columns, read
from sftrl_jax.envs.env import Verdict

NAME = "prompts"
CHATS = ("messages", "conversations")
ANSWERS = ("completion", "solution", "answer", "chosen")   # the first that a row has is the expert's response
PROMPT_COLUMNS = Columns(("prompt", *CHATS, "chosen"), "`prompt`, or `messages`, or `chosen` and `rejected`",
                         every=True)
SHOWN = 3   # rows named of every reason why some were dropped
HELD_OUT = "held_out"


class PromptRow(NamedTuple):
  """A row that can be answered. place: `file, row 3`. answer: what the expert responds, or None. plain: as a text"""

  place: str
  chat: Chat
  answer: str | None
  columns: dict[str, Any]
  plain: bool


class PromptState(NamedTuple):
  """A row, and whether it has been answered."""

  row: PromptRow
  ended: bool = False


class PromptSet(NamedTuple):
  """The rows of a data set that can be answered, and a sentence on those that cannot. plain: all prompts are texts;
  columns: names, but `prompt`"""

  trained: tuple[PromptRow, ...]
  held_out: tuple[PromptRow, ...]
  note: str
  plain: bool
  columns: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Prompts:
  """A data set of prompts, of which an episode draws one by its seed, with replacement.

  path: .jsonl, .json or .parquet, a directory of such files, or owner/name on the hub
  subset, split: of a data set of the hub
  on_bad_row: stop at a row without a prompt that can be answered, or skip and count it
  max_dropped: largest share of rows that may be skipped before the run is refused
  held_out: share of the prompts that training never sees, chosen by a hash of the prompt, so that equal prompts stay
    together; the variant held_out plays them alone
  """

  path: str = ""
  subset: str = ""
  split: str = "train"
  on_bad_row: Literal["error", "skip"] = "error"
  max_dropped: float = 0.05
  held_out: float = 0.1
  variant: str = "train"

  variants: ClassVar[tuple[str, ...]] = ("id", HELD_OUT)
  codes: ClassVar[tuple[str, ...]] = ("answered",)
  attempts: ClassVar[int] = 1
  words: ClassVar[tuple[str, ...]] = ()
  thread_safe: ClassVar[bool] = True
  verifies: ClassVar[bool] = False

  def __post_init__(self):
    if not self.path:
      raise ValueError("path is '', but prompts are read from a data set: give --config.env.path=FILE, whose rows have "
                       f"{PROMPT_COLUMNS.needed}.")
    for name in ("max_dropped", "held_out"):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it is a share, from 0 to 1.")
    if self.variant not in ("train", *self.variants):
      raise ValueError(f"variant is {self.variant!r}; it must be one of train, {', '.join(self.variants)}.")
    if not self.rows:
      count = len(self._set.trained) + len(self._set.held_out)
      raise ValueError(f"held_out is {self.held_out:g}, which leaves none of {count} prompts of {self.path} to "
                       + ("hold out: use a larger share, or leave held_out out of config.evals.variants."
                          if self.variant == HELD_OUT else "train on: use a smaller share."))

  @property
  def _set(self) -> PromptSet:
    return prompt_set(self.path, self.subset, self.split, self.on_bad_row, self.max_dropped, self.held_out)

  @property
  def rows(self) -> tuple[PromptRow, ...]:
    """The rows of this variant, in their order."""
    return self._set.held_out if self.variant == HELD_OUT else self._set.trained

  @property
  def plain_prompts(self) -> bool:
    """Whether every prompt is a text and not a list of messages: a reward function gets texts then, as TRL gives it."""
    return self._set.plain

  @property
  def notes(self) -> tuple[str, ...]:
    """What a person should know before a run begins."""
    return (self._set.note,)

  def reset(self, seed: int | str) -> tuple[PromptState, Chat]:
    draw = random.Random(f"prompt {seed}")
    row = draw.choice(self.rows)
    return PromptState(row), row.chat

  def step(self, state: PromptState, response: str) -> tuple[PromptState, Verdict]:
    """The end of the episode. Nobody knows yet whether the response is good: its reward is None."""
    if state.ended:
      raise ValueError("the episode has ended: reset(seed) begins another")
    return PromptState(state.row, ended=True), Verdict(None, True, False, False, False, "", None, "answered")

  def expert(self, state: PromptState, choice: int = 0) -> str:
    if state.row.answer is None:
      raise ValueError(f"{state.row.place} has no response to learn from: add a column {', '.join(ANSWERS)} (the first "
                       "of them that has a text is the expert's), or do not ask for the expert.")
    return state.row.answer

  def columns(self, state: PromptState) -> dict[str, Any]:
    """{name: value} of all columns but `prompt`, as JSON has them; None where the state's row lacks one. Do not change
    the values."""
    return {name: state.row.columns.get(name) for name in self._set.columns}


@functools.lru_cache(maxsize=8)
def prompt_set(path: str, subset: str, split: str, on_bad_row: str, max_dropped: float, held_out: float) -> PromptSet:
  """The prompts of a data set, read once a process. ValueError names file, row and column, or the key of config.env."""
  trained, kept_out, reasons, first = [], [], Counter(), {}
  try:
    for raw in read(path, subset, split, PROMPT_COLUMNS):
      try:
        row = row_of(raw)
      except BadRow as error:
        if on_bad_row == "error":
          column = f", column {error.column}" if error.column else ""
          raise ValueError(f"{_place(raw)}{column}: {error}. Mend the row, or skip and count such rows with "
                           "--config.env.on_bad_row=skip.") from error
        reasons[error.reason] += 1
        if reasons[error.reason] <= SHOWN:
          first.setdefault(error.reason, []).append(f"{Path(raw.file).name}:{raw.number}")
        continue
      (kept_out if share_of(row.chat) < held_out else trained).append(row)
  except ValueError as error:   # the keys of this reader are those of config.env
    raise ValueError(str(error).removeprefix("config.data.").replace("config.data.", "config.env.")) from error
  kept, dropped = len(trained) + len(kept_out), sum(reasons.values())
  why = "; ".join(f"{count:,} {reason} ({', '.join(first[reason])}{', ...' if count > SHOWN else ''})"
                  for reason, count in reasons.items())
  if not kept:
    raise ValueError(f"path is {path!r}, but none of its {dropped} rows has a prompt{': ' if why else ''}{why}.")
  if dropped > max_dropped * (kept + dropped):
    raise ValueError(f"max_dropped is {max_dropped:g}, but {dropped} of {kept + dropped} rows of {path} cannot be "
                     f"used: {why}. Mend them, or use --config.env.max_dropped="
                     f"{-(-1000 * dropped // (kept + dropped)) / 1000:g} or more.")
  note = f"{path}: {kept:,} prompts, of which {len(kept_out):,} are held out" + (f"; dropped: {why}" if why else "")
  rows = [*trained, *kept_out]
  names = tuple(dict.fromkeys(name for row in rows for name in row.columns))
  return PromptSet(tuple(trained), tuple(kept_out), f"{note}.", all(row.plain for row in rows), names)


def row_of(raw: Raw) -> PromptRow:
  """A raw row as one that can be answered; BadRow for any other."""
  if raw.fault:
    raise raw.fault
  value = {key: item for key, item in raw.value.items() if item is not None}
  if shown := next((name for name in PICTURES if value.get(name)), ""):
    raise BadRow("pictures", "has pictures, but prompts are texts, so the model would never see them: leave the "
                 "column out", shown)
  if args := template_args(value):
    raise BadRow("arguments for the chat template", f"gives {', '.join(args)} to the chat template for this row alone, "
                 "but a run has the same ones for all prompts: config.tokenizer.template_args")
  column, chat, answer = _asked(value, raw.columns)
  if chat[-1].role != "user":
    raise BadRow("last message is not the user's", f"ends with a message of the {chat[-1].role}, but a response "
                 "answers the user", column)
  if not chat[-1].text.strip():
    raise BadRow("empty", "is empty, so there is nothing to answer", column)
  chat = (*system_of(value, chat), *chat)
  columns = {key: _plain(item) for key, item in value.items() if key != "prompt"}
  plain = isinstance(value.get("prompt"), str) and len(chat) == 1
  return PromptRow(_place(raw), chat, answer if answer is not None else _answer(value), columns, plain)


def _asked(value: dict, names: tuple[str, ...]) -> tuple[str, Chat, str | None]:
  """(the column of the prompt, the chat to answer, the answer that the same column has or None)."""
  if "prompt" in value:
    prompt = value["prompt"]
    if isinstance(prompt, str):
      return "prompt", (Message("user", text_of(value, "prompt")),), None
    if not isinstance(prompt, list):
      raise BadRow("no prompt", f"is {kind(prompt)}, but should be text or a list of messages", "prompt")
    return "prompt", listed(prompt, "prompt").chat, None
  column = next((name for name in CHATS if name in value), None)
  if column:
    chat = listed(value[column], column).chat
    if chat[-1].role != "assistant":
      return column, chat, None
    if len(chat) == 1:
      raise BadRow("no prompt", "begins with the assistant, so nothing is asked", column)
    return column, chat[:-1], chat[-1].text
  if "chosen" in value and "rejected" in value:
    from sftrl_jax.data.pairs.rows import sides_of  # imports JAX
    prompt = sides_of(value)[0]["prompt"]
    chat = (Message("user", prompt),) if isinstance(prompt, str) else listed(prompt, "chosen").chat
    return "chosen", chat, None
  raise BadRow("no prompt", f"has the columns {', '.join(map(repr, names)) or '(none)'}, but needs "
                            f"{PROMPT_COLUMNS.needed}")


def _answer(value: dict) -> str | None:
  """The response that a row's columns give, or None."""
  for column in ANSWERS:
    item = value.get(column)
    if isinstance(item, list) and item and isinstance(item[-1], dict):
      messages = listed(item, column).chat
      item = messages[-1].text if messages[-1].role == "assistant" else None
    if isinstance(item, str) and item:
      return text_of(value, column) if isinstance(value[column], str) else item
  return None


def share_of(chat: Chat) -> float:
  """A number from 0 to below 1 that follows from the words of a chat alone."""
  words = json.dumps([(message.role, message.text) for message in chat])
  return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8]) / 2**64


def _plain(value: Any) -> Any:
  """A value of a table as JSON has it: what it has not, a date or a decimal number, is its text."""
  if isinstance(value, dict):
    return {str(key): _plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  if isinstance(value, (datetime.date, datetime.time)):
    return value.isoformat()
  return value if isinstance(value, (str, bool, int, float, type(None))) else str(value)


def _place(raw: Raw) -> str:
  return f"{raw.file}, row {raw.number}"
