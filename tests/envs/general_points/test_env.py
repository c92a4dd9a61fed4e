"""The rules of the game: who is held out, what pays, when an episode ends, what hostile text achieves."""

import copy
import dataclasses
import itertools
import json
import pickle

import pytest

from sftrl_jax.envs import ENVS, arithmetic
from sftrl_jax.envs.general_points import cards, compact
from sftrl_jax.envs.general_points.env import GeneralPoints, Hand, _share

PAPER = GeneralPoints()
COMPACT = GeneralPoints(style="compact", cards=3, target="any")
BOTH = pytest.mark.parametrize("env", [PAPER, COMPACT], ids=["paper", "compact"])

HOSTILE = [
    "__import__('os')", "9**9**9", "(" * 10**5, "(" * 10**5 + "1" + ")" * 10**5, "1" * 5000, "２+２", '{"formula": 24}',
    '{"formula": null}', '{"formula": true}', '{"a":' * 10**5, "[" * 10**5, '{"a":' * 6000, "\0", "1\0+2", "a" * 10**6,
    "{" * 10**6, "\ud800", "", " ", "NUMBERS", "NUMBERS 1 2 3 FORMULA " + "( " * 10**5, "'formula':" * 3000, "1/0/0/",
    "NUMBERS " * 10**5, '"formula":' + " " * 30000, "\n" * 10**6, "('formula')" * 2000, "-1", "+" * 250, "1e999", "nan"]


def hand(env, ranks: str, target: int, rule=cards.TENS) -> Hand:
  """A state with the given ranks, whatever the seeds would deal."""
  dealt = tuple(cards.Card(rank, "H") for rank in ranks.split())
  state, _ = env.reset(0)
  return dataclasses.replace(state, cards=dealt, rule=rule, values=cards.points(dealt, rule), target=target)


def block(formula) -> str:
  return json.dumps({"cards": [], "number": [], "formula": formula})


def pair(state: Hand):
  return tuple(sorted(state.values)), state.target


def states(count=400, **changes):
  env = dataclasses.replace(COMPACT, **changes)
  return [env.reset(seed)[0] for seed in range(count)]


def test_the_defaults_are_the_papers():
  env = ENVS["general_points"]()
  assert (env.target, env.cards, env.faces, env.attempts, env.rewards) == (24, 4, 10, 5, (5, -1, -2, -3))
  assert env.variants == ("id_seen", "id_unseen", "rule_ood") and env.words == () and len(COMPACT.words) == 59
  state, chat = env.reset(0)
  assert len(chat) == 1 and chat[0].role == "user" and chat[0].image is None and chat == state.chat
  assert json.loads(env.expert(state))["formula"].endswith("=24")


@pytest.mark.parametrize("formula, reward, code", [
    ("(1+2+3)*4", 5, "correct"), ("( 1 + 2+3 ) * 4 = 24", 5, "correct"), ("1*2*3*4=5", 5, "correct"),
    ("1+2+3+4", -1, "value"), ("1/(2+4-3*2)", -2, "numbers"), ("2*3*4*5", -2, "numbers"), ("2*3*4", -2, "numbers"),
    ("1*2*3*4*1", -2, "numbers"), ("24", -2, "numbers"), ("12+3*4", -2, "numbers"), ("(1*2)(3*4)", -3, "illegal"),
    ("(1+2+3)*4)", -3, "illegal"), ("((1+2+3)*4", -3, "illegal"), ("-1*2*3*4", -3, "illegal"), ("", -3, "illegal"),
    ("=24", -3, "illegal"), ("1**2*3*4", -3, "illegal"), ("4/(3-2-1)", -1, "value"), ("5/(3-3)", -2, "numbers")])
def test_the_reward_table(formula, reward, code):
  _, verdict = PAPER.step(hand(PAPER, "A 2 3 4", 24), block(formula))
  assert (verdict.reward, verdict.code, verdict.correct) == (reward, code, reward == 5)
  assert verdict.feedback.startswith("You failed this trial because") != verdict.correct


