"""The cache, the batch and the row change nothing: what is sampled is what the full forward says."""

import dataclasses

import jax
import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs.referee import EpisodeError
from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.actor import Actor
from sftrl_jax.rollout.config import RolloutConfig
from sftrl_jax.rollout.episodes import play
from sftrl_jax.rollout.policy import policy
from sftrl_jax.rollout.sample import Sampling
from sftrl_jax.rollout.segments import compile_all
from sftrl_jax.text.render import render
from sftrl_jax.training import compile_count
from sftrl_jax.training.score import make_score

KEY = 11
SEEDS = tuple(range(16))
SIZES = (0.5,)
WAYS = {"carried": dict(shrink=SIZES), "recomputed": dict(carry=False, shrink=()), "whole batch": dict(shrink=())}

GROUPS = dict(devices=2, shrink=SIZES, group=4)


# The first test of this file: nothing of these actors has been compiled before it.
@pytest.mark.parametrize("settings", [*WAYS.values(), GROUPS], ids=[*WAYS, "groups on 2 devices"])
def test_nothing_compiles_after_compile_all(guess, make_actor, params, settings):
  actor, env = make_actor(**settings), guess()
  decoding = actor.compiled.to_decoding(params)
  compile_all(actor, decoding)
  keys = [jax.random.key(key) for key in range(3)]
  before = compile_count.count()
  for key, seeds, temperature in zip(keys, (range(16), range(20, 27), range(40, 56)), (0.7, 0.0, 1.5), strict=True):
    play(env, policy(actor, decoding, key, temperature, list(seeds)), list(seeds))
    if actor.group > 1:
      seeds = [number // 4 for number in range(8)]
      play(env, policy(actor, decoding, key, temperature, range(8), group=4), seeds)
  assert compile_count.count() == before


@pytest.fixture(scope="module")
def sampled(guess, make_actor, decoding, talk):
  return {name: talk(guess(), make_actor(**way), decoding, 0.7) for name, way in WAYS.items()}


def test_the_conversations_of_these_tests_are_ragged(sampled):
  episodes = sampled["carried"]
  assert {len(episode.turns) for episode in episodes} == {1, 2, 3}
  replies = [turn.response for episode in episodes for turn in episode.turns]
  assert {reply.stopped for reply in replies} == {True, False}
  assert len({len(episode.turns[0].response.context) for episode in episodes}) > 2


@pytest.mark.parametrize("way", WAYS)
def test_greedy_responses_are_the_argmax_of_the_full_forward(guess, make_actor, decoding, full_logits, way, talk,
                                                             ids_of):
  episodes = talk(guess(), make_actor(**WAYS[way]), decoding, 0.0)
  rows = [ids_of(episode) for episode in episodes]
  logits = full_logits([ids for ids, _, _ in rows])
  assert max(len(episode.turns) for episode in episodes) == 3
  for row, (ids, places, logprobs) in enumerate(rows):
    assert [int(logits[row, place - 1].argmax()) for place in places] == [ids[place] for place in places]
    assert not any(logprobs)


@pytest.mark.parametrize("way", WAYS)
def test_sampled_logprobs_are_those_of_the_full_forward_on_the_same_ids(sampled, full_logits, way, ids_of):
  rows = [ids_of(episode) for episode in sampled[way]]
  logits = full_logits([ids for ids, _, _ in rows]) / 0.7
  log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  for row, (ids, places, logprobs) in enumerate(rows):
    np.testing.assert_allclose(logprobs, [log[row, place - 1, ids[place]] for place in places], atol=1e-5)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "carried"])
def test_carrying_and_shrinking_change_no_token(sampled, way, ids_of):
  for one, other in zip(sampled["carried"], sampled[way], strict=True):
    assert (one.chat, one.truncated) == (other.chat, other.truncated)
    assert ids_of(one)[:2] == ids_of(other)[:2]
    np.testing.assert_allclose(ids_of(one)[2], ids_of(other)[2], atol=1e-5)


def test_an_episode_is_the_same_in_any_batch_and_row(guess, make_actor, decoding, sampled, talk, ids_of):
  for seeds in ((9,), (3, 9, 14, 1), tuple(reversed(SEEDS))):
    for episode in talk(guess(), make_actor(shrink=SIZES), decoding, 0.7, seeds):
      same = sampled["carried"][episode.seed]
      assert (episode.chat, ids_of(episode)[:2]) == (same.chat, ids_of(same)[:2])
      np.testing.assert_allclose(ids_of(episode)[2], ids_of(same)[2], atol=1e-5)


def test_another_number_or_key_gives_other_tokens(guess, make_actor, decoding, sampled, talk, ids_of):
  for other in (talk(guess(), make_actor(shrink=SIZES), decoding, 0.7, numbers=range(16, 32)),
                talk(guess(), make_actor(shrink=SIZES), decoding, 0.7, key=KEY + 1)):
    differs = [ids_of(a)[0] != ids_of(b)[0] for a, b in zip(sampled["carried"], other, strict=True)]
    assert sum(differs) > 8


