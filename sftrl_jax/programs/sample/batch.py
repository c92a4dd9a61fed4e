"""Answers the rows of a JSONL file in batches: one line out for a line in, in the same order, resumable."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sftrl_jax import paths
from sftrl_jax.chat import Chat, Message
from sftrl_jax.data.formats import system_of, template_args
from sftrl_jax.data.lines import BadRow, Raw, lines
from sftrl_jax.data.messages import Listed, listed, text_of
from sftrl_jax.data.pictures.parts import PICTURES, spread
from sftrl_jax.data.pictures.row_pictures import RowPictures
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.runtime.lock import only_output
from sftrl_jax.programs.sample.chat_loop import opening
from sftrl_jax.programs.sample.generate import ChatSettings, responses, start_conversation
from sftrl_jax.programs.sample.stopping import Generation
from sftrl_jax.text.images import ImageReader, Pictures
from sftrl_jax.training.log import write_json

ADDED = ("response", "finish", "tokens", "logprob")
MOST_NAMED = 10   # broken rows that an error names


@dataclasses.dataclass(frozen=True)
class PromptRow:
  """A line that can be answered.

  line: its number in the file, from 1
  content: the JSON object
  chat: the chat to answer, whose pictures have their sizes and no pixels
  args: what its chat template gets besides: tools and chat_template_kwargs of the row
  text: the bare prompt, for use without a chat template
  shown: the numbers of its pictures in `pictures`, which all rows of a file share
  """

  line: int
  content: dict
  chat: Chat = ()
  args: dict = dataclasses.field(default_factory=dict)
  text: str = ""
  shown: tuple[int, ...] = ()
  pictures: RowPictures | None = dataclasses.field(default=None, repr=False, compare=False)

  def pixels(self, reader: ImageReader | None) -> Pictures:
    """What a model reads of the row's pictures, decoded now. ConfigError for a file that has changed since `read`."""
    try:
      return tuple(tile for number in self.shown for tile in reader.pixels(self.pictures.image(number)))
    except ValueError as error:
      raise ConfigError(f"--in line {self.line}: {error}") from error


def read(path: Path, system: str = "", raw: bool = False, skip: bool = False) -> tuple[list[PromptRow], list[str]]:
  """Returns the rows, and for each broken row a sentence with its line and its mistake. Every picture is decoded, which
  shows whether it can be; its pixels are not kept.

  system: put before every chat that has no system text
  raw: take prompts without a chat template
  skip: leave broken rows out

  Raises ConfigError if a row is broken and not skipped, or if no row can be answered.
  """
  rows, broken, pictures = [], [], RowPictures(None)
  try:
    for line in lines(path):
      try:
        if line.fault is not None:
          raise line.fault
        rows.append(_row(line, system, raw, pictures))
      except ValueError as error:
        broken.append(f"line {line.number}: {error}")
  except OSError as error:
    raise ConfigError(f"--in={path} cannot be read: {error.strerror}.") from error
  except ValueError as error:   # no lines of JSON at all
    raise ConfigError(f"--in={error}") from error
  refuse(path, broken, len(rows), skip)
  return rows, broken


def refuse(path: Path, broken: Sequence[str], right: int, skip: bool) -> None:
  """Raises ConfigError if rows are broken and may not be skipped, or if there is none to answer. right: sound rows."""
  if broken and (not skip or not right):
    more = f"\n  and {len(broken) - MOST_NAMED} more" if len(broken) > MOST_NAMED else ""
    way_out = "mend them, or leave them out with --on-bad-row=skip" if right else "each needs `prompt` or `messages`"
    raise ConfigError(f"--in={path}: {len(broken)} of {len(broken) + right} rows cannot be answered: {way_out}.\n  "
                      + "\n  ".join(broken[:MOST_NAMED]) + more)
  if not right:
    raise ConfigError(f"--in={path} holds no row: write one JSON object a line, with `prompt` or `messages`.")


def _row(line: Raw, system: str, raw: bool, pictures: RowPictures) -> PromptRow:
  """Raises ValueError, without the line's number, for content that cannot be answered."""
  number, content = line.number, line.value
  keys = [key for key in ("prompt", "messages", "conversations") if content.get(key) is not None]
  if len(keys) != 1:
    raise ValueError(f"it has both `{keys[0]}` and `{keys[1]}`; give one" if keys else
                     f"it has neither `prompt` nor `messages`, but {', '.join(content) or 'nothing'}")
  taken = [key for key in ADDED if key in content]
  if taken:
    raise ValueError(f"it has a key `{taken[0]}`, which would be overwritten in --out; rename it")
  if raw and (column := next((key for key in PICTURES if content.get(key)), "")):
    raise ValueError(f"it has pictures in `{column}`, which have no place in a bare text: leave --raw out")
  value = content[keys[0]]
  if isinstance(value, str) and keys == ["prompt"]:
    if not text_of(content, "prompt"):
      raise ValueError("`prompt` is empty")
    if raw:
      return PromptRow(number, content, (Message("user", value),), text=value)
  elif raw:
    raise ValueError(f"--raw needs a text in `prompt`, but `{keys[0]}` is a list of messages")
  asked = _named(lambda: _asked(pictures.opened(line), keys[0]))
  chat = _unanswered(asked.chat)
  chat = (*system_of(content, chat), *chat)
  opened = chat if chat[0].role == "system" else (*opening(system), *chat)
  shown = tuple(number for numbers in asked.shown for number in numbers)
  return PromptRow(number, content, opened, template_args(content), value if isinstance(value, str) else "", shown,
                   pictures)


