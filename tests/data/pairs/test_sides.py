"""Two sides of a row: each is the prompt and one response, whatever columns held them."""

from sftrl_jax.data.pairs.sides import sides_of

ASKS, RIGHT, WRONG = ({"role": role, "content": content} for role, content in (
    ("user", "2+2?"), ("assistant", "4"), ("assistant", "5")))


def test_an_earlier_answer_is_of_the_prompt_and_a_later_one_of_the_response():
  shared, more = [ASKS, RIGHT, {"role": "user", "content": "3+3?"}], [{"role": "assistant", "content": "6"}]
  better, worse = sides_of({"chosen": shared + more, "rejected": [*shared, WRONG]})
  assert better["prompt"] == worse["prompt"] == shared and better["completion"] == more
  several = [RIGHT, ASKS, RIGHT]
  assert sides_of({"prompt": [ASKS], "chosen": several, "rejected": [WRONG]})[0]["completion"] == several


def test_what_a_chat_template_reads_stays_beside_both_sides():
  row = {"prompt": [ASKS], "chosen": [RIGHT], "rejected": [WRONG], "system": "Be brief.", "tools": None, "score": 1}
  assert [side.keys() for side in sides_of(row)] == 2 * [{"prompt", "completion", "system"}]
