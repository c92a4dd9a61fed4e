"""A chat in a terminal: reads a line, streams the response, and keeps the cache from turn to turn."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sftrl_jax.chat import Chat, Message
from sftrl_jax.programs.sample.generate import (
  ChatSettings,
  Conversation,
  continue_conversation,
  responses,
  start_conversation,
)
from sftrl_jax.programs.sample.stopping import Generation, visible_text
from sftrl_jax.text.render import continued, pictures, refuse_reuse, render

HELP = """/reset          begins anew, with the same system text
/system TEXT    begins anew with this system text; without TEXT, with none
/help           prints this
Ctrl-C          stops a response; Ctrl-D ends"""


@dataclasses.dataclass(frozen=True)
class ChatState:
  """A chat between two lines of the user.

  conversation: what the model has read, or None before its first response
  closed: whether the last response ended with the id that closes a turn
  turn: responses so far; random keys are folded from it
  """

  chat: Chat = ()
  conversation: Conversation | None = None
  closed: bool = True
  turn: int = 0


def can_keep_cache(tokenizer: Any) -> bool:
  """Returns whether a longer chat begins with the tokens of a shorter one; some templates rewrite earlier turns."""
  try:
    refuse_reuse(tokenizer)
  except ValueError:
    return False
  return True


def opening(system: str) -> Chat:
  """Returns the chat before the user's first message: the system text if there is one."""
  return (Message("system", system),) if system else ()


def asked(text: str, images: Sequence[np.ndarray] = ()) -> Message:
  """The user's message with pictures before its text."""
  if len(images) < 2:
    return Message("user", text, *images)
  parts = [*({"type": "image"} for _ in images), {"type": "text", "text": text}]
  return Message("user", text, images[0], {"role": "user", "content": parts}, tuple(images[1:]))


def answer(settings: ChatSettings, state: ChatState, text: str, show: Callable[[str], None],
           stopped: Callable[[], bool]) -> tuple[ChatState, Generation, float]:
  """Answers the user's `text`. Returns the state afterwards, the response, and its tokens a second."""
  begins = not any(message.role == "user" for message in state.chat)
  chat = (*state.chat, asked(text, settings.images if begins else ()))
  conversation, generation, rate = stream(settings, _read_chat(settings, state, chat), state.turn, show, stopped)
  closed = bool(generation.tokens) and generation.tokens[-1] == settings.generator.tokenizer.eos
  chat = (*chat, Message("assistant", generation.text))
  return ChatState(chat, conversation, closed, state.turn + 1), generation, rate


def stream(settings: ChatSettings, conversation: Conversation, number: int, show: Callable[[str], None],
           stopped: Callable[[], bool] = lambda: False) -> tuple[Conversation, Generation, float]:
  """Responds to a single conversation, and shows the text piece by piece as soon as it can no longer change.

  Returns the conversation afterwards, the response, and its tokens a second after the first piece, which may have
  waited for compilation.
  """
  shown, generation, marks = 0, Generation(), []
  for pair in responses(settings, conversation, [number]):
    after, (generation,) = pair
    marks.append((time.perf_counter(), len(generation.tokens)))
    text = visible_text(generation, settings.stop_conditions.strings)
    show(text[shown:])
    shown = len(text)
    if stopped():
      break
  show(generation.text[shown:])   # a response that was stopped keeps what was held back
  (start_time, first), (end_time, last) = marks[0], marks[-1]
  return after, generation, (last - first) / (end_time - start_time) if last > first else 0.0


def _read_chat(settings: ChatSettings, state: ChatState, chat: Chat) -> Conversation:
  """Reads the chat: only its new messages where the cache can be kept."""
  generator, reserve = settings.generator, settings.stop_conditions.max_new_tokens
  if state.conversation is None or not can_keep_cache(generator.tokenizer):
    ids, shown = render(generator.tokenizer, chat)[0], pictures(generator.tokenizer, chat)
    return start_conversation(generator, [ids], reserve, pictures=[shown])
  missing = [] if state.closed else [generator.tokenizer.eos]
  return continue_conversation(generator, state.conversation, [missing + continued(generator.tokenizer, chat)], reserve)


def converse(settings: ChatSettings, system: str, ask: Callable[[], str], show: Callable[[str], Any]) -> None:
  """Answers line after line until `ask` raises EOFError. A line that cannot be read leaves the chat as it was."""
  state = ChatState(opening(system))
  while True:
    try:
      line = ask().strip()
    except EOFError:
      show("\n")
      return
    except KeyboardInterrupt:
      show("\n(Ctrl-D ends)\n")
      continue
    if not line:
      continue
    if line.startswith("/"):
      state, reply = command(line, state, system)
      system = state.chat[0].text if state.chat and state.chat[0].role == "system" else ""
      show(f"{reply}\n")
      continue
    try:
      with interrupts() as stopped:
        state, generation, rate = answer(settings, state, line, show, stopped)
    except ValueError as error:   # a word that the tokenizer does not have: nothing was read
      show(f"({error})\n")
      continue
    except KeyboardInterrupt:   # the second one in one response
      show("\n")
      return
    show(f"\n{summary(generation, rate)}{context_warning(settings, state.conversation.counts[0])}\n")


def context_warning(settings: ChatSettings, tokens: int) -> str:
  """Returns a warning if the chat is longer than the model's training context, else ""."""
  context = settings.generator.model.config.context
  return f" (up to {tokens} tokens, but this model was trained on {context})" if 0 < context < tokens else ""


def command(line: str, state: ChatState, system: str) -> tuple[ChatState, str]:
  """Runs a line that begins with a slash. Returns the state afterwards, and the text to show."""
  word, _, text = line.partition(" ")
  if word == "/reset":
    return ChatState(opening(system)), "(a new conversation)"
  if word == "/system":
    text = text.strip()
    return ChatState(opening(text)), f"(a new conversation; system: {text})" if text else "(a new conversation)"
  if word == "/help":
    return state, HELP
  return state, f"({word} is no command)\n{HELP}"


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
  """Yields a function that returns whether Ctrl-C was pressed; the second press raises KeyboardInterrupt as usual.

  The first press only sets a flag: an exception between two pieces could lose a cache that is donated and not yet back.
  """
  presses = []

  def note(number, frame):
    if presses:
      raise KeyboardInterrupt
    presses.append(number)

  before = signal.signal(signal.SIGINT, note)
  try:
    yield lambda: bool(presses)
  finally:
    signal.signal(signal.SIGINT, before)


def summary(generation: Generation, rate: float) -> str:
  """Returns a line about a response: its tokens, its speed, and the reason of its end if it did not end itself."""
  reasons = {"": "stopped by Ctrl-C", "length": "cut at --max-new-tokens", "stop_string": "ended by a stop string"}
  reason = f"; {reasons[generation.finish]}" if generation.finish in reasons else ""
  return f"({len(generation.tokens)} tokens{f', {rate:.1f} a second' if rate else ''}{reason})"