def _asked(line: Raw, column: str) -> Listed:
  """The messages of a row in their column, with its pictures in them; a text is the user's message."""
  if line.fault is not None:
    raise line.fault
  value = line.value
  if isinstance(value[column], str) and column == "prompt":
    value = {**value, column: [{"role": "user", "content": value[column]}]}
  return listed((spread(value, (column,)) if isinstance(value[column], list) else value)[column], column)


def messages(value: Any, system: str = "", column: str = "messages") -> Chat:
  """Reads [{"role": ..., "content": ...}, ...] as a chat that awaits a response; ValueError for anything else."""
  chat = _unanswered(_named(lambda: listed(value, column)).chat)
  return (*opening("" if chat[0].role == "system" else system), *chat)


def _unanswered(chat: Chat) -> Chat:
  if chat[-1].role == "assistant":
    raise ValueError("the last message is the assistant's, so nothing is left to answer")
  return chat


def _named(make: Callable[[], Listed]) -> Listed:
  """make(), whose BadRow becomes a ValueError that begins with the column."""
  try:
    return make()
  except BadRow as error:
    raise ValueError(f"{error.column}: {error}") from error


def digest_of_pictures(rows: Sequence[PromptRow]) -> str:
  """Of the pictures of all rows in their order; "" without any."""
  digest = hashlib.sha256()
  for row in rows:
    digest.update(len(row.shown).to_bytes(8) + (row.pictures.digests(row.shown) if row.shown else b""))
  return digest.hexdigest() if any(row.shown for row in rows) else ""


def answer_all(settings: ChatSettings, rows: Sequence[PromptRow], contexts: Sequence[Sequence[int]], out: Path,
               batch_size: int, recorded: dict, note: Callable[[str], None] = print) -> int:
  """Writes a line for each row to `out` and returns how many it wrote; rows that `out` already answers are skipped.

  contexts: the ids of each row's prompt
  batch_size: rows that are answered together
  recorded: settings as JSON, written beside `out`; a file that was begun with other settings is refused
  note: called with a sentence for a person

  A row's random keys follow from its place in the file, so a resumed file holds what an unbroken run samples.
  ConfigError where another process writes `out`.
  """
  with only_output(out, "--out"):
    return _answer_rest(settings, rows, contexts, out, batch_size, recorded, note)


def _answer_rest(settings: ChatSettings, rows: Sequence[PromptRow], contexts: Sequence[Sequence[int]], out: Path,
                 batch_size: int, recorded: dict, note: Callable[[str], None]) -> int:
  done = _rows_done(out, rows, recorded)
  if done:
    note(f"{out}: {done} of {len(rows)} rows are there already.")
  size = min(batch_size, 1 << (min(batch_size, max(1, len(rows) - done)) - 1).bit_length())
  bar = tqdm(total=len(rows), initial=done, unit="row", disable=None, dynamic_ncols=True)
  with bar, paths.named_errors(out), out.open("a") as file:
    for first in range(done, len(rows), size):
      numbers = range(first, min(first + size, len(rows)))
      pictures = [rows[number].pixels(settings.generator.tokenizer.reader) for number in numbers]
      conversation = start_conversation(settings.generator, [contexts[number] for number in numbers],
                                        settings.stop_conditions.max_new_tokens, size, pictures)
      *_, (_, generations) = responses(settings, conversation, numbers)
      for number, generation in zip(numbers, generations, strict=True):
        file.write(json.dumps(answered(rows[number], generation), ensure_ascii=False) + "\n")
      file.flush()
      os.fsync(file.fileno())
      bar.update(len(numbers))
  return len(rows) - done


def answered(row: PromptRow, generation: Generation) -> dict:
  """Returns the line of --out: the row's own keys and ADDED."""
  return {**row.content, "response": generation.text, "finish": generation.finish, "tokens": len(generation.tokens),
          "logprob": round(generation.logprob, 6)}


def _rows_done(out: Path, rows: Sequence[PromptRow], recorded: dict) -> int:
  """Returns how many rows `out` answers, and cuts off half a last line. Writes `recorded` beside a new file.

  Raises ConfigError if `out` answers other rows, or was begun with other settings.
  """
  beside = out.with_name(f"{out.name}.settings.json")
  text = out.read_bytes() if out.is_file() else b""
  whole = text[: text.rfind(b"\n") + 1]
  if whole:
    old = json.loads(beside.read_text()) if beside.is_file() else {}
    differ = [key for key in recorded if old.get(key) != recorded[key]]
    if differ:
      raise ConfigError(f"--out={out} was begun with other settings ({', '.join(differ)}): give another file, or "
                        f"remove it and {beside.name}.")
  answers = whole.decode(errors="replace").splitlines()
  for number, (line, row) in enumerate(zip(answers, rows, strict=False), start=1):
    try:
      same = {key: value for key, value in json.loads(line).items() if key not in ADDED} == row.content
    except (ValueError, AttributeError):
      same = False
    if not same:
      raise ConfigError(f"--out={out} line {number} does not answer line {row.line} of --in: give another file.")
  if len(answers) > len(rows):
    raise ConfigError(f"--out={out} has {len(answers)} lines, but --in only {len(rows)} rows: give another file.")
  if len(whole) != len(text):
    out.write_bytes(whole)
  if not whole:
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(beside, recorded)
  return len(answers)
