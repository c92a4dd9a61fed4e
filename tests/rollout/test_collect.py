"""Rows and grids of hand-made episodes: what was sampled stays what it was, in the column that predicts it."""

import dataclasses

import jax
import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Verdict
from sftrl_jax.models import build
from sftrl_jax.models.vision.tiny import TinyVisionConfig
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.rollout.actor import Actor
from sftrl_jax.rollout.collect import cut, grid, outcomes, row_numbers, rows, sharing_prompts, thought_tokens
from sftrl_jax.rollout.config import RolloutConfig
from sftrl_jax.rollout.episodes import Episode, Response, Turn, by_row
from sftrl_jax.rollout.exchange import PlayContext, play_together
from sftrl_jax.rollout.fitting import later_ids
from sftrl_jax.rollout.sample import Sampling
from sftrl_jax.text.images import ImageReader
from sftrl_jax.text.tokenizer import words
from sftrl_jax.training.score import make_score

LENGTH = 12


def turn(context, tokens, reward, anew=False):
  logprobs = tuple(-0.01 * token for token in tokens)
  verdict = Verdict(reward, False, False, False, False, "", None, "value")
  return Turn(Response("", tuple(context), tuple(tokens), logprobs, begins_row=anew), verdict)


TWO = Episode(0, (turn([1, 10, 11], [20, 21], -0.5), turn([12], [22, 23, 24], 1.0)), (), False)
ONE = Episode(1, (turn([1, 13], [25], -0.25),), (), True)
BLANK = Episode(2, (), (), False)
EPISODES, CLOSING = (TWO, ONE, BLANK), ((), (2, 14), ())


@pytest.fixture
def collected():
  return rows(EPISODES, LENGTH, CLOSING)


def test_ids_round_trip(collected):
  inputs = collected.inputs
  for row, (episode, closing) in enumerate(zip(EPISODES, CLOSING, strict=True)):
    ids = [i for t in episode.turns for i in (*t.response.context, *t.response.tokens)] + list(closing)
    assert inputs.tokens_BT[row, : len(ids)].tolist() == ids
    assert inputs.segments_BT[row].tolist() == [1] * len(ids) + [0] * (LENGTH - len(ids))
    assert inputs.positions_BT[row, : len(ids)].tolist() == list(range(len(ids)))
    assert collected.targets_BT[row, : max(0, len(ids) - 1)].tolist() == ids[1:]


def test_rows_that_share_prompts_begin_with_the_last_token_of_theirs():
  again = Episode(3, (turn([1, 10, 11], [26, 27], 0.5),), (), False)
  episodes = (TWO, BLANK, again, ONE, BLANK, BLANK)
  whole = rows(episodes, LENGTH, [()] * 6, weigh=lambda response: [2.0] * len(response.tokens))
  shared = sharing_prompts(whole, episodes, 4, 3)
  assert shared.inputs.tokens_BT.shape == shared.mask_BT.shape == (6, LENGTH - 4)
  assert [row[row > 0].tolist() for row in shared.inputs.tokens_BT] == [
      [11, 20, 21, 12, 22, 23, 24], [], [11, 26, 27], [13, 25], [], []]
  assert shared.inputs.prompts.tokens_BP.tolist() == [[0, 0, 1, 10]] * 3 + [[0, 0, 0, 1]] * 3
  for name in ("targets_BT", "mask_BT", "turns_BT", "sampled_logprobs_BT", "weights_BT"):
    cut_off, kept = getattr(whole, name), getattr(shared, name)
    for row, start in enumerate((2, 2, 2, 1, 1, 1)):
      assert kept[row].tolist() == cut_off[row, start : start + LENGTH - 4].tolist()
  # Nothing that was sampled is left out.
  assert shared.mask_BT.sum() == whole.mask_BT.sum()
  assert {name: array.dtype for name, array in vars(shared).items() if hasattr(array, "dtype")} == {
      name: array.dtype for name, array in vars(whole).items() if hasattr(array, "dtype")}


