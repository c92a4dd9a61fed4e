"""Where a response ends (an end id of the tokenizer, a stop string, the limit), and how much of it can be shown before.
"""

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

  tokens: sampled ids, including those that ended it
  logprob: sum of their log-probabilities under the distribution that was sampled from; 0 when greedy
  text: the decoded tokens, without those that ended it
  finish: "" while it goes on, then stop (an end id), stop_string, or length
  """

  tokens: tuple[int, ...] = ()
  logprob: float = 0.0
  text: str = ""
  finish: str = ""


def append_tokens(generation: Generation, tokens: Sequence[int], logprobs: Sequence[float], tokenizer: Any,
                  stop_conditions: StopConditions) -> Generation:
  """Returns the response with more sampled tokens, up to the token that ends it; tokens behind that one are dropped."""
  ids, logprob = list(generation.tokens), generation.logprob
  for token, more in zip(tokens, logprobs, strict=True):
    ids.append(token)
    logprob += more
    if token in tokenizer.stops:
      return Generation(tuple(ids), logprob, text_of(tokenizer, ids[:-1]), "stop")
    if stop_conditions.strings:
      text = text_of(tokenizer, ids)
      starts = [start for start in (text.find(string) for string in stop_conditions.strings) if start >= 0]
      if starts:
        return Generation(tuple(ids), logprob, text[:min(starts)], "stop_string")
    if len(ids) == stop_conditions.max_new_tokens:
      return Generation(tuple(ids), logprob, text_of(tokenizer, ids), "length")
  return Generation(tuple(ids), logprob, text_of(tokenizer, ids), "")


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
  """Decodes ids. Many models have more rows than their tokenizer has ids: ids beyond the tokenizer's decode to nothing.
  """
  return tokenizer.decode([number for number in ids if number < tokenizer.size])


def visible_text(generation: Generation, strings: Sequence[str]) -> str:
  """Returns the text that can no longer change: without half a character, or what may begin one of the stop strings."""
  if generation.finish:
    return generation.text
  text = generation.text.rstrip("\ufffd")
  held = max((length for string in strings for length in range(1, len(string)) if text.endswith(string[:length])),
             default=0)
  return text[:len(text) - held]
