"""Knobs are tried in order, and only what was compiled is reported to fit."""

import dataclasses

import pytest

from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.plan import suggestions, topology, tpu_slice
from sftrl_jax.programs.plan.compilation import CompiledFunction, Plan
from sftrl_jax.programs.plan.hlo_traffic import Traffic

NOTHING = (0.0, Traffic())


@pytest.fixture
def plan_of(tiny):
  """plan_of(name, arguments, program) -> a plan of four chips in which one function needs so many GiB."""
  experiment = build_experiment(tiny("rl", compute__microbatches="1", compute__logit_chunk="0"), "rl")

  def make(name, arguments, program):
    function = CompiledFunction(name, 1, 1, {"parameters": arguments * GIB}, {}, (program - arguments) * GIB,
                                program * GIB, False, NOTHING, NOTHING, 1, True, 0.0)
    return Plan(experiment, topology.parse("v5e-4"), (function,), 0.0)

  return make


def test_activations_that_are_too_large_are_cut_first(plan_of):
  words = [str(knob) for knob in suggestions.list_knobs(plan_of("train step", 4, 20))]
  assert words[:3] == ["--config.compute.microbatches=2", "--config.compute.microbatches=4",
                       "--config.compute.microbatches=8"]
  assert words.index("--config.optimizer.name=adafactor") < words.index("--topology=v5e-8")
  assert all(word not in " ".join(words) for word in ("rollout.rows", "evals.kl"))


def test_arguments_that_are_too_large_are_no_matter_of_microbatches(plan_of):
  words = [str(knob) for knob in suggestions.list_knobs(plan_of("train step", 40, 41))]
  assert words == ["--config.optimizer.args.mu_dtype=bfloat16", "--config.optimizer.name=adafactor",
                   "--config.lora.rank=16", "--topology=v5e-8", "--topology=v5e-16", "--topology=v5e-32",
                   "--topology=v5e-64"]


def test_a_rollout_that_is_too_large_has_fewer_rows(plan_of):
  assert str(suggestions.list_knobs(plan_of("turn 1, 8 rows", 4, 20))[0]) == "--config.rollout.rows=4"


def test_knobs_are_tried_until_one_fits_and_what_helped_stays(plan_of, tiny):
  first, calls, printed = plan_of("train step", 4, 20), [], []

  def make(config, verb, where, only, arguments_only=False):
    pieces = config.compute.microbatches
    calls.append((pieces, arguments_only))
    function = dataclasses.replace(first.functions[0], program=(4 if arguments_only else 4 + 16 / pieces) * GIB)
    return dataclasses.replace(first, functions=(function,), where=where)

  results = suggestions.search(first, tiny("rl", compute__microbatches="1"), make, printed.append, tries=5)
  assert [result["knob"] for result in results] == ["--config.compute.microbatches=2"] and results[0]["fits"]
  assert calls == [(2, True), (2, False)] and "needs 12.00 GiB of 15.75 GiB, fits" in printed[-1]


@pytest.mark.parametrize("prefix", ["turn", "turn 1", "regroup"])
def test_fewer_rows_are_tried_though_the_names_of_functions_hold_the_rows(tiny, prefix):
  """The functions are those of the run, weighed by their arguments; memory goes with the rows."""
  config = tiny("rl", env__attempts=3)   # three turns, so that a cache is regrouped again
  compiled, printed = [], []

  def make(config, verb, where, only, arguments_only=False):
    experiment = build_experiment(config, verb)
    chosen = [dataclasses.replace(function, program=3.0 * config.rollout.rows * GIB)
              for function in tpu_slice.compile_functions(experiment, only, arguments_only=True)]
    compiled.append([function.name for function in chosen])
    assert chosen, f"{only} names no function"
    return Plan(experiment, where, tuple(chosen), 0.0)

  first = make(config, "rl", topology.parse("v5e-4"), (prefix,))
  assert first.failing
  results = suggestions.search(first, config, make, printed.append, tries=9)
  assert [result["knob"] for result in results] == ["--config.rollout.rows=4"] and results[0]["fits"], printed
  stems = lambda names: {suggestions.ROWS.sub("", name) for name in names}
  assert stems(compiled[-1]) == stems(compiled[0]) and all("8" not in name for name in compiled[-1])


def test_another_optimizer_is_tried_without_the_arguments_of_the_first(plan_of, tiny):
  first, tried, printed = plan_of("train step", 12, 20), [], []

  def make(config, verb, where, only, arguments_only=False):
    tried.append((config.optimizer.name, "mu_dtype" in config.optimizer.args, config.lora.rank))
    function = dataclasses.replace(first.functions[0], program=(12 if arguments_only else 20) * GIB)
    return dataclasses.replace(first, functions=(function,))

  suggestions.search(first, tiny("rl", compute__microbatches="8", compute__logit_chunk="5"), make, printed.append, 9)
  assert {("adamw", True, 0), ("adafactor", False, 0), ("adamw", True, 16)} <= set(tried)
  assert ("adafactor", True, 0) not in tried
  assert not any("no argument" in line for line in printed)


def test_a_kl_that_is_too_large_is_cut_as_a_train_step_is(plan_of):
  words = [str(knob) for knob in suggestions.list_knobs(plan_of("kl of an evaluation", 4, 20))]
  assert words[0] == "--config.compute.microbatches=2" and "--config.evals.kl=False" in words


def test_what_cannot_fit_is_not_compiled_and_tries_end(plan_of, tiny):
  first, compiled, printed = plan_of("train step", 40, 41), [], []

  def make(config, verb, where, only, arguments_only=False):
    compiled.append(arguments_only)
    program = 160 / where.chips if config.lora.rank == 0 else 20
    return dataclasses.replace(first, functions=(dataclasses.replace(first.functions[0], program=program * GIB),),
                               where=where)

  results = suggestions.search(first, tiny("rl"), make, printed.append, tries=1)
  assert results[-1] == {"knob": "--topology=v5e-16", "fits": True, "peak_gib": 10.0, "compiled": True,
                      "hbm_limit_gib": 15.75}
  assert compiled.count(False) == 1 and "arguments alone are 40.00 GiB" in printed[1]
