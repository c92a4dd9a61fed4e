"""What a run learns by is described once, for those who run it and those who only compile it."""

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