def test_a_right_answer_with_thirds_is_paid():
  _, verdict = PAPER.step(hand(PAPER, "3 3 8 8", 24), block("8/(3-8/3)=24"))
  assert verdict.reward == 5 and verdict.success


@pytest.mark.parametrize("response, code", [
    ("NUMBERS 1 10 10 FORMULA ( 10 - 1 ) + 10", "correct"), ("NUMBERS 1 10 10 FORMULA 10 + 10 - 1", "correct"),
    ("NUMBERS 1 10 10 FORMULA 10 + 10 + 1", "value"), ("NUMBERS 1 10 10 FORMULA 1 / ( 10 - 10 )", "value"),
    ("NUMBERS 1 10 10 FORMULA 10 + 10", "numbers"), ("NUMBERS 1 10 10 FORMULA 9 + 10", "numbers"),
    ("NUMBERS 10 1 10 FORMULA 10 + 10 - 1", "misread"), ("NUMBERS 1 10 FORMULA 10 + 10 - 1", "misread"),
    ("NUMBERS 1 10 11 FORMULA 10 + 10", "misread"), ("NUMBERS 1 10 11 FORMULA 10 +", "illegal"),
    ("NUMBERS 1 10 10 FORMULA 10 10 - 1", "illegal"), ("FORMULA 10 + 10 - 1", "illegal"),
    ("NUMBERS 1 10 10 FORMULA - 1 + 10 + 10", "illegal"), ("NUMBERS 1 10 31 FORMULA 10 + 10 - 1", "illegal")])
def test_compact_verdicts_come_in_order(response, code):
  _, verdict = COMPACT.step(hand(COMPACT, "A 10 K", 19), response)
  assert verdict.code == code
  assert verdict.reward == {"correct": 5, "value": -1, "illegal": -3}.get(code, -2)
  assert verdict.feedback in COMPACT.words


@BOTH
def test_the_last_attempt_is_scored_and_may_win(env):
  wrong, reward = ("{}", -3) if env is PAPER else ("NUMBERS 0 FORMULA 0", -2)
  state, chat = env.reset(5)
  for attempt in range(1, env.attempts):
    state, verdict = env.step(state, wrong)
    assert (verdict.reward, verdict.terminated, verdict.truncated, verdict.success) == (reward, False, False, False)
    assert verdict.chat[:len(chat)] == chat and state.attempt == attempt
    assert [message.role for message in verdict.chat[len(chat):]] == ["assistant", "user"]
    assert (verdict.chat[-2].text, verdict.chat[-1].text) == (wrong, verdict.feedback)
    chat = verdict.chat
  lost, verdict = env.step(state, wrong)
  assert (verdict.reward, verdict.terminated, verdict.truncated, verdict.chat) == (reward, False, True, None)
  won, verdict = env.step(state, env.expert(state))
  assert (verdict.reward, verdict.terminated, verdict.truncated, verdict.chat) == (5, True, False, None)
  assert verdict.success and won.success and not lost.success
  for ended in (lost, won):
    with pytest.raises(ValueError, match="reset"):
      env.step(ended, wrong)


@BOTH
def test_states_never_change(env):
  state, _ = env.reset(1)
  before = copy.deepcopy(state)
  first, second = env.step(state, "x"), env.step(state, "x")
  assert first == second and state == before and pickle.loads(pickle.dumps(state)) == state
  with pytest.raises(dataclasses.FrozenInstanceError):
    state.attempt = 3
  with pytest.raises(dataclasses.FrozenInstanceError):
    env.target = 3


@BOTH
def test_a_seed_gives_the_same_episode_for_ever(env):
  assert [env.reset(seed) for seed in range(30)] == [dataclasses.replace(env).reset(seed) for seed in range(30)]
  assert len({env.reset(seed)[0].cards for seed in (*range(30), "a", "b")}) > 25
  state, _ = env.reset(0)
  assert env.careless(state, 4) == env.careless(state, 4) and env.misread(state, 4) == env.misread(state, 4)
  assert len({env.careless(state, seed) for seed in range(20)}) > 5


