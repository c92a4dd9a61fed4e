"""The functions of a run are those that it runs, with arguments that fit one another."""

import pathlib

import jax
import pytest

from sftrl_jax.models import flops
from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.plan import compilation, jaxpr_flops, jitted_functions
from sftrl_jax.programs.start import trainable
from sftrl_jax.training.state import TrainState


def listed(experiment):
  """name -> function, results traced and their shardings guessed; nothing is compiled."""
  handle = lambda function: (function, jitted_functions.guess_results(function, experiment.mesh))
  functions = list(jitted_functions.for_each(experiment, handle))
  names = [function.name for function in functions]
  assert len(set(names)) == len(names)
  return dict(zip(names, functions, strict=True))


@pytest.fixture(scope="module")
def ppo(tiny):
  config = tiny("rl", ppo__minibatches="2", ppo__epochs="3", env__attempts="3", batch="16")
  return listed(build_experiment(config, "rl"))


def test_sft_without_evaluations_is_initialised_and_trained(tiny):
  functions = listed(build_experiment(tiny("sft", evals__variants="()"), "sft"))
  assert list(functions) == ["state", "train step"] and functions["train step"].calls == 1


def test_pairs_are_scored_by_the_start_only_where_the_loss_compares(pair_config):
  for objective, own in (("dpo", ["reference"]), ("reward", [])):
    functions = listed(build_experiment(pair_config(objective), "preference"))
    assert list(functions) == ["state", *own, "train step"] and functions["train step"].calls == 1


def test_ppo_scores_learns_and_plays(ppo):
  assert list(ppo) == ["state", "score", "advantages", "minibatch", "train step", "weight move", "turn 1, 8 rows",
                       "turn 2 on, 8 rows", "regroup 8", "regroup 8 again", "kl of an evaluation"]
  calls = {name: function.calls for name, function in ppo.items()}
  assert calls["train step"] == calls["minibatch"] == 6
  assert calls["score"] == calls["advantages"] == calls["weight move"] == 1
  assert calls["turn 1, 8 rows"] == 2 and calls["turn 2 on, 8 rows"] == 4   # 16 episodes, 8 at once, three turns
  layers = len(dict(ppo["regroup 8"].resident)["cache"].keys_BKSC)   # rows move layer by layer
  assert calls["regroup 8"] == calls["regroup 8 again"] == 2 * layers and calls["kl of an evaluation"] == 0


def test_what_is_resident_is_no_argument(ppo):
  roles = lambda pairs: [role for role, _ in pairs]
  assert roles(ppo["turn 1, 8 rows"].resident) == ["state", "reference"]
  assert roles(ppo["turn 2 on, 8 rows"].resident) == ["state", "reference"]   # it takes the cache over
  assert roles(ppo["turn 2 on, 8 rows"].arguments) == ["decoding", "cache", "batch"]
  assert roles(ppo["regroup 8"].resident) == ["state", "reference", "decoding", "cache"]
  assert roles(ppo["score"].arguments)[:2] == ["parameters", "reference"]
  assert roles(ppo["score"].resident) == ["optimizer"]
  assert roles(ppo["weight move"].resident) == ["optimizer", "reference"]


def test_a_state_has_the_shardings_of_a_run(ppo):
  state = dict(ppo["train step"].arguments)["state"]
  assert isinstance(state, TrainState) and "value" in state.params
  assert all(leaf.sharding is not None for leaf in jax.tree.leaves(state))


def test_groups_have_a_first_turn_of_their_own(tiny):
  turns = lambda **changes: {name: function.calls for name, function in listed(build_experiment(
      tiny("grpo", rollout__shrink="()", **changes), "rl")).items() if name.startswith("turn 1")}
  assert turns() == {"turn 1, 8 rows": 0, "turn 1, 8 rows in groups of 4": 1}
  assert turns(evals__variants="()") == {"turn 1, 8 rows in groups of 4": 1}   # nothing plays without groups


