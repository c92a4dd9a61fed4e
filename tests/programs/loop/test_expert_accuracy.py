"""Accuracy at the states of the expert's walk: of the expert itself it is 1, and no mesh or padding changes it."""

import dataclasses

import jax
import pytest

from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.loop import expert_accuracy
from sftrl_jax.programs.loop.evaluator import episodes_of
from sftrl_jax.programs.plan import jitted_functions
from sftrl_jax.programs.start import initial_params
from sftrl_jax.rollout.episodes import play, scripted

VARIANTS = ("id", "rule_ood")


@pytest.fixture(scope="module")
def experiment(tiny_routes):
  return build_experiment(tiny_routes(evals__expert_episodes=99, evals__episodes=12), "sft")


def by_script(answer):
  return lambda actor, env, seeds: play(env, scripted(answer), seeds)[0]


def answers_of(env, seeds, respond):
  """{chat at a state of the expert's walk: respond(env, state)}."""
  answers = {}
  for seed in seeds:
    state, chat = env.reset(seed)
    while chat is not None:
      answers[chat] = respond(env, state)
      state, verdict = env.step(state, env.expert(state))
      chat = verdict.chat
  return answers


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_policy_that_is_the_expert_is_right_everywhere_and_a_careless_one_at_the_states_where_it_happens_to_be(
    experiment, variant):
  env, seeds = experiment.env_variant(variant), range(10**9, 10**9 + 12)
  right = answers_of(env, seeds, lambda env, state: env.expert(state))
  measured, episodes = expert_accuracy.measure(experiment, variant, by_script(right.__getitem__))
  assert measured == {"expert_accuracy": 1.0, "expert_states": len(right)} and len(right) > 12
  assert [len(episode.turns) for episode in episodes] == [1] * len(right)
  # Who stops everywhere is right at the last point of every route alone, which an episode of its own never reaches.
  measured, _ = expert_accuracy.measure(experiment, variant, by_script(lambda chat: "nothing LINE 1 STOP"))
  assert measured["expert_accuracy"] == 12 / len(right)
  assert not any(episode.success for episode in play(env, scripted(lambda chat: "nothing LINE 1 STOP"), seeds)[0])


def responses(experiment, devices, variant="id", longer=0):
  """The token ids of the responses of a new model at every state, on so many devices."""
  mesh = meshes.make(meshes.MeshConfig(), jax.devices()[:devices])
  there = dataclasses.replace(experiment, mesh=mesh, actor=dataclasses.replace(experiment.actor, mesh=mesh))

  def greedy(actor, env, seeds):
    rollout = dataclasses.replace(actor.rollout, prompt_tokens=actor.rollout.prompt_tokens + longer)
    return episodes_of(dataclasses.replace(actor, rollout=rollout), decoding, env, seeds, 0.0, jax.random.key(0))

  with jax.set_mesh(mesh), rules.applied():
    params = initial_params.load_start("scratch", there.model, 0, mesh)
    decoding = there.actor.compiled.to_decoding(params)
    measured, episodes = expert_accuracy.measure(there, variant, greedy)
    first = episodes_of(there.actor, decoding, there.env_variant(variant), range(10**9, 10**9 + 12), 0.0,
                        jax.random.key(0))
  return measured, [episode.turns[0].response.tokens for episode in episodes], first


def test_devices_and_room_for_longer_chats_change_no_response(experiment):
  whole, tokens, first = responses(experiment, 1)
  assert len(set(tokens)) > 1
  assert responses(experiment, 1, longer=7)[:2] == responses(experiment, 4)[:2] == (whole, tokens)
  states = iter(tokens)
  for number, episode in enumerate(first):   # at its first state an episode is asked what a whole episode is asked
    points = len(experiment.env_variant("id").route(10**9 + number).points)
    assert next(states) == episode.turns[0].response.tokens
    for _ in range(points - 1):
      next(states)


def test_plan_lists_the_program_that_a_run_compiles_for_it(experiment, tiny_routes):
  actor, = expert_accuracy.actors(experiment)
  assert actor.turns == 1 and [shape[:3] for shape in actor.shapes()] == [(0, 16, 1)]
  functions = list(jitted_functions.for_each(experiment, lambda function: (
      function, jitted_functions.guess_results(function, experiment.mesh))))
  planned = [function for function in functions if function.name == "turn at the expert's states, 16 rows"]
  assert len(planned) == 1 and planned[0].arguments[2][1].inputs.tokens_BT.shape == (16, actor.rollout.prompt_tokens)
  plain = dataclasses.replace(experiment, evals=dataclasses.replace(experiment.evals, expert_episodes=0))
  assert expert_accuracy.actors(plain) == []


def test_the_prompt_has_room_for_the_longest_chat_and_no_more(experiment):
  actor, = expert_accuracy.actors(experiment)
  lengths = [len(experiment.tokenizer.encode(" ".join(message.text for message in chat)))
             for variant in VARIANTS for chat in answers_of(
                 experiment.env_variant(variant), range(10**9, 10**9 + 12), lambda env, state: "")]
  assert max(lengths) <= actor.rollout.prompt_tokens <= experiment.actor.row_len()