def test_known_episodes_stay_what_they_are():
  # Changing these numbers changes every published split: held-out hands of old checkpoints become training hands.
  assert COMPACT.reset(0)[1][0].text == "RULE 10 10 10 TARGET 3 CARDS c5 cA c9"
  hands = (1, 2, 3, 4), (3, 3, 8, 8), (4, 6, 10, 10), (2, 2, 2, 3)
  assert [_share(values, 24) < 0.25 for values in hands] == [False, False, False, True]


@BOTH
@pytest.mark.parametrize("variant", ["train", *PAPER.variants])
def test_every_expert_is_right_in_every_variant(env, variant):
  env = dataclasses.replace(env, variant=variant)
  for seed in range(60):
    state, _ = env.reset(seed)
    for choice in range(5):
      assert env.step(state, env.expert(state, choice))[1].reward == 5
    if env.words:
      assert set((state.chat[0].text + " " + env.expert(state)).split(" ")) <= set(env.words)


@BOTH
def test_careless_is_well_formed_and_misread_is_wrong(env):
  careless, misread = set(), set()
  for seed in range(200):
    state, _ = env.reset(seed)
    careless.add(env.step(state, env.careless(state, seed))[1].code)
    misread.add(env.step(state, env.misread(state, seed))[1].code)
    if env.words:
      assert set(env.misread(state, seed).split(" ")) <= set(env.words)
    else:
      json.loads(env.misread(state, seed))
  assert careless == {"correct", "value"}
  assert misread == ({"numbers"} if env is PAPER else {"misread"})


@pytest.mark.parametrize("reasoning", [False, True])
@pytest.mark.parametrize("style", ["paper", "short", "compact"])
def test_a_slip_is_a_legal_answer_with_the_right_numbers_and_mostly_wrong(style, reasoning):
  env = GeneralPoints(style=style, cards=3, target="any", faces="mixed", holdout=0, careless_by="slip",
                      reasoning=reasoning)
  codes, stepped = [], 0
  for seed in range(300):
    state, _ = env.reset(seed)
    response = env.careless(state, seed)
    assert response == env.careless(state, seed)
    codes.append(env.step(state, response)[1].code)
    assert not env.words or set(response.split(" ")) <= set(env.words)
    stepped += ("STEPS" in response) if env.words else response.index("{") > 0
  assert set(codes) == {"correct", "value"} and codes.count("correct") < 60
  assert stepped > 250 if reasoning else stepped == 0


def test_slips_are_off_unless_asked_for_and_change_careless_answers_alone():
  slips = dataclasses.replace(COMPACT, careless_by="slip")
  changed = 0
  for seed in range(40):
    state, chat = COMPACT.reset(seed)
    assert slips.reset(seed) == (state, chat) and slips.expert(state) == COMPACT.expert(state)
    assert slips.misread(state, seed) == COMPACT.misread(state, seed)
    changed += slips.careless(state, seed) != COMPACT.careless(state, seed)
  assert changed > 20


def test_held_out_pairs_are_a_stable_quarter_and_never_trained_on():
  everything = [(values, target) for values in itertools.combinations_with_replacement(range(1, 11), 3)
                for target in arithmetic.solutions(values)]
  train, seen, unseen = ({pair(state) for state in states(1500, variant=variant)} for variant in (
      "train", "id_seen", "id_unseen"))
  assert not unseen & train and not unseen & seen
  share = sum(_share(*one) < 0.25 for one in everything) / len(everything)
  assert abs(share - 0.25) < 4 * (0.25 * 0.75 / len(everything)) ** 0.5
  smaller = {one for one in everything if _share(*one) < 0.1}
  assert smaller < {one for one in everything if _share(*one) < 0.25}


