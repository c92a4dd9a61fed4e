"""Two responses to one prompt, from a file or from a model."""

import json

import jax
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.label import items
from sftrl_jax.programs.sample.generate import ChatSettings
from sftrl_jax.programs.sample.stopping import StopConditions
from sftrl_jax.text.render import render

ASKS, RIGHT, WRONG = ({"role": role, "content": content} for role, content in (
    ("user", "2+2?"), ("assistant", "4"), ("assistant", "5")))


def of_rows(tmp_path, *rows):
  path = tmp_path / "rows.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return items.of_file(path)


def test_a_file_has_pairs_or_two_responses(tmp_path):
  pair, pair_of_texts, open_one = of_rows(
      tmp_path, {"chosen": [ASKS, RIGHT], "rejected": [ASKS, WRONG]},
      {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
      {"prompt": [ASKS], "responses": [[RIGHT], [WRONG]], "system": "Be brief."})
  assert pair.preferred == 0 and open_one.preferred is None
  assert pair.row(1) == {"prompt": [ASKS], "chosen": [WRONG], "rejected": [RIGHT]}
  assert pair_of_texts.row(0) == {"prompt": "2+2?", "chosen": "4", "rejected": "5"}
  assert open_one.row(0) == {"prompt": [ASKS], "chosen": [RIGHT], "rejected": [WRONG], "system": "Be brief."}
  assert items.shown(pair.prompt) == "2+2?" and items.shown(pair.responses[0]) == "4"
  assert items.shown([ASKS, RIGHT]) == "user: 2+2?\nassistant: 4"


@pytest.mark.parametrize("row, message", [
    ({"prompt": "p", "responses": ["a"]}, "row 1, column responses: is a list, but should be a list of two"),
    ({"prompt": "p", "chosen": "a"}, "row 1, column rejected: is missing"),
    ({"prompt": "p", "responses": ["a", 3]}, "row 1, column rejected: is a number"),
    ({"prompt": [3], "responses": [[RIGHT], [WRONG]]}, "row 1, column prompt")])
def test_a_row_that_is_no_pair_is_named(row, message, tmp_path):
  with pytest.raises(ConfigError, match=message):
    of_rows(tmp_path, row)
  with pytest.raises(ConfigError, match="has no rows"):
    of_rows(tmp_path)


def test_a_model_gives_two_responses_by_the_number_of_the_prompt(generator):
  chat = (Message("user", "a b c"),)
  ids = render(generator.tokenizer, chat)[0]
  settings = ChatSettings(generator, StopConditions(8), 1.0, jax.random.key(1))
  get = items.of_model(settings, lambda number: (chat, ids) if number < 3 else None)
  first, second, again = get(0), get(1), get(0)
  assert first == again and first.prompt == [{"role": "user", "content": "a b c"}] and get(3) is None
  assert len({items.shown(response) for item in (first, second) for response in item.responses}) == 4
