"""What a run learns by is described once, for those who run it and those who only compile it."""

import numpy as np
import pytest

from sftrl_jax.programs.experiment import learner
from sftrl_jax.programs.experiment.build import build_experiment


def test_sft_makes_one_update_a_step_on_rows_of_its_data(tiny):
  experiment = build_experiment(tiny("sft"), "sft")
  found = learner.make_sft_learner(experiment)
  assert (found.rows, found.length) == (experiment.batch, experiment.data.length)
  assert (found.minibatch, found.updates, found.score_rows) == (found.rows, 1, None)


def test_rl_makes_updates_on_minibatches_of_whole_episodes(tiny):
  experiment = build_experiment(tiny("rl", ppo__minibatches=2, ppo__epochs=3), "rl")
  found = learner.make_rl_learner(experiment)
  assert (found.minibatch, found.updates) == (found.rows // 2, 6) and found.score_rows and found.advantages
  assert found.length >= experiment.actor.row_len()


def test_layers_of_the_value_head_are_charged(tiny):
  plain, layered = (learner.make_rl_learner(build_experiment(tiny("rl", ppo__epochs=3, ppo__value_layers=layers), "rl"))
                    for layers in ("()", "(8, 4)"))
  head = 2 * plain.rows * plain.length * (16 * 8 + 8 * 4 + 4)
  assert layered.flops.train - plain.flops.train == 3 * 3 * head and layered.flops.score - plain.flops.score == head


def test_an_episode_of_several_chats_has_as_many_rows(tiny, rewriters):
  make = lambda **changes: learner.make_rl_learner(build_experiment(tiny("rl", ppo__minibatches=2, **changes), "rl"))
  plain, several = make(), make(env__name=f"{rewriters}:Hands", env__attempts=4)
  assert several.length == plain.length   # of two attempts at one hand
  assert (several.rows, several.minibatch, several.episodes) == (2 * plain.rows, 2 * plain.minibatch, plain.rows)
  assert several.flops.train == 2 * plain.flops.train and several.flops.score == 2 * plain.flops.score


def test_microbatches_at_their_length_are_charged_for_what_they_compute(tiny):
  make = lambda **own: learner.make_rl_learner(build_experiment(
      tiny("rl", ppo__minibatches=2, ppo__epochs=3, **own), "rl"))
  whole, cut = make(), make(compute__lengths=4)
  assert whole.lengths == () and whole.least_flops == whole.flops == cut.flops and cut.lengths[-1] == whole.length
  every = [0] * len(cut.lengths) + [2 * 2]   # microbatches of an epoch
  positions, cost = cut.computed(every)
  assert positions == whole.rows * whole.length
  assert (3 * cost.train, cost.score) == pytest.approx((whole.flops.train, whole.flops.score))
  rows = whole.rows // 4
  assert cut.computed([7, 1, 0, 2, 0])[0] == rows * (cut.lengths[0] + 2 * cut.lengths[2])   # blank ones cost nothing
  assert cut.computed([0] * 5) == (0, learner.StepFlops(0, 0))
  parts = [cut.computed(np.eye(5, dtype=int)[case])[1].train for case in (1, 3)]
  assert cut.computed([0, 1, 0, 2, 0])[1].train == parts[0] + 2 * parts[1]
  # Shorter rows have fewer keys to attend to, so a position of theirs costs less.
  assert parts[0] / cut.lengths[0] < parts[1] / cut.lengths[2]
  assert cut.least_flops.train < cut.flops.train and cut.least_flops.score < cut.flops.score


def dealt(found, order):
  """The episodes that have a row in each microbatch."""
  return [set(piece % found.episodes) for piece in order.reshape(-1, found.microbatches).T]


@pytest.mark.parametrize("method, own, whole", [
    ("rl", {}, False), ("grpo", {"grpo__mean": "sequence"}, True), ("grpo", {"grpo__mean": "token"}, False),
    ("rloo", {}, True)])
def test_rows_are_dealt_by_length_and_episodes_are_torn_apart_only_where_the_loss_allows(
    tiny, rewriters, method, own, whole):
  found = learner.make_rl_learner(build_experiment(tiny(
      method, env__name=f"{rewriters}:Hands", env__attempts=4, compute__lengths=4, **own), "rl"))
  lengths_B = np.asarray([9, 0, 7, 5, 8, 4, 6, 3, *[0, 0, 9, 0, 0, 0, 0, 2]])   # of two rows an episode
  chosen = np.asarray([2, 5, 0, 1, 7, 3, 4, 6], np.int32)
  order = found.update_order(chosen, lengths_B)
  assert sorted(order) == list(range(16)) and found.whole_episodes == whole
  first, second = order.reshape(-1, 2).T
  if whole:
    assert dealt(found, order) == [{1, 7, 5, 3}, {6, 4, 0, 2}]   # by their longest row
    assert (first[:4] + 8 == first[4:]).all() and (second[:4] + 8 == second[4:]).all()
  else:
    assert max(lengths_B[first]) <= min(lengths_B[second]) and not lengths_B[first][:7].any()
  if found.score_rows:
    (scored,) = found.score_order(lengths_B)
    assert (np.diff(lengths_B[scored.reshape(-1, 2).T.reshape(-1)]) >= 0).all()


def test_whole_rows_keep_the_order_in_which_they_are_drawn(tiny):
  found = learner.make_rl_learner(build_experiment(tiny("rl"), "rl"))
  assert found.update_order(np.asarray([3, 1]), np.arange(8)).tolist() == [3, 1] and found.score_order(None) == ()


@pytest.mark.parametrize("method, own, scores", [
    ("rloo", {}, False), ("grpo", {"grpo__kl_coef": 0}, False), ("grpo", {}, True), ("rl", {"ppo__kl_coef": 0}, True),
    ("rloo", {"rloo__epochs": 2}, True), ("rloo", {"rloo__minibatches": 2}, True),
    ("rloo", {"optimizer__name": "schedule_free_adamw"}, True)])
def test_rows_are_scored_but_where_the_ratio_is_1_by_definition(tiny, method, own, scores):
  """Not under an optimizer whose average plays: the policy that is trained is then another one."""
  found = learner.make_rl_learner(build_experiment(tiny(method, **own), "rl"))
  assert bool(found.score_rows) == scores == (found.flops.score > 0)