def test_contexts_and_tokens_are_the_rendered_chat(sampled, tokenizer, ids_of):
  for episode in sampled["carried"]:
    if all(turn.response.text for turn in episode.turns):
      ids, written = render(tokenizer, episode.chat)
      said, places, _ = ids_of(episode)
      assert ids[: len(said)] == said
      assert all(written[place] for place in places)


def test_a_response_that_was_cut_gets_its_missing_eos_as_context(sampled, tokenizer):
  cut = 0
  for episode in sampled["carried"]:
    for before, after in zip(episode.turns, episode.turns[1:], strict=False):
      assert (after.response.context[0] == tokenizer.eos) == (not before.response.stopped)
      cut += not before.response.stopped
    for turn in episode.turns:
      assert turn.response.stopped == (turn.response.tokens[-1] == tokenizer.eos)
      assert turn.response.stopped or len(turn.response.tokens) == 4
  assert cut > 0


@pytest.mark.parametrize("way", ["carried", "recomputed"])
def test_feedback_that_does_not_fit_ends_the_episode_with_its_turns_intact(guess, make_actor, decoding, way, talk,
                                                                           ids_of):
  env, actor = guess(long=9), make_actor(**WAYS[way])
  episodes, usual = talk(env, actor, decoding, 0.7), talk(guess(), actor, decoding, 0.7)
  refused = 0
  for episode, same in zip(episodes, usual, strict=True):
    assert ids_of(episode)[0][: 4] == ids_of(same)[0][: 4]
    if episode.seed % 2 and not same.turns[0].verdict.correct:
      refused += 1
      assert episode.truncated and not episode.success and len(episode.turns) == 1
      assert episode.turns[0].response == same.turns[0].response
      assert episode.chat[-1].text == " ".join("c" * 9)
    elif not episode.seed % 2:
      assert ids_of(episode)[:2] == ids_of(same)[:2]   # the others never notice
  assert refused > 2


def test_a_prompt_that_does_not_fit_names_the_key_and_the_size(make_actor, decoding):
  answer = policy(make_actor(shrink=SIZES), decoding, jax.random.key(0), 1.0, range(1))
  refused = answer([(Message("user", "a b c d e f a"),)], None, None, lambda rows, responses: None)[0][0].refused
  assert refused.kind == "dropped/prompt" and "config.rollout.prompt_tokens is 5" in refused.message
  assert "--config.rollout.prompt_tokens=8 or more" in refused.message
  with pytest.raises(ValueError, match="17 conversations do not fit into config.rollout.rows = 16"):
    answer([(Message("user", "a"),)] * 17, None, None, lambda rows, responses: None)