def test_the_mask_is_exactly_on_sampled_tokens(collected):
  for row, episode in enumerate(EPISODES):
    on = collected.mask_BT[row] > 0
    sampled = [token for t in episode.turns for token in t.response.tokens]
    assert collected.targets_BT[row][on].tolist() == sampled
    np.testing.assert_allclose(collected.sampled_logprobs_BT[row][on], [-0.01 * token for token in sampled], rtol=1e-6)
    assert collected.turns_BT[row][on].tolist() == [u for u, t in enumerate(episode.turns) for _ in t.response.tokens]
    assert (collected.turns_BT[row][~on] == -1).all() and not collected.sampled_logprobs_BT[row][~on].any()


def test_the_last_id_may_be_only_a_target():
  whole = rows([TWO], 8, [()])
  assert whole.inputs.tokens_BT[0].tolist() == [1, 10, 11, 20, 21, 12, 22, 23]
  assert whole.targets_BT[0].tolist() == [10, 11, 20, 21, 12, 22, 23, 24]
  with pytest.raises(ValueError, match="does not fit"):
    rows([TWO], 7, [()])


def test_tokens_and_logprobs_must_be_equally_many():
  broken = Episode(7, (Turn(Response("", (1,), (2, 3), (0.0,)), TWO.turns[0].verdict),), (), False)
  with pytest.raises(ValueError, match="Episode 7: 2 sampled tokens but 1"):
    rows([broken], 8, [()])


@pytest.mark.parametrize("level", ["token", "turn"])
def test_every_step_stands_at_the_column_that_predicts_its_first_token(collected, level):
  steps = grid(EPISODES, level, 3, 4, CLOSING)
  assert steps.live_EL.shape == ((3, 12) if level == "token" else (3, 3))
  for e, episode in enumerate(EPISODES):
    live = steps.live_EL[e] > 0
    tokens = [t.response.tokens if level == "token" else t.response.tokens[:1] for t in episode.turns]
    first = collected.targets_BT[steps.row_EL[e], steps.column_EL[e]][live]
    assert first.tolist() == [token for turn in tokens for token in turn]
    assert (collected.mask_BT[steps.row_EL[e], steps.column_EL[e]][live] == 1).all()


def test_rewards_stand_on_the_last_step_of_their_turn():
  by_token, by_turn = (grid(EPISODES, level, 3, 4, CLOSING) for level in ("token", "turn"))
  assert by_turn.rewards_EL.tolist() == [[-0.5, 1.0, 0.0], [-0.25, 0.0, 0.0], [0.0] * 3]
  np.testing.assert_array_equal(by_turn.ends_EL, by_turn.live_EL)
  want = np.zeros((3, 12))
  want[0, 1], want[0, 6], want[1, 0] = -0.5, 1.0, -0.25   # 2 tokens from 0, 3 tokens from 4, 1 token from 0
  assert by_token.rewards_EL.tolist() == want.tolist()
  assert by_token.ends_EL.tolist() == (want != 0).astype(float).tolist()
  assert by_token.live_EL[0].tolist() == [1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]


def test_only_a_truncated_episode_whose_end_was_read_goes_on():
  steps = grid(EPISODES, "turn", 3, 4, CLOSING)
  assert steps.bootstrap_E.tolist() == [0, 1, 0]
  collected = rows(EPISODES, LENGTH, CLOSING)
  last = steps.last_column_E[1]
  assert collected.inputs.tokens_BT[1, last] == CLOSING[1][-1] and collected.inputs.segments_BT[1, last] == 1
  assert collected.inputs.segments_BT[1, last + 1] == 0
  assert grid(EPISODES, "turn", 3, 4, ((), (), ())).bootstrap_E.tolist() == [0, 0, 0]


