"""Questions about a text: the answer counts, and quote and answer are told apart."""

import pytest

from sftrl_jax.envs.reading import ASKED, Reading


@pytest.mark.parametrize("wording", ["plain", "other"])
def test_quote_and_answer_are_judged_apart(wording):
  env = Reading(wording=wording)
  for seed in range(50):
    state, _ = env.reset(seed)
    text = state.text
    line, wrong = text.lines[text.line], text.lines[text.line - 1]
    quote, wrong_quote = (" ".join(text.sentence(quoted)) for quoted in (line, wrong))
    right, elsewhere = getattr(line, text.asked), getattr(wrong, text.asked)
    verb = text.sentence(line)[1 if wording == "plain" else 2]
    mixed = " ".join((*text.sentence(line)[:3], text.sentence(wrong)[3]))   # half of each sentence
    for quoted, answer, code, parts in (
        (quote, right, "correct", (True, True)), (wrong_quote, right, "correct", (False, False)),
        (quote, line.thing, "answer", (True, False)), (quote, verb, "answer", (True, False)),
        (wrong_quote, elsewhere, "line", (False, True)), (mixed, line.thing, "line", (False, False)),
        (f"{quote} {right}", right, "illegal", (False, False)), (quote[quote.index(" ") + 1:], right, "illegal",
                                                                 (False, False)),
        (quote, "nowhere", "illegal", (False, False)), (f"saw{quote[quote.index(' '):]}", right, "illegal",
                                                        (False, False))):
      verdict = env.step(state, f"LINE {quoted} ANSWER {answer}")[1]
      assert (verdict.code, tuple(verdict.parts.values())) == (code, parts)


def test_a_question_ends_with_the_word_that_starts_one_sentence_and_asks_for_a_later_word_of_it():
  kinds = set()
  for seed in range(200):
    state, chat = Reading(wording="mixed").reset(seed)
    words, text = chat[0].text.split(), state.text
    sentences = [tuple(words[start:start + 4]) for start in range(1, len(words) - 4, 4)]
    (right,) = [sentence for sentence in sentences if sentence[0] == words[-1]]
    assert words.count(words[-1]) == 2 and right == text.sentence(text.lines[text.line])
    assert getattr(text.lines[text.line], text.asked) in right[1:]
    kinds.add((text.wording, text.asked))
  assert kinds == {(wording, asked) for wording in ("plain", "other") for asked in ASKED}


def test_a_careless_response_quotes_the_first_sentence_and_of_the_first_the_last_and_answers_from_it():
  for wording in ("plain", "other"):
    env = Reading(wording=wording)
    for seed in range(50):
      state, _ = env.reset(seed)
      text = state.text
      other = text.lines[0] if text.line > 0 else text.lines[len(text.lines) - 1]
      quote = " ".join(text.sentence(other))
      assert env.careless(state, 0) == f"LINE {quote} ANSWER {getattr(other, text.asked)}"
      assert env.step(state, env.careless(state, 0))[1].code == "line"
