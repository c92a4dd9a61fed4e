"""A chat in a terminal: a line in, a streamed response out, the cache carried from turn to turn."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable
from typing import Any

import jax

from sftrl_jax.chat import Chat, Message
from sftrl_jax.programs.sample.generate import (
  Conversation,
  Generator,
  continue_conversation,
  responses,
  start_conversation,
)
from sftrl_jax.programs.sample.stopping import Generation, StopConditions, visible_text
from sftrl_jax.text import render as renders

HELP = """/reset          begins anew, with the same system text
/system TEXT    begins anew with this system text; without TEXT, with none
/help           prints this
Ctrl-C          stops a response; Ctrl-D ends"""


@dataclasses.dataclass(frozen=True)
class ChatState:
  """A conversation between two lines.

  thread: what the model has read, or None before its first response
  closed: the last response ended with the id that closes a turn
  turn: responses so far, from which random keys are folded
  """

  chat: Chat = ()
  thread: Conversation | None = None
  closed: bool = True
  turn: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class ChatSettings:
  """What stays the same throughout a conversation."""

  speaker: Generator
  until: StopConditions
  temperature: float
  key: jax.Array

  @property
  def carries(self) -> bool:
    """Whether the cache can be kept: some templates tell earlier turns differently once there are later ones."""
    try:
      renders.refuse_reuse(self.speaker.tokenizer)
    except ValueError:
      return False
    return True


def opening(system: str) -> Chat:
  return (Message("system", system),) if system else ()


def answer(talk: ChatSettings, state: ChatState, text: str, show: Callable[[str], None], stopped: Callable[[], bool]):
  """(the state after `text` was said and answered, the response, tokens a second)."""
  chat = (*state.chat, Message("user", text))
  thread, said, rate = stream(talk, _told(talk, state, chat), state.turn, show, stopped)
  closed = bool(said.tokens) and said.tokens[-1] == talk.speaker.tokenizer.eos
  return ChatState((*chat, Message("assistant", said.text)), thread, closed, state.turn + 1), said, rate


def stream(talk: ChatSettings, thread: Conversation, number: int, show: Callable[[str], None],
           stopped: Callable[[], bool] = lambda: False) -> tuple[Conversation, Generation, float]:
  """(thread, the response of its only conversation, tokens a second after the first piece, which may have waited for
  compiling), shown piece by piece as far as it is certain."""
  told, said, marks = 0, Generation(), []
  for after, (said,) in responses(talk.speaker, thread, talk.until, talk.temperature, talk.key, [number]):
    marks.append((time.perf_counter(), len(said.tokens)))
    thread, certain = after, visible_text(said, talk.until.strings)
    show(certain[told:])
    told = len(certain)
    if stopped():
      break
  show(said.text[told:])   # a response that was stopped keeps what was held back
  (began, first), (ended, last) = marks[0], marks[-1]
  return thread, said, (last - first) / (ended - began) if last > first else 0.0


def _told(talk: ChatSettings, state: ChatState, chat: Chat) -> Conversation:
  """The chat read: only what is new of it where the cache can be kept."""
  tokenizer = talk.speaker.tokenizer
  if state.thread is None or not talk.carries:
    return start_conversation(talk.speaker, [renders.render(tokenizer, chat)[0]], talk.until.max_new_tokens)
  missing = [] if state.closed else [tokenizer.eos]
  return continue_conversation(talk.speaker, state.thread, [missing + renders.continued(tokenizer, chat)], talk.until.max_new_tokens)


def converse(talk: ChatSettings, system: str, ask: Callable[[], str], show: Callable[[str], Any]) -> None:
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
        state, said, rate = answer(talk, state, line, show, stopped)
    except ValueError as error:   # a word that the tokenizer does not have: nothing was read
      show(f"({error})\n")
      continue
    except KeyboardInterrupt:   # the second one in one response
      show("\n")
      return
    show(f"\n{summary(said, rate)}{beyond(talk, state.thread.counts[0])}\n")


def beyond(talk: ChatSettings, tokens: int) -> str:
  """What a person should know of a chat that is longer than any the model was trained on; "" for a shorter one."""
  context = talk.speaker.model.config.context
  return f" (up to {tokens} tokens, but this model was trained on {context})" if 0 < context < tokens else ""


def command(line: str, state: ChatState, system: str) -> tuple[ChatState, str]:
  """(state, what is said to it) after a line that begins with a slash."""
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
def interrupts():
  """Yields a function that tells whether Ctrl-C was pressed; a second one interrupts as usual.

  The first is only noted: an exception between two pieces could lose a cache that was handed over and not yet back.
  """
  heard = []

  def note(number, frame):
    if heard:
      raise KeyboardInterrupt
    heard.append(number)

  before = signal.signal(signal.SIGINT, note)
  try:
    yield lambda: bool(heard)
  finally:
    signal.signal(signal.SIGINT, before)


def summary(said: Generation, rate: float) -> str:
  """A line about a response: how many tokens, how fast, and what ended it if it did not end itself."""
  reasons = {"": "stopped by Ctrl-C", "length": "cut at --max-new-tokens", "stop_string": "ended by a stop string"}
  told = [f"{len(said.tokens)} tokens", *([f"{rate:.1f} a second"] if rate else [])]
  return f"({', '.join(told)}{f'; {reasons[said.finish]}' if said.finish in reasons else ''})"