def test_segments_are_listed_with_all_rows_and_called_as_often_as_the_longest_responses_need(tiny):
  experiment = build_experiment(tiny("rl", env__attempts="2", rollout__max_new_tokens="20", rollout__segment="4",
                                     rollout__shrink="(0.5,)"), "rl")
  actor, functions = experiment.actor, listed(experiment)
  assert actor.in_segments and len(actor.sizes) > 1
  rows, batches = actor.rollout.rows, -(-experiment.batch // actor.rollout.rows)
  sampling = [function for name, function in functions.items() if name.startswith(("turn", "segment"))]
  assert all(f" {rows} rows" in function.name for function in sampling)
  calls = lambda later: sum(function.calls for function in sampling if function.name.startswith("segment") == later)
  assert calls(False) == 2 * batches and calls(True) == 2 * batches * 5   # two turns of 20 tokens
  grown = [function for name, function in functions.items() if name.startswith("regroup")]
  lens = actor.cache_lens(0)
  assert len(grown) == len(lens) - 1 and [function.static["cache_len"] for function in grown] == list(lens[1:])
  assert [function.calls for function in grown] == [batches * experiment.model.config.layers] * (len(lens) - 1)


@pytest.fixture(scope="module")
def pictured(one_device):
  """(experiment, its functions) of PPO of a small Llama-3.2-Vision on hands of one picture."""
  model = {"name": "mllama", "layers": 2, "cross": (1,), "tile": 16, "patch": 8, "tower_side": 2, "tower_width": 32,
           "tower_heads": 4, "tower_mlp_dim": 128, "tower_layers": 1, "width": 16, "heads": 2}
  changes = [(f"model.{key}", str(value)) for key, value in model.items()]
  config = resolve.load(str(pathlib.Path(__file__).parents[3] / "configs/paper/gp_vl_ppo.py:smoke"))
  config.model, config.ppo.value_layers = {}, ()
  experiment = build_experiment(run_config.resolve_for("rl", config, changes, lambda _: None), "rl")
  return experiment, listed(experiment)


def test_pictures_are_read_where_a_chat_begins_and_what_is_made_of_them_is_kept(pictured):
  (experiment, functions), config = pictured, pictured[0].model.config
  batches = lambda name: [tree for role, tree in functions[name].arguments if role == "batch"]
  of = lambda trees: [leaf.shape for tree in trees for leaf in jax.tree.leaves(tree) if leaf.ndim == 5]
  one = (1, config.image_height, config.image_width, 3)   # picture a row
  rows, update = experiment.batch, experiment.batch // 2
  assert {name: of(batches(name)) for name in ("score", "minibatch", "train step", "turn 1, 16 rows")} == {
      "score": [(rows, *one)], "minibatch": [(rows, *one)], "train step": [(update, *one)],
      "turn 1, 16 rows": [(16, *one)]}
  later = functions["turn 2 on, 16 rows"]
  cache = dict(later.arguments)["cache"]
  assert not of(batches(later.name))
  assert [keys.shape[2] for keys in cache.pictures.keys_BKFC] == [config.picture_columns]
  size = lambda cache: compilation.bytes_by_role([("cache", cache)])["cache"]
  kept = size(cache) - size(cache.replace(pictures=None))
  assert kept >= 2 * 16 * config.picture_columns * config.kv_heads * config.head_dim * 4


def test_flops_of_a_planned_step_have_the_tower(pictured):
  """Forward, backward and what full remat computes again."""
  experiment, function = pictured[0], pictured[1]["train step"]
  values = jitted_functions.with_row_shardings(function, experiment.mesh)
  with jax.set_mesh(experiment.mesh):
    traced = function.jitted.trace(*values, **function.static)
  rows, length, config = experiment.batch // 2, experiment.actor.row_len(), experiment.model.config
  least = flops.train(config, rows * length, length) + flops.pictures(config, rows, training=True)
  counted = jaxpr_flops.count(traced.jaxpr, 1).once
  assert least < counted < 1.6 * least and flops.pictures(config, rows, training=True) > 0.2 * least


def test_adapters_are_trained_on_what_is_frozen(tiny):
  functions = listed(build_experiment(tiny("lora", evals__variants="()"), "sft"))
  roles = [role for role, _ in functions["train step"].arguments]
  assert list(functions) == ["state", "average", "train step"] and roles == ["state", "batch", "parameters"]
  assert [role for role, _ in functions["train step"].resident] == ["parameters"]   # the average, for evaluations


def test_the_start_is_kept_only_where_something_reads_it(tiny):
  reads = lambda **changes: trainable.reads_start(build_experiment(tiny("rl", **changes), "rl"))
  assert reads() and reads(ppo__kl_coef="0") and reads(evals__kl="False")
  assert not reads(ppo__kl_coef="0", evals__kl="False")
  assert not reads(ppo__kl_coef="0", evals__temperatures="(0.0,)") and not reads(ppo__kl_coef="0", evals__variants="()")
