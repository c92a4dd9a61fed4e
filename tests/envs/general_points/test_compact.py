"""The compact style is a closed vocabulary, and reading undoes writing."""

import pytest

from sftrl_jax.envs.arithmetic import FormulaError
from sftrl_jax.envs.general_points import compact

RANKS = ("A", "10", "K")


def test_the_texts_are_the_documented_ones():
  assert compact.prompt(RANKS, (10, 10, 10), 17) == "RULE 10 10 10 TARGET 17 CARDS cA c10 cK"
  assert compact.write(RANKS, (1, 10, 10), "(10-1)*10", 90) == "NUMBERS 1 10 10 FORMULA ( 10 - 1 ) * 10"
  assert [compact.feedback(code, "", 17) for code in ("correct", "value", "numbers", "misread", "illegal")] == [
      "OK", "WRONG_VALUE", "WRONG_NUMBERS", "WRONG_NUMBERS", "ILLEGAL"]


def test_there_are_59_words_and_none_has_a_space():
  assert len(compact.WORDS) == len(set(compact.WORDS)) == 59
  assert not any(" " in word for word in compact.WORDS)


def test_reading_undoes_writing():
  assert compact.read(compact.write(RANKS, (1, 10, 10), "(10-1)*10", 90)) == ((1, 10, 10), "( 10 - 1 ) * 10")


@pytest.mark.parametrize("response", [
    "", "NUMBERS", "FORMULA", "NUMBERS 1 FORMULA", "NUMBERS  1 FORMULA 1", "NUMBERS 1 FORMULA  1",
    "NUMBERS 1 FORMULA 31", "NUMBERS 31 FORMULA 1", "NUMBERS 01 FORMULA 1", "NUMBERS 1 FORMULA 01",
    "NUMBERS 1 FORMULA OK", "numbers 1 formula 1", "NUMBERS FORMULA 1 FORMULA 1", "NUMBERS 1 FORMULA 1 ",
    " NUMBERS 1 FORMULA 1", "NUMBERS 1\nFORMULA 1", "NUMBERS 1 FORMULA 1 FORMULA 1",
    "NUMBERS ２ FORMULA 1", "NUMBERS 1 FORMULA 1 ** 2",
    "NUMBERS 1 " * 10**5])
def test_what_is_not_in_the_style_is_a_formula_error(response):
  with pytest.raises(FormulaError):
    compact.read(response)


def test_the_action_starts_at_the_word_formula():
  text = compact.write(RANKS, (1, 10, 10), "(10-1)*10", 90, ("10-1=9", "9*10=90"))
  assert text[compact.action_start(text) :] == "FORMULA ( 10 - 1 ) * 10"
  assert compact.action_start("NUMBERS 1 10 10") == 0