def test_the_evaluation_variants_differ_in_the_rule_alone():
  for variant in COMPACT.variants:
    for state in states(variant=variant):
      assert cards.any_face(state.cards)
      assert state.rule == (cards.DISTINCT if variant == "rule_ood" else cards.TENS)
  assert {state.rule for state in states(20, variant="rule_ood", faces=(11, 12, 13))} == {cards.TENS}
  assert {state.rule for state in states(20, variant="rule_ood", faces="mixed")} == {cards.DISTINCT}
  assert not all(cards.any_face(state.cards) for state in states(variant="train"))


def test_mixed_faces_are_half_high_and_half_anything():
  rules = [state.rule for state in states(3000, faces="mixed", holdout=0)]
  assert {face for rule in rules for face in rule} == set(range(1, 14))
  high = sum(min(rule) >= 10 for rule in rules) / len(rules)
  assert abs(high - (0.5 + 0.5 * (4 / 13) ** 3)) < 0.04


def test_any_target_is_reachable_and_varies():
  targets = [state.target for state in states(1000)]
  assert set(targets) == set(range(1, 31))


def test_other_games_work():
  for changes in ({"deck": "52"}, {"target": 48}, {"faces": 7}, {"faces": [5, 6, 30]}, {"cards": 3}, {"cards": 2}):
    env = dataclasses.replace(PAPER, holdout=0, **changes)
    state, _ = env.reset(0)
    assert env.step(state, env.expert(state))[1].correct
    assert env.step(state, env.careless(state, 1))[1].code in ("correct", "value")


@BOTH
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_hostile_responses_get_a_verdict(env, text):
  state, _ = env.reset(0)
  quoted = '{"formula": "' + text + '"}'
  for response in (text, quoted, "{'formula': '" + text + "',}", f"NUMBERS 1 2 3 FORMULA {text}"):
    _, verdict = env.step(state, response)
    assert verdict.code == "illegal" and verdict.reward == -3
    assert len(verdict.feedback) < 200 and verdict.feedback.isascii()
    assert 0 <= env.action_start(response) <= len(response)


def test_feedback_stays_short_whatever_the_numbers():
  for formula in ("9" * 256, "+".join("9" * 128), "*".join(["99999999999999"] * 17)):
    _, verdict = PAPER.step(hand(PAPER, "A 2 3 4", 24), block(formula))
    assert verdict.code == "numbers" and len(verdict.feedback) < 200


@BOTH
def test_a_response_must_be_text(env):
  with pytest.raises(TypeError, match="bytes"):
    env.step(env.reset(0)[0], b"1+2")


@pytest.mark.parametrize("wrong, message", [
    ({"target": 0}, "target is 0"), ({"target": "24"}, "'any'"), ({"target": 24.0}, "target"),
    ({"target": True}, "target"),
    ({"target": 10**6}, "reach no more"), ({"cards": 1}, "from 2 to 5"), ({"cards": 6}, "from 2 to 5"),
    ({"faces": "tens"}, "'mixed'"), ({"faces": (11, 12)}, "3 items"), ({"faces": (0, 1, 2)}, "from 1 to 30"),
    ({"faces": 31}, "from 1 to 30"), ({"faces": None}, "faces is None"), ({"deck": 52}, "'uniform', '52'"),
    ({"attempts": 0}, "attempts"), ({"style": "json"}, "'paper', 'short', 'compact'"), ({"holdout": 1}, "below 1"),
    ({"holdout": -0.1}, "holdout"), ({"holdout": float("nan")}, "holdout"), ({"rewards": (1, 0)}, "4 items"),
    ({"rewards": (5, -1, -2, float("inf"))}, "finite"), ({"variant": "ood"}, "'rule_ood'"),
    ({"variant": "id_unseen", "holdout": 0}, "holdout=0.25"), ({"style": "compact", "target": 31}, "words"),
    ({"deck": ["52"]}, "deck")])
def test_a_wrong_field_is_named_with_its_rule(wrong, message):
  with pytest.raises(ValueError, match=message):
    GeneralPoints(**wrong)


def test_an_unknown_field_is_a_type_error():
  with pytest.raises(TypeError, match="face_cards"):
    GeneralPoints(face_cards=10)