def test_the_outcome_of_an_episode_is_the_discounted_sum_of_its_turns():
  found = outcomes(EPISODES)
  np.testing.assert_allclose(found.rewards_E, [0.5, -0.25, 0.0])
  assert found.in_loss_E.all() and found.has_advantage_E.all()
  np.testing.assert_allclose(outcomes(EPISODES, turn_gamma=0.5).rewards_E, [-0.5 + 0.5 * 1.0, -0.25, 0.0])


def test_long_responses_lose_reward_linearly_over_the_buffer():
  """At most 6 tokens, a buffer of 4: nothing up to 2, a quarter for 3, half for 4, all of it for 6."""
  one = lambda length: Episode(0, (turn([1], [9] * length, 1.0),), (), False)
  found = outcomes([one(length) for length in (1, 2, 3, 4, 6)], longest=6, buffer=4, penalty=0.8)
  np.testing.assert_allclose(found.rewards_E, 1.0 - 0.8 * np.asarray([0, 0, 0.25, 0.5, 1.0]), rtol=1e-6)
  twice = Episode(0, (turn([1], [9] * 6, 1.0), turn([1], [9] * 6, 1.0)), (), False)
  np.testing.assert_allclose(outcomes([twice], turn_gamma=0.5, longest=6, buffer=4, penalty=0.8).rewards_E, [0.2 * 1.5],
                             rtol=1e-6)


def test_an_episode_is_cut_by_a_limit_of_the_rollout_and_not_by_running_out_of_attempts():
  attempts = Verdict(0.0, False, True, False, False, "", None, "value")
  whole, torso = Response("", (1,), (2,), (0.0,)), Response("", (1,), (2,), (0.0,), stopped=False)
  episodes = [Episode(0, (Turn(whole, attempts),), (), True), Episode(1, (Turn(torso, attempts),), (), True),
              Episode(2, (Turn(torso, TWO.turns[0].verdict), TWO.turns[1]), (), False),
              Episode(3, (Turn(whole, TWO.turns[0].verdict),), (), True), TWO]   # 3: what was said then did not fit
  assert [cut(episode) for episode in episodes] == [False, True, True, True, False]
  np.testing.assert_array_equal(outcomes(episodes, mask=True).in_loss_E, [1, 0, 0, 0, 1])
  np.testing.assert_array_equal(outcomes(episodes, padding_episodes=2).has_advantage_E, [1, 1, 1, 0, 0])


# Three chats, of which the second has two turns; two chats, the last one read on; one; none.
CHATS = (Episode(3, (turn([1, 10], [20], 0.5), turn([1, 11], [21, 22], -0.5, True), turn([12], [23], 1.0),
                     turn([1, 13], [24, 25], 2.0, True)), (), False),
         Episode(4, (turn([1, 30], [31], 0.1), turn([1, 32, 33], [34], -0.2, True)), (), True), *EPISODES)
ENDS = ((), (2, 14), *CLOSING)


def test_the_chats_of_an_episode_are_rows_with_what_each_would_be_alone():
  found, slots, count = rows(CHATS, LENGTH, ENDS, 4), 4, len(CHATS)
  for e, episode in enumerate(CHATS):
    parts, last = by_row([episode]), len(episode.rows) - 1
    for s in range(slots):
      alone = rows([parts[s] if s < len(parts) else BLANK], LENGTH, [ENDS[e] if s == last else ()])
      for name in ("targets_BT", "mask_BT", "turns_BT", "sampled_logprobs_BT"):
        np.testing.assert_array_equal(getattr(found, name)[s * count + e], getattr(alone, name)[0])
      np.testing.assert_array_equal(found.inputs.tokens_BT[s * count + e], alone.inputs.tokens_BT[0])
  with pytest.raises(ValueError, match="Episode 3: it has 3 chats, but a batch has 2 rows"):
    rows(CHATS, LENGTH, ENDS, 2)


