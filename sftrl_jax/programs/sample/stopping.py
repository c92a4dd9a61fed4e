"""Where a response ends: an end id of the tokenizer, a stop string, the limit. And what may be shown before it has."""

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class StopConditions:
  """What ends a response, besides the tokenizer's own end ids.

  max_new_tokens: tokens of a response at most
  strings: texts that end it; they are left out of its text
  """

  max_new_tokens: int = 512
  strings: tuple[str, ...] = ()

  def __post_init__(self):
    if self.max_new_tokens < 1:
      raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1.")
    if not all(self.strings):
      raise ValueError("A stop string is empty, but it must be a text that a response can hold.")


@dataclasses.dataclass(frozen=True)
class Generation:
  """A response so far.

  tokens: sampled ids, whatever ended them included
  logprob: sum of their log-probabilities under the distribution that was sampled from; 0 when greedy
  text: what they read as, without what ended them
  finish: "" while it goes on, then stop (an end id), stop_string, or length
  """

  tokens: tuple[int, ...] = ()
  logprob: float = 0.0
  text: str = ""
  finish: str = ""


def append_tokens(said: Generation, tokens: Sequence[int], logprobs: Sequence[float], tokenizer: Any, until: StopConditions) -> Generation:
  """The response with some more sampled tokens, up to the one that ends it; those behind that one are not read."""
  ids, logprob = list(said.tokens), said.logprob
  for token, more in zip(tokens, logprobs, strict=True):
    ids.append(token)
    logprob += more
    if token in tokenizer.stops:
      return Generation(tuple(ids), logprob, text_of(tokenizer, ids[:-1]), "stop")
    if until.strings:
      text = text_of(tokenizer, ids)
      at = [place for place in (text.find(string) for string in until.strings) if place >= 0]
      if at:
        return Generation(tuple(ids), logprob, text[:min(at)], "stop_string")
    if len(ids) == until.max_new_tokens:
      return Generation(tuple(ids), logprob, text_of(tokenizer, ids), "length")
  return Generation(tuple(ids), logprob, text_of(tokenizer, ids), "")


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
  """What ids read as. Many models have more rows than their tokenizer has ids: those read as nothing."""
  return tokenizer.decode([number for number in ids if number < tokenizer.size])


def visible_text(said: Generation, strings: Sequence[str]) -> str:
  """What of the text is certain: not half a character, nor what may be the beginning of a stop string."""
  if said.finish:
    return said.text
  text = said.text.rstrip("\ufffd")
  held = max((length for string in strings for length in range(1, len(string)) if text.endswith(string[:length])),
             default=0)
  return text[:len(text) - held]