def test_more_devices_change_no_token(guess, make_actor, decoding, sampled, talk, ids_of):
  actor = make_actor(**GROUPS)
  for one, other in zip(sampled["carried"], talk(guess(), actor, decoding, 0.7), strict=True):
    assert ids_of(one)[:2] == ids_of(other)[:2]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_prompt_that_is_read_once_for_its_group_changes_no_token(guess, make_actor, decoding, temperature, talk,
                                                                   ids_of):
  seeds = [number // 4 for number in range(12)]   # three groups and a part of the batch that is not there
  shared, alone = (talk(guess(), make_actor(**GROUPS), decoding, temperature, seeds, range(12), group=group)
                   for group in (4, 1))
  assert max(len(episode.turns) for episode in shared) > 1
  for one, other in zip(shared, alone, strict=True):
    assert (one.chat, one.truncated, ids_of(one)[:2]) == (other.chat, other.truncated, ids_of(other)[:2])
    np.testing.assert_allclose(ids_of(one)[2], ids_of(other)[2], atol=1e-5)
  answers = {tuple(ids_of(episode)[0]) for episode in shared[:4]}
  assert (len(answers) == 1) == (temperature == 0)   # keys are folded from episodes, not from groups


def test_an_episode_that_never_began_is_missing_and_the_others_of_its_group_never_notice(guess, make_actor, decoding,
                                                                                         talk, ids_of):
  class Down(type(guess())):
    calls = 0

    def reset(self, seed):
      Down.calls += 1
      if Down.calls in (5, 7, 9, 10, 11, 12):   # the first and third of one group, and all of another
        raise EpisodeError("env", "down")
      return super().reset(seed)

  seeds, actor = [number // 4 for number in range(16)], make_actor(**GROUPS)
  usual = talk(guess(), actor, decoding, 0.7, seeds, range(16), group=4)
  played = talk(Down(), actor, decoding, 0.7, seeds, range(16), group=4)
  assert [number for number, episode in enumerate(played) if episode.dropped] == [4, 6, 8, 9, 10, 11]
  for one, same in zip(played, usual, strict=True):
    assert one.dropped or (one.chat, ids_of(one)[:2]) == (same.chat, ids_of(same)[:2])
    if not one.dropped:
      np.testing.assert_allclose(ids_of(one)[2], ids_of(same)[2], atol=1e-5)


def test_a_shared_prompt_is_charged_once(guess, make_actor, decoding):
  actor, spent = make_actor(**GROUPS), []
  play(guess(), policy(actor, decoding, jax.random.key(KEY), 0.7, range(16), spent, 4), [n // 4 for n in range(16)])
  steps = next(steps for steps in range(1, 5) if spent[0].flops == actor.flops(0, 16, steps, 4))
  alone = actor.flops(0, 16, steps) - spent[0].flops
  one = actor.flops(0, 16, steps) - actor.flops(0, 16, steps, 2)
  assert 0 < one < alone and alone / one == pytest.approx((1 - 1 / 4) / (1 - 1 / 2))


def test_a_group_whose_chats_differ_is_refused(make_actor, decoding):
  answer = policy(make_actor(**GROUPS), decoding, jax.random.key(0), 1.0, range(4), group=4)
  with pytest.raises(ValueError, match="reset.seed. of the environment must depend on the seed alone"):
    answer([(Message("user", word),) for word in "aaab"], None, None, lambda rows, responses: None)


def test_spent_flops_charge_every_row_of_the_compiled_shape(guess, make_actor, decoding):
  actor, spent = make_actor(shrink=()), []
  episodes, _ = play(guess(), policy(actor, decoding, jax.random.key(KEY), 0.7, range(16), spent), range(16))
  turns = max(len(episode.turns) for episode in episodes)
  assert len(spent) == turns
  for turn in range(turns):
    steps = max(len(e.turns[turn].response.tokens) for e in episodes if len(e.turns) > turn)
    assert spent[turn].flops == actor.flops(turn, 16, steps)


@pytest.fixture(scope="module")
def spoken(guess, chatml, talk):
  """(model, its parameters, episodes at temperature 0.9): its tables have 7 rows more than the tokenizer has ids."""
  model = build(DecoderConfig(vocab=chatml.size + 7, width=16, layers=1, heads=2, remat="none", init_std=0.6),
                chatml.size)
  params = jax.jit(model.init)(jax.random.key(3))
  settings = RolloutConfig(rows=16, prompt_tokens=10, feedback_tokens=8, max_new_tokens=4, shrink=())
  actor = Actor(model, chatml, settings, Sampling(4), 3, meshes.make(meshes.MeshConfig(), jax.devices()[:1]))
  decoding = actor.compiled.to_decoding(params)
  return model, params, [episode for first in (0, 16, 32)
                         for episode in talk(guess(), actor, decoding, 0.9, range(first, first + 16))]


def test_chats_of_a_pretrained_tokenizer_are_those_of_its_template(spoken, chatml):
  """As long as every response is words and their end: what a policy says may also read as no response would."""
  asked = 0
  for episode in spoken[2]:
    said, written = [], []
    for number, turn in enumerate(episode.turns):
      said, written = said + list(turn.response.context), written + [False] * len(turn.response.context)
      assert render(chatml, episode.chat[: 2 * number + 1]) == (said, written)
      asked += number
      said, written = said + list(turn.response.tokens), written + [True] * len(turn.response.tokens)
      if turn.response.tokens[-1] != chatml.eos or min(turn.response.tokens[:-1], default=9) < 4:
        break
  assert asked


def test_a_response_that_stopped_at_another_end_is_closed_as_the_template_has_it(spoken, chatml):
  others = 0
  for episode in spoken[2]:
    for before, after in zip(episode.turns, episode.turns[1:], strict=False):
      closed = before.response.tokens[-1] == chatml.eos
      assert (after.response.context[0] == chatml.eos) != closed
      others += before.response.stopped and not closed
    for response in (turn.response for turn in episode.turns):
      assert response.stopped == (response.tokens[-1] in chatml.stops)
      assert not set(response.tokens[:-1]) & set(chatml.stops)
      assert response.text == chatml.decode(response.tokens[: len(response.tokens) - response.stopped])
  assert others


def test_rows_that_fill_the_table_up_are_never_said_and_the_training_graph_agrees(spoken, chatml):
  model, params, episodes = spoken
  rows = collect.rows(episodes, 64, [()] * len(episodes))
  assert rows.targets_BT.max() < chatml.size
  scores = jax.jit(make_score(model, 0.9))({"model": params}, rows.inputs, rows.targets_BT)
  on = rows.mask_BT > 0
  np.testing.assert_allclose(scores.logprobs_BT[on], rows.sampled_logprobs_BT[on], atol=1e-5)
  assert np.isfinite(scores.entropy_BT).all()


def test_a_template_that_changes_what_was_said_needs_the_whole_chat_read_again(chatml, model):
  source = ("{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' + (m.content if loop.last else 'b') }}"
            "{{ '<|im_end|> ' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}")
  forgetful = dataclasses.replace(chatml, template=dataclasses.replace(chatml.template, source=source))
  make = lambda turns, carry: Actor(model, forgetful, RolloutConfig(carry=carry), Sampling(4), turns, None)
  with pytest.raises(ValueError, match="does not keep a chat's beginning"):
    make(2, True)
  assert make(1, True) != make(2, False)
