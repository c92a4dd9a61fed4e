"""A run compiles the functions that plan lists, with the shapes that plan lists."""

import contextlib
import logging
import re

import jax
import pytest

from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.loop.jitted import jit_functions
from sftrl_jax.programs.plan import compilation, jitted_functions
from sftrl_jax.programs.start import trainable

COMPILING = re.compile(r"Compiling jit\((.+?)\) with global shapes and types (.*?)\. Argument mapping")
# What plan leaves out: random keys, parameters at the start, and checkpoints on their way to the host.
LOADING = {"_threefry_seed", "_sums", "init", "stage", "broadcast_in_dim", "convert_element_type"}
# Three turns, so that a cache is regrouped twice; one size of a rollout, since `compile_all` also regroups between
# sizes that never follow each other, which plan does not list.
CHANGES = {"rollout__shrink": "()", "env__attempts": "3"}


@contextlib.contextmanager
def compiled_programs():
  """Yields a set that holds (name, shapes of the arguments) of every program compiled inside."""
  programs, logger = set(), logging.getLogger("jax")

  class Listener(logging.Handler):

    def emit(self, record):
      programs.update(match.groups() for match in [COMPILING.match(record.getMessage())] if match)

  listener = Listener()
  logger.addHandler(listener)
  jax.clear_caches()   # a program that an earlier test has compiled counts too
  try:
    with jax.log_compiles():
      yield programs
  finally:
    logger.removeHandler(listener)


@pytest.mark.parametrize("method, own", [
    ("sft", {"sft__loss": "psft", "sft__minibatches": "2", "ema__decay": "0.9", "evals__probe_tokens": "28",
             "evals__probes": "{'second_try': {'earlier': 1}}", "evals__variants": "('id_seen',)"}), ("rl", {}),
    ("grpo", {"compute__lengths": "4"}), ("rloo", {"evals__variants": "()"}), ("lora", {}),
    ("distill", {"compute__lengths": "2", "teacher__demonstration": "expert", "evals__variants": "()"})])
def test_a_run_compiles_what_plan_lists(tiny, run_of, tmp_path, method, own):
  assert "regroup" in compare(tiny(method, **CHANGES, **own), run_of, tmp_path, method)


def test_so_does_one_that_refills_its_slots(tiny, run_of, tmp_path):
  config = tiny("grpo", env__attempts="2", rollout__refill="True", rollout__carry="False", rollout__shrink="()",
                rollout__segment="2", evals__temperatures="(0.0,)")
  assert {"admit", "ring"} <= {*compare(config, run_of, tmp_path)}


def test_so_does_one_whose_episodes_have_several_chats(rewriters, tiny, run_of, tmp_path):
  names = compare(tiny("rl", **{**CHANGES, "env__name": f"{rewriters}:Hands", "env__attempts": "4",
                                "evals__variants": "()"}), run_of, tmp_path)
  assert "regroup" not in names   # a cache would hold the chat before


def compare(config, run_of, tmp_path, method=""):
  """Runs a config and plans it; returns the names of what is planned."""
  with compiled_programs() as run:
    run_of(config, tmp_path)
  experiment = build_experiment(config, "rl" if "algorithm" in config else "sft")
  with compiled_programs() as planned:
    list(jitted_functions.for_each(experiment, lambda function: compilation.build(function, experiment.mesh)[:2]))
  names = {name for name, _ in planned}
  assert {"train_step", "turn", "decoding"} <= names
  assert ("score_rows" in names) == (method not in ("rloo", "lora", "distill"))   # a ratio of 1, or none
  loading = LOADING | ({"<lambda>"} if method == "lora" else set())   # a lambda initialises adapters
  assert {program for program in run if program in planned or program[0] not in loading} == planned
  return names


@pytest.mark.parametrize("method", ["sft", "rl"])
def test_nothing_of_rl_is_there_for_sft(tiny, method):
  experiment = build_experiment(tiny(method), method)
  learner = KINDS[method].make_learner(experiment)
  jitted = jit_functions(experiment, learner, trainable.abstract_trainable(experiment)[1])
  assert (jitted.score_rows is None) == (jitted.advantages is None) == (method == "sft")
