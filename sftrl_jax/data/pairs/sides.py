"""The two sides of a row of pairs, each as a row of prompt and completion, by the names of its columns."""

from typing import Any

from sftrl_jax.data.lines import BadRow
from sftrl_jax.data.messages import SHAREGPT, column_of, kind
from sftrl_jax.data.pictures.parts import PICTURES
from sftrl_jax.data.read import BESIDE

SIDES = ("chosen", "rejected")


def sides_of(value: dict) -> tuple[dict, dict]:
  """A row as two rows of prompt and completion; BadRow for what is no pair."""
  both = [column_of(value, side) for side in SIDES]
  prompt = value.get("prompt")
  for side, content in zip(SIDES, both, strict=True):
    if not isinstance(content, (str, list)):
      raise BadRow("no response", f"is {kind(content)}, but should be text or a list of messages", side)
    if type(content) is not type(both[0]):
      raise BadRow("text and messages", f"chosen is {kind(both[0])} and rejected {kind(both[1])}, but both should be "
                   "texts, or both lists of messages", side)
  if prompt is None or prompt == []:
    prompt, *both = _shared(*both)
  elif isinstance(both[0], str) and isinstance(prompt, list):
    both = [[{"role": "assistant", "content": text}] for text in both]
  elif isinstance(both[0], list):
    prompt, *both = _after(prompt, *both)
  rest = {key: value[key] for key in (*BESIDE, *PICTURES) if value.get(key) is not None and isinstance(both[0], list)}
  return tuple({"prompt": prompt, "completion": each, **rest} for each in both)


def _shared(chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
  """(what both begin with, the rest of each) of two texts or two lists of messages."""
  same = 0
  while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
    same += 1
  if isinstance(chosen, str):
    same = same if same == 0 or chosen[:same].endswith((" ", "\n")) else max(
        chosen.rfind(" ", 0, same), chosen.rfind("\n", 0, same)) + 1
    # A prompt does not end in a space: it is the response that begins with it, as in a tokenizer's words.
    same -= chosen[:same].endswith(" ")
  elif same == 0:
    raise BadRow("no prompt", "begins with another message than rejected does, and there is no prompt", "chosen")
  return chosen[:same], chosen[same:], rejected[same:]


def _after(prompt: Any, chosen: list, rejected: list) -> tuple[list, list, list]:
  """(prompt, the rest of each side), where the sides may begin with the prompt, or not."""
  if isinstance(prompt, str):
    prompt = [{"role": "user", "content": prompt}]
  if not isinstance(prompt, list):
    raise BadRow("no prompt", f"is {kind(prompt)}, but should be text or a list of messages", "prompt")
  begins = [_alike(side[: len(prompt)], prompt) for side in (chosen, rejected)]
  if all(begins):
    return prompt, chosen[len(prompt):], rejected[len(prompt):]
  asks = [bool(side) and SHAREGPT.get(str(_role(side[0]))) in ("user", "system") for side in (chosen, rejected)]
  if any(begins) or any(asks):   # a system message before it, say
    shared, *rest = _shared(chosen, rejected)
    if _alike(shared[-len(prompt):], prompt):
      return shared, *rest
    raise BadRow("unequal prompts", "is not what both sides begin with, and they do not begin with the assistant's "
                                    "words", "prompt")
  return prompt, chosen, rejected


def _alike(messages: Any, prompt: list) -> bool:
  content = lambda message: message.get("content", message.get("value")) if isinstance(message, dict) else message
  spoken = lambda chat: [(_role(message), content(message)) for message in chat]
  return len(messages) == len(prompt) and spoken(messages) == spoken(prompt)


def _role(message: Any) -> Any:
  return message.get("role", message.get("from")) if isinstance(message, dict) else None
