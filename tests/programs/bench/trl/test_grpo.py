"""TRL's trainer plays our prompts, is paid by our environment, and waits for its turn. Without trl some are skipped."""

import importlib.util

import pytest

from sftrl_jax.programs.bench import run
from sftrl_jax.programs.bench.trl import grpo as peer, stepping
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment

ALIKE = dict(env__attempts=1, grpo__minibatches=1, grpo__kl_coef=0.0, model__mlp="gated", model__activation="silu")


@pytest.fixture(scope="module")
def grpo(tiny):
  return tiny("grpo", **ALIKE)


@pytest.mark.parametrize("changed, key", [
    (dict(env__attempts=2), "config.env.attempts=1"), (dict(grpo__epochs=2), "config.grpo.epochs=1"),
    (dict(grpo__minibatches=2, compute__microbatches=1), "config.grpo.minibatches=1"),
    (dict(lora__rank=2), "config.lora.rank=0"), (dict(optimizer__name="lion"), "config.optimizer.name=adamw")])
def test_what_trl_does_not_do_is_refused_with_the_way_out(tiny, changed, key):
  with pytest.raises(ConfigError, match=key):
    peer.refuse(build_experiment(tiny("grpo", **ALIKE | changed), "rl"))


def test_other_methods_and_kinds_are_refused(tiny, grpo):
  with pytest.raises(ConfigError, match="config.algorithm is 'ppo'"):
    peer.refuse(build_experiment(tiny("rl"), "rl"))
  with pytest.raises(ConfigError, match="which --against=trl does not do: it does sft, iteration"):
    run.refuse("trl", 1, ("decode",))
  with pytest.raises(ConfigError, match="use one of rl"):
    run.run(tiny("sft"), "sft", against="trl", only=("iteration",))
  peer.refuse(build_experiment(grpo, "rl"))


@pytest.mark.skipif(importlib.util.find_spec("trl") is not None, reason="trl is here")
def test_without_trl_the_error_names_the_extra(grpo):
  with pytest.raises(ConfigError, match=r"pip install 'sftrl-jax\[peers\]'"):
    run.run(grpo, "rl", against="trl")


def test_prompts_are_ids_as_text_that_its_tokenizer_reads_back(grpo):
  experiment = build_experiment(grpo, "rl")
  rows, tokenizer = peer.prompts(experiment, 2), experiment.actor.tokenizer
  theirs = stepping.id_tokenizer(tokenizer.size, tokenizer)
  assert len(rows) == 2 * experiment.batch // experiment.actor.group and len({row["seed"] for row in rows}) == len(rows)
  for row in rows:
    ids = theirs(row["prompt"])["input_ids"]
    chat = experiment.env.reset(row["seed"])[1]
    assert ids == peer.prompt_ids(tokenizer, chat, 99)[0] and theirs.decode(ids) == row["prompt"]
  assert (theirs.pad_token_id, theirs.eos_token_id) == (tokenizer.pad, tokenizer.eos)


def test_its_iterations_alternate_with_ours(grpo, small, capsys):
  pytest.importorskip("trl", reason="pip install 'sftrl-jax[peers]'")
  lines = run.run(grpo, "rl", against="trl", pairs=1)["lines"]
  whole, *parts = lines
  assert whole["their_seconds"] == pytest.approx(sum(line["their_seconds"] for line in parts))
  assert all(len(line["ratios"]) == 1 for line in lines) and 1 <= whole["their_tokens_per_second"]
  shown = capsys.readouterr().out
  assert "grpo iteration: prompts, rewards, groups of 4" in shown and "peer: trl" in shown
