"""Rows of a JSONL file answered in batches: one line out for a line in, in the same order, resumable."""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from tqdm import tqdm

from sftrl_jax.chat import Chat, Message
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.sample.generate import Generator, responses, start_conversation
from sftrl_jax.programs.sample.stopping import Generation, StopConditions
from sftrl_jax.training.log import write_json

ADDED = ("response", "finish", "tokens", "logprob")
TOLD = 10   # broken rows that are named


@dataclasses.dataclass(frozen=True)
class Row:
  """A line that can be answered. chat: what is asked; text: the bare prompt where no template is to be used."""

  line: int
  content: dict
  chat: Chat = ()
  text: str = ""


def read(path: Path, system: str = "", raw: bool = False, skip: bool = False) -> tuple[list[Row], list[str]]:
  """(rows, what is wrong with the others, by line). ConfigError if any is wrong, unless `skip`, or if none is right."""
  rows, broken = [], []
  try:
    lines = path.read_bytes().split(b"\n")
  except OSError as error:
    raise ConfigError(f"--in={path} cannot be read: {error.strerror}.") from error
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      rows.append(_row(number, json.loads(line.decode()), system, raw))
    except UnicodeDecodeError as error:
      broken.append(f"line {number}: byte {error.start} is no UTF-8")
    except json.JSONDecodeError as error:
      broken.append(f"line {number}: no JSON ({error.msg} at column {error.colno})")
    except ValueError as error:
      broken.append(f"line {number}: {error}")
  refuse(path, broken, len(rows), skip)
  return rows, broken


def refuse(path: Path, broken: Sequence[str], right: int, skip: bool) -> None:
  """ConfigError where rows are broken and not to be skipped, or where there is none to answer."""
  if broken and (not skip or not right):
    more = f"\n  and {len(broken) - TOLD} more" if len(broken) > TOLD else ""
    way_out = "mend them, or leave them out with --on-bad-row=skip" if right else "each needs `prompt` or `messages`"
    raise ConfigError(f"--in={path}: {len(broken)} of {len(broken) + right} rows cannot be answered: {way_out}.\n  "
                      + "\n  ".join(broken[:TOLD]) + more)
  if not right:
    raise ConfigError(f"--in={path} holds no row: write one JSON object a line, with `prompt` or `messages`.")


def _row(number: int, content, system: str, raw: bool) -> Row:
  """ValueError, a message without its line, for what cannot be answered."""
  if not isinstance(content, dict):
    raise ValueError(f"a JSON {type(content).__name__}, but it must be an object with `prompt` or `messages`")
  there = [key for key in ("prompt", "messages") if key in content]
  if len(there) != 1:
    raise ValueError("it has both `prompt` and `messages`; give one" if there else
                     f"it has neither `prompt` nor `messages`, but {', '.join(content) or 'nothing'}")
  taken = [key for key in ADDED if key in content]
  if taken:
    raise ValueError(f"it has a key `{taken[0]}`, which would be overwritten in --out; rename it")
  value = content[there[0]]
  if isinstance(value, str) and there == ["prompt"]:
    if not value:
      raise ValueError("`prompt` is empty")
    opening = (Message("system", system),) if system and not raw else ()
    return Row(number, content, (*opening, Message("user", value)), value)
  if raw:
    raise ValueError(f"--raw needs a text in `prompt`, but `{there[0]}` is a list of messages")
  return Row(number, content, messages(value, system))


def messages(value, system: str = "") -> Chat:
  """[{"role": ..., "content": ...}, ...] as a chat that waits for a response; ValueError for anything else."""
  if not isinstance(value, list) or not value:
    raise ValueError("the messages must be a list of {role, content} with at least one")
  chat = []
  for place, message in enumerate(value, start=1):
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
      raise ValueError(f"message {place} has no `role` and `content`")
    content = message["content"]
    if isinstance(content, list):   # parts, as chat APIs write them
      parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
      content = None if None in parts else "".join(parts)
    if not isinstance(content, str):
      raise ValueError(f"message {place} has no text in `content`")
    try:
      chat.append(Message(message["role"], content))
    except ValueError as error:
      raise ValueError(f"message {place}: {error}".rstrip(".")) from error
  if chat[-1].role == "assistant":
    raise ValueError("the last message is the assistant's, so nothing is left to answer")
  opening = (Message("system", system),) if system and chat[0].role != "system" else ()
  return (*opening, *chat)


def answer_all(speaker: Generator, rows: Sequence[Row], contexts: Sequence[Sequence[int]], out: Path, together: int,
               until: StopConditions, temperature: float, key: jax.Array, settings: dict,
               say: Callable[[str], None] = print) -> int:
  """Writes a line a row to `out`, `together` at a time; rows that are already there are skipped. How many were made.

  A row's random numbers follow from its place in the file, so a resumed file holds what an unbroken run had sampled.
  """
  done = _done(out, rows, settings)
  if done:
    say(f"{out}: {done} of {len(rows)} rows are there already.")
  size = 1 << (min(together, max(1, len(rows) - done)) - 1).bit_length()
  size = min(size, together)
  bar = tqdm(total=len(rows), initial=done, unit="row", disable=None, dynamic_ncols=True)
  with bar, out.open("a") as file:
    for first in range(done, len(rows), size):
      some = range(first, min(first + size, len(rows)))
      for said, place in zip(_answers(speaker, [contexts[i] for i in some], size, until, temperature, key, some), some,
                             strict=True):
        file.write(json.dumps(line(rows[place], said), ensure_ascii=False) + "\n")
      file.flush()
      os.fsync(file.fileno())
      bar.update(len(some))
  return len(rows) - done


def _answers(speaker, contexts, size: int, until: StopConditions, temperature: float, key, numbers) -> list[Generation]:
  thread = start_conversation(speaker, contexts, until.max_new_tokens, size)
  *_, (_, said) = responses(speaker, thread, until, temperature, key, numbers)
  return said


def line(row: Row, said: Generation) -> dict:
  """What is written of an answered row."""
  return {**row.content, "response": said.text, "finish": said.finish, "tokens": len(said.tokens),
          "logprob": round(said.logprob, 6)}


def _done(out: Path, rows: Sequence[Row], settings: dict) -> int:
  """How many rows `out` holds; half a last line is cut off. ConfigError if it answers other rows, or otherwise."""
  beside = out.with_name(f"{out.name}.settings.json")
  text = out.read_bytes() if out.is_file() else b""
  whole = text[: text.rfind(b"\n") + 1]
  if whole:
    old = json.loads(beside.read_text()) if beside.is_file() else {}
    differ = [key for key in settings if old.get(key) != settings[key]]
    if differ:
      raise ConfigError(f"--out={out} was begun with other settings ({', '.join(differ)}): give another file, or "
                        f"remove it and {beside.name}.")
  written = whole.decode(errors="replace").splitlines()
  for number, (text_line, row) in enumerate(zip(written, rows, strict=False), start=1):
    try:
      there = json.loads(text_line)
      same = {key: value for key, value in there.items() if key not in ADDED} == row.content
    except (ValueError, AttributeError):
      same = False
    if not same:
      raise ConfigError(f"--out={out} line {number} does not answer line {row.line} of --in: give another file.")
  if len(written) > len(rows):
    raise ConfigError(f"--out={out} has {len(written)} lines, but --in only {len(rows)} rows: give another file.")
  if len(whole) != len(text):
    out.write_bytes(whole)
  if not whole:
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(beside, settings)
  return len(written)