@pytest.mark.parametrize("level", ["token", "turn"])
def test_steps_of_all_chats_stand_in_one_line_and_point_to_their_rows(level):
  laid, steps, count = rows(CHATS, LENGTH, ENDS, 3), grid(CHATS, level, 4, 4, ENDS), len(CHATS)
  for e, episode in enumerate(CHATS):
    live = steps.live_EL[e] > 0
    tokens = [t.response.tokens if level == "token" else t.response.tokens[:1] for t in episode.turns]
    place = steps.row_EL[e], steps.column_EL[e]
    assert laid.targets_BT[place][live].tolist() == [token for turn in tokens for token in turn]
    assert (steps.row_EL[e] % count == e).all() and steps.row_EL[e, -1] // count == len(episode.rows) - 1
    assert steps.rewards_EL[e][steps.ends_EL[e] > 0] == pytest.approx(episode.rewards)
  last = laid.inputs.tokens_BT[steps.row_EL[1, -1], steps.last_column_E[1]]
  assert (last, steps.bootstrap_E[1]) == (14, 1)   # the state after the last step is in the last row


@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_a_part_of_a_batch_and_every_microbatch_of_it_hold_whole_episodes(pieces):
  episodes, slots = 16, 3
  episode_of = np.arange(episodes * slots) % episodes
  for chosen in np.random.default_rng(0).permutation(episodes).reshape(2, 8):
    numbers = row_numbers(chosen, episodes, slots)
    for piece in range(pieces):   # as training/step.py deals them: row i to microbatch i mod n
      of_rows = episode_of[numbers[piece::pieces]].reshape(slots, -1)
      assert (of_rows == of_rows[0]).all() and len(set(of_rows[0])) == 8 // pieces


def test_weights_stand_at_the_targets_that_they_are_of():
  weighed = rows(EPISODES, LENGTH, CLOSING, weigh=lambda response: [token / 100 for token in response.tokens])
  np.testing.assert_array_equal(weighed.weights_BT > 0, weighed.mask_BT > 0)
  on = weighed.mask_BT > 0
  np.testing.assert_allclose(weighed.weights_BT[on], weighed.targets_BT[on] / 100, rtol=1e-6)


@pytest.mark.parametrize("start,thought", [(0, 0), (2, 0), (3, 1), (4, 1), (5, 2), (8, 2), (9, 3), (10, 4), (99, 4)])
def test_a_token_is_thought_if_its_text_ends_where_the_action_starts(start, thought):
  decode = lambda ids: "".join(["[a,", " b", "]: {", "}"][i] for i in ids)
  assert thought_tokens(decode, range(4), start) == thought


@pytest.fixture(scope="module")
def seeing(guess):
  """(environment, model that reads its pictures, the model's parameters, tokenizer).

  Two in three seeds have a picture in the prompt, and one in three has one in the feedback too.
  """
  drawn = lambda *seed: np.random.default_rng(seed).integers(0, 256, (32, 32, 3)).astype(np.uint8)

  class Seen(guess):
    def reset(self, seed):
      (number, word, attempt, chat), _ = super().reset(seed)
      chat = (dataclasses.replace(chat[0], image=drawn(seed) if seed % 3 else None),)
      return (number, word, attempt, chat), chat

    def step(self, state, response):
      (seed, word, attempt, chat), verdict = super().step(state, response)
      if verdict.chat is not None and seed % 3 == 2:
        chat = (*chat[:-1], dataclasses.replace(chat[-1], image=drawn(seed, attempt)))
        verdict = dataclasses.replace(verdict, chat=chat)
      return (seed, word, attempt, chat), verdict

  tokenizer = words("abcdef", image=True)
  config = TinyVisionConfig(vocab=tokenizer.size, width=16, layers=2, heads=2, kv_heads=1, remat="none", unroll=2,
                            init_std=0.6, image_id=tokenizer.image, image_height=32, image_width=32,
                            images=2, channels=(2, 3, 4), connector=8, connector_std=0.6)
  reader = ImageReader(tokenizer.image, config.image_tokens, 32, 32, 2)
  model = build(config)
  return Seen(attempts=2), model, jax.jit(model.init)(jax.random.key(3)), dataclasses.replace(tokenizer, reader=reader)


