"""Questions about a text: the answer counts, and line and answer are told apart."""

from sftrl_jax.envs.reading import KINDS, Reading

ENV = Reading()


def test_line_and_answer_are_judged_apart():
  for seed in range(50):
    state, _ = ENV.reset(seed)
    text = state.text
    line, wrong = text.line + 1, (text.line + 1) % len(text.lines) + 1
    right, absent = ENV.expert(state).split()[3], getattr(text.lines[text.line], text.given)
    elsewhere = getattr(text.lines[wrong - 1], text.asked)
    for number, answer, code, parts in (
        (line, right, "correct", (True, True)), (wrong, right, "correct", (False, False)),
        (line, absent, "answer", (True, False)), (wrong, elsewhere, "line", (False, True)),
        (len(text.lines) + 1, right, "illegal", (False, False)), (line, "nowhere", "illegal", (False, False))):
      verdict = ENV.step(state, f"LINE {number} ANSWER {answer}")[1]
      assert (verdict.code, tuple(verdict.parts.values())) == (code, parts)


def test_every_question_names_one_sentence_and_asks_for_another_word_of_it():
  kinds = set()
  for seed in range(200):
    text = ENV.reset(seed)[0].text
    given = [getattr(line, text.given) for line in text.lines]
    assert given.count(getattr(text.lines[text.line], text.given)) == 1
    kinds.add((text.asked, text.given))
  assert kinds == set(KINDS)
