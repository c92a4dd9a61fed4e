"""Where two responses to a prompt come from: a file that has both, or a model that gives two."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sftrl_jax.chat import Chat
from sftrl_jax.data.lines import BadRow
from sftrl_jax.data.messages import kind, listed, text_of
from sftrl_jax.data.pairs.sides import SIDES, sides_of
from sftrl_jax.data.read import BESIDE, Columns, read
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.sample.generate import ChatSettings, responses, start_conversation

COLUMNS = Columns(("prompt", *SIDES, "responses", *BESIDE),
                  "`chosen` and `rejected`, or a `prompt` and a list of two `responses`")


@dataclasses.dataclass(frozen=True)
class Item:
  """Two responses to one prompt.

  prompt, responses: as a row of pairs has them, texts or lists of messages
  beside: other columns of the row that a chat template reads
  preferred: the number of the response that the source prefers; None where it does not say
  cut: whether a response was cut off at the limit of its tokens
  """

  prompt: str | list
  responses: tuple[str | list, str | list]
  beside: dict = dataclasses.field(default_factory=dict)
  preferred: int | None = None
  cut: tuple[bool, ...] = (False, False)

  def row(self, better: int) -> dict:
    """The pair in which the response of that number is preferred."""
    return {"prompt": self.prompt, "chosen": self.responses[better], "rejected": self.responses[1 - better],
            **self.beside}


Items = Callable[[int], Item | None]   # number -> the item; None behind the last one


def of_file(path: Path) -> list[Item]:
  """The rows of a file. ConfigError, naming file, row and column, for one that is no pair."""
  items = []
  try:
    for raw in read(str(path), columns=COLUMNS):
      try:
        if raw.fault:
          raise raw.fault
        items.append(_item(raw.value))
      except BadRow as error:
        column = f", column {error.column}" if error.column else ""
        raise ConfigError(f"{raw.file}, row {raw.number}{column}: {error.message}. Mend the row.") from error
  except ValueError as error:
    raise error if isinstance(error, ConfigError) else ConfigError(
        str(error).replace("config.data.path is", "FROM is")) from error
  if not items:
    raise ConfigError(f"{path} has no rows: it is empty.")
  return items


def _item(value: dict) -> Item:
  beside = {key: value[key] for key in BESIDE if value.get(key) is not None}
  if value.get("responses") is not None:
    both = value["responses"]
    if not isinstance(both, list) or len(both) != 2:
      raise BadRow("no two responses", f"is {kind(both)}, but should be a list of two responses", "responses")
    value, preferred = {**value, **dict(zip(SIDES, both, strict=True))}, None
  else:
    preferred = 0
  sides = sides_of(value)
  item = Item(sides[0]["prompt"], (sides[0]["completion"], sides[1]["completion"]), beside, preferred)
  for name, content in (("prompt", item.prompt), *zip(SIDES, item.responses, strict=True)):
    _ = text_of({name: content}, name) if isinstance(content, str) else listed(content, name)
  return item


def of_model(settings: ChatSettings, prompts: Callable[[int], tuple[Chat, Sequence[int]] | None]) -> Items:
  """Two responses of a model to each prompt, by random numbers that follow from the prompt's number.

  prompts: number -> (chat, its ids); None behind the last one
  """

  def item(number: int) -> Item | None:
    prompt = prompts(number)
    if prompt is None:
      return None
    chat, ids = prompt
    conversation = start_conversation(settings.generator, [ids, ids], settings.stop_conditions.max_new_tokens, 2)
    *_, (_, generations) = responses(settings, conversation, [2 * number, 2 * number + 1])
    answers = tuple([{"role": "assistant", "content": generation.text}] for generation in generations)
    cut = tuple(generation.finish == "length" for generation in generations)
    return Item([{"role": message.role, "content": message.text} for message in chat], answers, cut=cut)

  return item


def shown(content: Any) -> str:
  """A prompt or a response as text for a person."""
  if isinstance(content, str):
    return content
  messages = [(message.get("role", message.get("from")), message.get("content", message.get("value")))
              for message in content]
  texts = [text if isinstance(text, str) else str(text) for _, text in messages]
  if len(messages) == 1:
    return texts[0]
  return "\n".join(f"{role}: {text}" for (role, _), text in zip(messages, texts, strict=True))
