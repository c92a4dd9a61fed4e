"""The functions of a run are those that it runs, with arguments that fit one another."""

import jax
import pytest

from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.loop import session
from sftrl_jax.programs.plan import jitted_functions
from sftrl_jax.training.state import TrainState


def listed(experiment, verb):
  """Every function, its results traced and guessed; nothing is compiled."""
  source, returned, found = jitted_functions.each(experiment), None, {}
  while True:
    try:
      function = source.send(returned)
    except StopIteration:
      return found
    returned = jitted_functions.guessed(jitted_functions.returned(function, experiment.mesh), experiment.mesh)
    assert function.name not in found
    found[function.name] = function


@pytest.fixture(scope="module")
def ppo(tiny):
  config = tiny("rl", rollout__shrink="()", ppo__minibatches="2", ppo__epochs="3", env__attempts="3", batch="16")
  return listed(build_experiment(config, "rl"), "rl")


def test_sft_without_evaluations_is_born_and_trained(tiny):
  found = listed(build_experiment(tiny("sft", evals__variants="()"), "sft"), "sft")
  assert list(found) == ["state", "train step"] and found["train step"].calls == 1


def test_ppo_scores_learns_and_plays(ppo):
  assert list(ppo) == ["state", "score", "advantages", "minibatch", "train step", "weight move", "turn 1, 8 rows",
                       "regroup 8", "turn 2 on, 8 rows", "regroup 8 again", "kl of an evaluation"]
  calls = {name: function.calls for name, function in ppo.items()}
  assert calls["train step"] == calls["minibatch"] == 6 and calls["score"] == calls["advantages"] == calls["weight move"] == 1
  assert calls["turn 1, 8 rows"] == 2 and calls["turn 2 on, 8 rows"] == 4   # 16 episodes, 8 at once, three turns
  assert calls["regroup 8"] == calls["regroup 8 again"] == 2 and calls["kl of an evaluation"] == 0


def test_what_lies_there_meanwhile_is_no_argument(ppo):
  roles = lambda pairs: [role for role, _ in pairs]
  assert roles(ppo["turn 1, 8 rows"].resident) == ["state", "reference"]
  assert roles(ppo["turn 2 on, 8 rows"].resident) == ["state", "reference", "cache"]
  assert roles(ppo["score"].arguments)[:2] == ["parameters", "reference"]
  assert roles(ppo["score"].resident) == ["optimizer"]
  assert roles(ppo["weight move"].resident) == ["optimizer", "reference"]


def test_the_state_lies_as_a_run_lays_it(ppo):
  state = dict(ppo["train step"].arguments)["state"]
  assert isinstance(state, TrainState) and "value" in state.params
  assert all(leaf.sharding is not None for leaf in jax.tree.leaves(state))


def test_groups_have_a_first_turn_of_their_own(tiny):
  found = listed(build_experiment(tiny("grpo", evals__variants="()", rollout__shrink="()"), "rl"), "rl")
  calls = {name: function.calls for name, function in found.items() if name.startswith("turn 1")}
  assert calls == {"turn 1, 8 rows": 0, "turn 1, 8 rows in groups of 4": 1}


def test_adapters_are_trained_on_what_is_frozen(tiny):
  found = listed(build_experiment(tiny("lora", evals__variants="()"), "sft"), "sft")
  roles = [role for role, _ in found["train step"].arguments]
  assert list(found) == ["state", "average", "train step"] and roles == ["state", "batch", "parameters"]
  assert [role for role, _ in found["train step"].resident] == ["parameters"]   # the average, by which it is judged


def test_the_start_is_kept_only_where_something_reads_it(tiny):
  reads = lambda **changes: session.reads_start(build_experiment(tiny("rl", **changes), "rl"))
  assert reads() and reads(ppo__kl_coef="0") and reads(evals__kl="False")
  assert not reads(ppo__kl_coef="0", evals__kl="False")
  assert not reads(ppo__kl_coef="0", evals__temperatures="(0.0,)") and not reads(ppo__kl_coef="0", evals__variants="()")