def test_lists_become_tuples_so_that_equal_settings_are_equal():
  assert GeneralPoints(faces=[11, 12, 13], rewards=[5, -1, -2, -3]) == GeneralPoints(faces=(11, 12, 13))
  assert hash(GeneralPoints(rewards=[1, 0, 0, 0])) == hash(GeneralPoints(rewards=(1.0, 0.0, 0.0, 0.0)))


def test_impossible_conditions_raise_instead_of_looping():
  impossible = GeneralPoints(cards=2, target=97, holdout=0)
  with pytest.raises(ValueError, match="no hand of 2 cards met target=97"):
    impossible.reset(0)
  with pytest.raises(ValueError, match="holdout"):
    dataclasses.replace(COMPACT, cards=2, holdout=1e-12, variant="id_unseen").reset(0)


def test_the_compact_vocabulary_covers_its_largest_number():
  assert str(compact.LARGEST) in compact.WORDS and max(arithmetic.TARGETS) == compact.LARGEST


SHIFTS = ("all_5", "all_7", "all_12", "large", "five", "fake")


@pytest.mark.parametrize("variant", SHIFTS)
def test_further_shifts_are_what_their_names_say(variant):
  env = GeneralPoints(style="short", shifts=SHIFTS, variant=variant)
  assert env.variants == (*PAPER.variants, *SHIFTS) and variant in env.variant_labels
  for seed in range(60):
    state, chat = env.reset(seed)
    assert env.step(state, env.expert(state))[1].correct
    faces = {"all_5": (5,) * 3, "all_7": (7,) * 3, "all_12": (12,) * 3}.get(variant, cards.TENS)
    assert state.rule == faces and len(state.cards) == 4 + (variant == "five")
    assert (cards.any_large if variant == "large" else cards.any_face)(state.cards)
    assert chat[0].text.startswith("J=11, Q=12, K=13." if variant == "fake" else f"J=Q=K={faces[0]}.")


def test_diverse_training_has_every_rule_and_named_rules_are_data():
  assert {state.rule for state in states(300, faces="diverse", holdout=0)} == set(cards.DIVERSE)
  assert GeneralPoints(faces="regular").faces == cards.DISTINCT and GeneralPoints(faces="all_7").faces == (7, 7, 7)


@pytest.mark.parametrize("env", [PAPER, COMPACT, GeneralPoints(style="short")], ids=["paper", "compact", "short"])
def test_reasoning_stands_before_the_formula(env):
  env = dataclasses.replace(env, reasoning=True)
  for seed in range(60):
    state, _ = env.reset(seed)
    response = env.expert(state)
    assert env.step(state, response)[1].correct
    assert ("STEPS" in response) if env.words else response.index("=") < response.index("{")
    assert not env.words or set(response.split(" ")) <= set(env.words)


def test_hints_are_full_or_the_papers_or_none():
  state = hand(PAPER, "A 2 3 4", 24)
  wrong = block("1+2+3+4")
  full, hinted, none = (dataclasses.replace(PAPER, hints=hints).step(state, wrong)[1].feedback for hints in (
      "full", "paper", "none"))
  assert full == "You failed this trial because the formula equals 10 and not 24." and none == "You failed this trial."
  assert hinted.startswith(full[:-1]) and hinted.endswith("is the beginning of a solution.")


@pytest.mark.parametrize("wrong, message", [
    (dict(shifts="fake"), "must be a tuple"), (dict(shifts=("x",)), "shifts is 'x'"), (dict(variant="fake"), "variant"),
    (dict(shifts=("large",), style="compact"), "no words for cards above 10"), (dict(legacy=True, style="short"), "is"),
    (dict(shifts=("five",), cards=5), "at most 5"), (dict(hints="none", style="compact"), "hints is 'none'"),
    (dict(reasoning=1), "reasoning is 1"),
    (dict(careless_by="x"), "careless_by is 'x', but it must be one of 'target', 'slip'"),
    (dict(hints=None), "hints is None")])
def test_a_wrong_new_field_is_named(wrong, message):
  with pytest.raises(ValueError, match=message):
    GeneralPoints(**wrong)
