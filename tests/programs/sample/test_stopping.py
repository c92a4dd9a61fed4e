"""Where responses end, and what of an unfinished one may be shown."""

import pytest

from sftrl_jax.programs.sample.stopping import Generation, StopConditions, append_tokens, visible_text
from sftrl_jax.text.tokenizer import byte

BYTES = byte()
STOP = StopConditions(8, ("</a>", "!"))


def listen(text, stop_conditions=STOP, generation=None, end=False):
  ids = BYTES.encode(text) + [BYTES.eos] * end
  return append_tokens(generation or Generation(), ids, [-0.5] * len(ids), BYTES, stop_conditions)


def test_an_end_id_ends_a_response_and_is_counted_but_not_read():
  ids = [*BYTES.encode("hi"), BYTES.eos, *BYTES.encode("never")]
  generation = append_tokens(Generation(), ids, [-1.0] * 8, BYTES, STOP)
  assert (generation.text, generation.finish, len(generation.tokens), generation.logprob) == ("hi", "stop", 3, -3.0)


def test_a_stop_string_ends_it_wherever_pieces_are_cut():
  whole = listen("so</a>x")
  assert (whole.text, whole.finish, len(whole.tokens)) == ("so", "stop_string", 6)
  for cut in range(1, 6):
    assert listen("so</a>x"[cut:], generation=listen("so</a>x"[:cut])) == whole


def test_the_first_of_several_ends_counts():
  assert listen("a!</a>").text == "a" and listen("a</a>!").text == "a"
  assert listen("12345678!") == Generation(tuple(BYTES.encode("12345678")), -4.0, "12345678", "length")
  assert listen("1234567", end=True).finish == "stop"


def test_other_end_ids_of_a_tokenizer_end_it_too():
  class Two:
    stops, size, decode = (2, 3), 260, staticmethod(BYTES.decode)

  generation = append_tokens(Generation(), [*BYTES.encode("a"), 3, *BYTES.encode("b")], [0.0] * 3, Two, STOP)
  assert (generation.text, generation.finish) == ("a", "stop")


def test_ids_that_only_the_model_has_read_as_nothing():
  generation = append_tokens(Generation(), [*BYTES.encode("a"), 300, *BYTES.encode("b")], [0.0] * 3, BYTES, STOP)
  assert (generation.text, len(generation.tokens)) == ("ab", 3)


@pytest.mark.parametrize("text, last", [("abc</ab", "abc</ab"), ("abc</a>", "abc"), ("ab<<</a>", "ab<<"),
                                        ("aé</a>", "aé"), ("</</</a>", "</</"), ("abc</", "abc")])
def test_what_is_shown_never_has_to_be_taken_back(text, last):
  generation, seen = Generation(), ""
  for token in BYTES.encode(text):
    generation = append_tokens(generation, [token], [0.0], BYTES, StopConditions(99, ("</a>",)))
    now = visible_text(generation, ("</a>",))
    assert now.startswith(seen) and "\ufffd" not in now
    seen = now
  assert seen == last


def test_nothing_is_held_back_at_the_end():
  assert visible_text(Generation((1,), 0.0, "a<", "length"), ("</a>",)) == "a<"
  assert visible_text(Generation((1,), 0.0, "a<", ""), ("</a>",)) == "a"


@pytest.mark.parametrize("fields, message", [(dict(max_new_tokens=0), "max_new_tokens is 0"),
                                          (dict(strings=("",)), "stop string is empty")])
def test_wrong_limits_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    StopConditions(**fields)
