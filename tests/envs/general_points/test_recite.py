"""The reciting style is a closed vocabulary, and reading undoes writing."""

import pytest

from sftrl_jax.envs.arithmetic import FormulaError
from sftrl_jax.envs.general_points import recite

RANKS = ("A", "10", "K")
ANSWER = "CARDS cA c10 cK NUM 1 10 10 FORM ( 10 - 1 ) * 10"


def test_the_texts_are_the_documented_ones():
  assert recite.prompt(RANKS, (10, 11, 12), 17) == "RULE 10 11 12 TGT 17"
  assert recite.write(RANKS, (1, 10, 10), "(10-1)*10", 90) == ANSWER
  assert [recite.feedback(code, "", 17) for code in ("correct", "value", "numbers", "rule", "illegal", "misread")] == [
      "OK", "WRONG_VALUE", "WRONG_NUMBERS", "WRONG_NUMBERS", "ILLEGAL", "MISREAD"]
  with pytest.raises(ValueError, match="reasoning=False"):
    recite.write(RANKS, (1, 10, 10), "10+10+1", 21, ("10+10=20",))


def test_there_are_60_words_and_none_has_a_space():
  assert len(recite.WORDS) == len(set(recite.WORDS)) == 60
  assert not any(" " in word for word in recite.WORDS)
  assert set(f"{recite.prompt(RANKS, (10, 11, 12), 17)} {ANSWER}".split(" ")) <= set(recite.WORDS)


def test_reading_undoes_writing():
  assert recite.read(ANSWER) == ((1, 10, 10), "( 10 - 1 ) * 10")
  assert recite.recited(ANSWER) == (RANKS, (1, 10, 10)) and recite.read_cards("CARDS cA c10 cK") == RANKS
  assert ANSWER[recite.action_start(ANSWER) :] == "FORM ( 10 - 1 ) * 10" and recite.action_start("NUM 1") == 0


@pytest.mark.parametrize("response, lines", [
    ("CARDS cA NUM 1 FORM 31", (("A",), (1,))), ("CARDS cA NUM 1", (("A",), (1,))), ("CARDS cA", (("A",), None)),
    ("CARDS cA NUM 31 FORM 1", (("A",), None)), ("CARDS A NUM 1 FORM 1", (None, (1,))),
    ("NUM 1 FORM 1", (None, None)), ("", (None, None)), ("CARDS c1 NUM ２ FORM 1", (None, None)),
    ("CARDS cA NUM  1 FORM 1", (("A",), None)), ("CARDS cA NUM 1 FORM 1 ** 2", (("A",), (1,))),
    ("CARDS " * 10**5, (None, None)), ("CARDS cA NUM 1 FORM " + "1 " * 10**5, (("A",), (1,)))])
def test_a_line_is_read_whatever_else_is_wrong(response, lines):
  assert recite.recited(response) == lines
  with pytest.raises(FormulaError):
    recite.read(response)
