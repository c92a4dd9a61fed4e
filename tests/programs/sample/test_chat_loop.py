"""A conversation in a terminal, without the terminal."""

import dataclasses
import os
import signal

import jax
import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.programs.sample.chat_loop import (
  HELP,
  ChatState,
  answer,
  command,
  context_warning,
  converse,
  interrupts,
)
from sftrl_jax.programs.sample.generate import ChatSettings, responses, start_conversation
from sftrl_jax.programs.sample.stopping import StopConditions
from sftrl_jax.text.render import render


@pytest.fixture
def settings(generator):
  return ChatSettings(generator, StopConditions(6), 0.0, jax.random.key(0))


def play(settings, lines, system=""):
  """What is shown in a conversation of these lines; an exception among them is raised at the prompt."""
  shown, lines = [], iter([*lines, EOFError()])

  def ask():
    line = next(lines)
    if isinstance(line, BaseException):
      raise line
    return line

  converse(settings, system, ask, shown.append)
  return "".join(shown)


def test_a_turn_continues_the_whole_chat(settings):
  state, first, _ = answer(settings, ChatState(), "a b", lambda text: None, lambda: False)
  shown = []
  state, second, _ = answer(settings, state, "c", shown.append, lambda: False)
  assert "".join(shown) == second.text
  assert state.chat == (Message("user", "a b"), Message("assistant", first.text), Message("user", "c"),
                        Message("assistant", second.text))
  # Greedy, so the same as what a fresh reading of the whole chat gives.
  tokenizer = settings.generator.tokenizer
  missing = [] if first.tokens[-1] == tokenizer.eos else [tokenizer.eos]
  ids = [*render(tokenizer, state.chat[:1])[0], *first.tokens, *missing, *tokenizer.encode("c")]
  *_, (_, (again,)) = responses(settings, start_conversation(settings.generator, [ids], 6), [0])
  assert again.tokens == second.tokens


def test_pictures_stand_before_the_first_message_of_every_conversation(pictured_generator):
  """Two pictures, in their order: a turn over the cache is what a fresh reading of the whole chat gives."""
  pictured, tokenizer, random = pictured_generator, pictured_generator.tokenizer, np.random.default_rng(0)
  images = tuple(random.integers(0, 256, (32, 32, 3)).astype(np.uint8) for _ in range(2))
  settings = ChatSettings(pictured, StopConditions(6), 1.0, jax.random.key(0), images)
  quiet = (lambda text: None, lambda: False)
  state, first, _ = answer(settings, ChatState(), "a b", *quiet)
  state, second, _ = answer(settings, state, "c", *quiet)
  assert state.chat[0].images == images and not state.chat[2].images
  ids, _ = render(tokenizer, state.chat[:1])
  assert ids[1:3] == [tokenizer.image] * 2
  missing = [] if first.tokens[-1] == tokenizer.eos else [tokenizer.eos]
  ids = [*ids, *first.tokens, *missing, *tokenizer.encode("c")]
  again = {}
  for name, own in (("same", images), ("swapped", images[::-1])):
    conversation = start_conversation(pictured, [ids], 6, pictures=[own])
    *_, (_, (again[name],)) = responses(settings, conversation, [1])
  assert again["same"].tokens == second.tokens
  assert again["same"].logprob == pytest.approx(second.logprob, abs=1e-4) != again["swapped"].logprob
  with pytest.raises(ValueError, match="Row 0 has 1 pictures and 2 placeholders"):
    start_conversation(pictured, [ids], 6, pictures=[images[:1]])


def test_a_conversation_is_shown_and_ends(settings):
  shown = play(settings, ["a b", "", "c"])
  state, first, _ = answer(settings, ChatState(), "a b", lambda text: None, lambda: False)
  assert shown.startswith(first.text) and shown.count(" tokens") == 2 and shown.endswith("\n")


def test_reset_and_system_begin_anew(settings):
  alone_, again = play(settings, ["a b"]), play(settings, ["c", "/reset", "a b"])
  system = play(settings, ["/system d", "a b"])
  first = lambda shown: shown.rpartition(" tokens")[0].rpartition("(")[0]
  assert first(again).endswith(first(alone_)) and "(a new conversation; system: d)" in system
  state, _ = command("/system d", ChatState((Message("user", "a"),), turn=3), "")
  assert state == ChatState((Message("system", "d"),))
  assert command("/reset", state, "d")[0] == ChatState((Message("system", "d"),))
  assert command("/system", state, "d")[0] == ChatState()


def test_a_word_that_is_unknown_changes_nothing(settings):
  shown = play(settings, ["/what", "X y", "a b", KeyboardInterrupt()])
  assert f"(/what is no command)\n{HELP}" in shown and "'X' is no word of this tokenizer" in shown
  assert "Ctrl-D ends" in shown and play(settings, ["a b"]).partition("(")[0] in shown


def test_a_chat_beyond_the_models_context_is_told(settings):
  model = settings.generator.model
  model = dataclasses.replace(model, config=dataclasses.replace(model.config, context=8))
  short = dataclasses.replace(settings, generator=dataclasses.replace(settings.generator, model=model))
  assert "trained on 8" in context_warning(short, 9) and not context_warning(short, 8)
  assert not context_warning(settings, 10**6)


def test_ctrl_c_stops_a_response_and_the_next_one_goes_on(settings):
  with interrupts() as stopped:
    assert not stopped()
    os.kill(os.getpid(), signal.SIGINT)
    assert stopped()
    state, generation, _ = answer(settings, ChatState(), "a b", lambda text: None, stopped)
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
  assert not generation.finish and len(generation.tokens) == 4 and not state.closed
  _, after, _ = answer(settings, state, "c", lambda text: None, lambda: False)
  assert after.finish
