"""Laws of all three tasks on texts: the expert is always right, nobody else by chance, a shift is one thing."""

import dataclasses
import random

import pytest

from sftrl_jax.envs import texts
from sftrl_jax.envs.document_labels import DocumentLabels
from sftrl_jax.envs.reading import Reading
from sftrl_jax.envs.triples import Triples

TASKS = pytest.mark.parametrize("task", [DocumentLabels, Reading, Triples])


def first_verdict(env, seed, method, *arguments):
  state, _ = env.reset(seed)
  return env.step(state, getattr(env, method)(state, *arguments))[1]


@TASKS
def test_the_expert_is_right_and_the_careless_and_the_misreader_are_wrong_on_every_instance(task):
  variants = ("train", *task().variants)
  for seed in range(1000):   # all variants in turn
    env = task(variant=variants[seed % len(variants)])
    right = first_verdict(env, seed, "expert")
    assert right.success and right.terminated and right.reward == env.rewards[0] and all(right.parts.values())
    for wrong in (first_verdict(env, seed, "careless", seed), first_verdict(env, seed, "misread", seed)):
      assert not wrong.correct and wrong.code != "illegal" and wrong.reward < right.reward and wrong.feedback == "WRONG"
      assert not all(wrong.parts.values())


@TASKS
def test_every_string_has_a_verdict_and_random_words_never_get_the_full_reward(task):
  env, source = task(), random.Random(0)
  letters = "TOPIC LINE ann acme \x00\ud800\n\u2028;٢²"
  for number in range(1000):
    state, _ = env.reset(number % 20)
    right = env.expert(state)
    words, text = source.choices(env.words, k=source.randrange(13)), source.choices(letters, k=source.randrange(60))
    place = source.randrange(len(right) + 1)
    for response in (" ".join(words), "".join(text), right[:place] + source.choice(letters) + right[place:]):
      _, verdict = env.step(state, response)
      assert verdict.reward < env.rewards[0] and not verdict.correct and verdict.code in env.codes, response
  for response in (right + " ", " " + right, f"{right} {right}", right.lower(), right.replace(" ", "  "), "9" * 10**6):
    verdict = env.step(state, response)[1]
    assert verdict.code == "illegal" and verdict.reward == env.rewards[-1] and not any(verdict.parts.values())


@TASKS
def test_a_text_depends_on_the_seed_alone_and_a_shift_changes_one_thing(task):
  def text_of(seed, **fields):
    return dataclasses.asdict(task(**fields).reset(seed)[0].text)

  for seed in range(60):
    seen = text_of(seed, variant="id")
    assert seen == text_of(seed) == text_of(seed, variant="train") and task().reset(seed) == task().reset(seed)
    reworded = text_of(seed, variant="wording_ood")
    assert reworded != seen and task(variant="wording_ood").reset(seed) == task(wording="other").reset(seed)
    changed = {key for key in seen if seen[key] != reworded[key]}
    assert changed == {"words"} if task is DocumentLabels else changed == {"wording"}
    if "label_ood" in task().variants:
      renamed = text_of(seed, variant="label_ood")
      key = "options" if task is DocumentLabels else "schema"
      assert {name for name in seen if seen[name] != renamed[name]} == {key}
      assert [number for number, _ in seen[key]] == [number for number, _ in renamed[key]]
      assert {name for _, name in renamed[key]} <= set(texts.NAMES)


@TASKS
def test_training_never_has_a_held_out_combination_and_its_variant_always_does(task):
  def heldout(variant, **fields):
    return [any(texts.share(key) < 0.25 for key in task(variant=variant, **fields).reset(seed)[0].text.keys)
            for seed in range(200)]

  assert all(heldout("heldout"))
  for variant in ("train", "id", "wording_ood", "length_ood"):
    assert not any(heldout(variant))
  assert 0 < sum(heldout("train", holdout=0.0)) < 200   # a base model has seen them


@TASKS
def test_longer_texts_are_longer_and_an_episode_ends_after_its_tries(task):
  longest = max(len(task().reset(seed)[1][0].text.split()) for seed in range(100))
  assert min(len(task(variant="length_ood").reset(seed)[1][0].text.split()) for seed in range(100)) > longest
  env = task(attempts=2)
  state, chat = env.reset(0)
  state, first = env.step(state, env.misread(state, 0))
  assert not first.truncated and first.chat[:1] == chat and env.step(state, env.expert(state))[1].success
  state, last = env.step(state, "?")
  assert last.truncated and last.chat is None and last.feedback == "ILLEGAL"
  with pytest.raises(ValueError, match="ended"):
    env.step(state, env.expert(state))


@TASKS
def test_all_texts_are_words_of_the_vocabulary_and_carelessness_differs_by_what_is_asked(task):
  words, biases = set(texts.WORDS), set()
  assert len(words) == len(texts.WORDS)
  for variant in ("train", *task().variants):
    env = task(variant=variant, wording="mixed")
    for seed in range(50):
      state, chat = env.reset(seed)
      responses = env.expert(state), env.careless(state, 0), env.misread(state, 0)
      assert words >= set(" ".join((chat[0].text, *responses)).split(" "))
      biases.add(env.careless_bias(state))
  assert min(biases) < -0.7 and max(biases) > 0.4 and all(-1 <= bias <= 1 for bias in biases)


@TASKS
def test_fields_without_a_meaning_are_refused(task):
  for wrong in (dict(length=(4, 3)), dict(length=3), dict(longer=1000), dict(wording="new"), dict(holdout=0.9),
                dict(variant="label"), dict(variant="heldout", holdout=0.0), dict(rewards=(1.0,)), dict(attempts=0)):
    name = list(wrong)[-1]
    with pytest.raises(ValueError, match="holdout is 0" if len(wrong) == 2 else f"{name} is"):
      task(**wrong)