def test_what_is_sampled_from_pictures_is_what_the_trainer_says_of_its_rows(seeing):
  """Over turns on one cache, which read the pictures of the feedback alone, and in groups in refilled slots that read
  all again: the same tokens, and the trainer's log-probabilities."""
  env, model, params, tokenizer = seeing
  score, tokens, seeds = jax.jit(make_score(model, 0.7)), [], [number // 2 for number in range(8)]
  mesh, decoding = meshes.make(meshes.MeshConfig(), jax.devices()[:1]), jax.jit(model.decoding)(params)
  for group, way in ((1, dict(feedback_images=1)), (2, dict(carry=False, refill=True, segment=2))):
    settings = RolloutConfig(rows=8, prompt_tokens=6, feedback_tokens=3, max_new_tokens=3, shrink=(), **way)
    actor = Actor(model, tokenizer, settings, Sampling(3), env.attempts, mesh, group)
    context = PlayContext(env, actor, decoding, jax.random.key(5), 0.7, group)
    episodes, _ = play_together(context, range(8), seeds)
    tokens.append([[turn.response.tokens for turn in episode.turns] for episode in episodes])
    batch = rows(episodes, actor.row_len(), [()] * 8, reader=tokenizer.reader)
    shown = [[len(turn.response.images) for turn in episode.turns] for episode in episodes]
    assert shown == [[int(seed % 3 > 0), int(seed % 3 == 2)][: len(counts)]
                     for seed, counts in zip(seeds, shown, strict=True)]
    assert batch.inputs.images_BIYXC.any((2, 3, 4)).sum(1).tolist() == list(map(sum, shown))
    scores, on = score({"model": params}, batch.inputs, batch.targets_BT), batch.mask_BT > 0
    np.testing.assert_allclose(np.asarray(scores.logprobs_BT)[on], batch.sampled_logprobs_BT[on], atol=1e-5)
  assert tokens[0] == tokens[1] and {len(turns) for turns in tokens[0]} == {1, 2}


def test_a_picture_after_a_response_needs_room_beside_the_cache_or_turns_that_read_all_again(seeing):
  env, _, _, tokenizer = seeing
  image = np.zeros((32, 32, 3), np.uint8)
  chat = (Message("user", "a"), Message("assistant", "b"), Message("user", "c", image))
  rollout = RolloutConfig(feedback_tokens=3)
  ids, trouble = later_ids(tokenizer, rollout, chat, (1, tokenizer.eos), False, carries=True)
  assert not ids and "feedback_images" in trouble.message and "use --config.rollout.carry=False" in trouble.message
  one = dataclasses.replace(rollout, feedback_images=1)
  assert later_ids(tokenizer, one, chat, (1, tokenizer.eos), False, carries=True)[1] is None
  assert later_ids(tokenizer, rollout, chat, (1, tokenizer.eos), False)[0] == [tokenizer.image, *tokenizer.encode("c")]


def test_what_a_teacher_reads_stands_before_the_row_that_it_is_of():
  shown = tuple(([1, 40 + number], 1) for number in range(3))
  episodes = [dataclasses.replace(CHATS[0], prefixes=shown), dataclasses.replace(CHATS[1], prefixes=shown[:2]), BLANK]
  assert rows(episodes, LENGTH, [()] * 3, 3).prefix is None
  prefix = rows(episodes, LENGTH, [()] * 3, 3, prefix_tokens=4).prefix
  last = [[40, 40, 0], [41, 41, 0], [42, 0, 0]]   # row s * 3 + e is chat s of episode e
  assert prefix.tokens_BP[:, -1].tolist() == sum(last, []) and prefix.tokens_BP.shape == (9, 4)
  assert prefix.lengths_B.tolist() == [2 * (token > 0) for token in sum(last, [])]
  assert prefix.skipped_B.tolist() == [int(token > 0) for token in sum(last, [])]
