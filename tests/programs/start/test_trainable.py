"""Runs of adapters: they begin as their base, keep it, can be begun from, and are nothing without it."""

import functools
import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sftrl_jax import trees
from sftrl_jax.models import lora
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.evaluate import run as evaluate
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.start import initial_params

MEASURED = ("variant", "temperature", "outcomes", "codes", "success", "seed")


@pytest.fixture(scope="module")
def experiment(tiny):
  return build_experiment(tiny("lora"), "sft")


@pytest.fixture(scope="module")
def load(experiment):
  """load(start) -> parameters of the model on the host."""
  load = lambda start: initial_params.load_start(start, experiment.model, 0, experiment.mesh)
  return functools.cache(lambda start: jax.device_get(load(start)))


@pytest.fixture(scope="module")
def upon(finished, tiny, run_of, tmp_path_factory):
  """A run of adapters upon a run of adapters, both to be broken: (the one below, the one above, its config)."""
  folder = tmp_path_factory.mktemp("upon")
  below = shutil.copytree(finished("lora"), folder / "below")
  config = tiny("lora", start=below, steps=1, lora__rank=1, lora__targets="('*mlp/*',)", evals__variants="()")
  run_of(config, folder / "above")
  return below, folder / "above", config


def measured(lines, step=None):
  return [[line[key] for key in MEASURED] for line in lines if step in (None, line["step"])]


@pytest.mark.parametrize("method, others", [("lora", set()), ("rl_lora", {   # beside a value head with layers
    f"value/{path}" for path in ("kernel", "bias", "hidden/0/kernel", "hidden/0/bias")})])
def test_adapters_alone_are_trained_and_saved(finished, experiment, method, others):
  home = finished(method)
  state = ocp.StandardCheckpointer().restore((home / "checkpoints" / "2" / "state").absolute())
  wanted = jax.eval_shape(lambda key: lora.init(lora.LoraConfig(rank=2), initial_params.param_shapes(experiment.model),
                                                key),
                          jax.random.key(0))
  assert trees.leaves(state["params"]).keys() == {f"lora/{path}" for path in trees.leaves(wanted)} | others
  assert not any("/model/" in path for path in trees.leaves(state))
  assert trees.leaves(state["params"])["lora/layers/block/attn/q/b"].any()
  assert json.loads((home / "base.json").read_text())["start"] == "scratch"


def test_at_step_0_a_run_of_adapters_is_its_base(finished, lines_of):
  of = lambda home: [{**line, "seconds": 0} for line in lines_of(home, "evals.jsonl") if line["step"] == 0]
  lines = of(finished("lora"))
  assert lines == of(finished("sft")) and all(line.get("kl", 0.0) == 0.0 for line in lines)


def test_adapters_off_are_the_base_after_training_and_on_what_the_run_measured(finished, lines_of, tmp_path):
  home = finished("lora")
  lines = lines_of(home, "evals.jsonl")
  off = evaluate.run(str(home), [("lora.rank", "0")], str(tmp_path / "off"))
  on = evaluate.run(str(home), [], str(tmp_path / "on"))
  assert measured(off) == measured(lines, 0) and all(line.get("kl", 0.0) == 0.0 for line in off)
  assert measured(on) == measured(lines, 2)
  apart = lambda lines: [line["kl"] for line in lines if "kl" in line and line["step"] == 2]
  assert apart(on) == pytest.approx(apart(lines), rel=1e-3) and min(apart(on)) > 1e-3


def test_the_reference_has_no_adapters_and_the_sampler_has_them(finished, lines_of):
  lines = lines_of(finished("rl_lora"), "metrics.jsonl")
  assert lines[0]["objective/kl"] == 0.0 and lines[1]["objective/kl"] != 0.0
  assert all(line["sampling/sampling_logp_difference/max"] < 1e-4 for line in lines)
  assert lines[0]["compile/count"] == lines[1]["compile/count"]


def test_frozen_matrices_cost_no_gradient(finished, lines_of):
  of = lambda method, kind: lines_of(finished(method), "metrics.jsonl")[0][f"compute/{kind}_flops"]
  for method, whole in (("lora", "sft"), ("rl_lora", "rl")):
    assert 0.6 < of(method, "train") / of(whole, "train") < 1.0
  assert 1.0 < of("rl_lora", "score") / of("rl", "score") < 1.3


def test_a_run_can_begin_from_adapters_merged_into_their_base(finished, experiment, load):
  home = finished("lora")
  merged, step, _ = initial_params.load_with_adapters(home, 2, experiment.model, experiment.mesh,
                                                      initial_params.adapters_of(home))
  averaged = ocp.StandardCheckpointer().restore((home / "checkpoints" / "2" / "evaluated").absolute())
  wanted = lora.merge(lora.attach(load("scratch"), averaged["lora"], lora.LoraConfig(rank=2)))
  assert step == 2
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), load(str(home)), wanted)
  jax.tree.map(np.testing.assert_array_equal, load(str(home)), merged)
  assert any(np.any(a != b) for a, b in zip(*(map(jax.tree.leaves, (wanted, load("scratch")))), strict=True))


def test_adapters_upon_adapters_find_the_step_they_began_with(upon, experiment, load):
  below, above, _ = upon
  told = json.loads((above / "base.json").read_text())
  assert told["start"] == f"{below}@2"
  base, fingerprint = initial_params.adapter_base(above, str(below), experiment.model, 0, experiment.mesh)
  assert fingerprint == told["fingerprint"]
  jax.tree.map(np.testing.assert_array_equal, base, load(str(below)))
  moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), base, load(str(above)))
  assert moved["layers"]["block"]["mlp"]["up"]["kernel"] and not moved["layers"]["block"]["attn"]["q"]["kernel"]


def break_fingerprint(below, above):
  (above / "base.json").write_text(json.dumps({"start": f"{below}@2", "fingerprint": "another"}))


def tear_record(below, above):
  (above / "base.json").write_text("{")


def lose_base(below, above):
  shutil.rmtree(below / "checkpoints")
  (below / "checkpoints").mkdir()


@pytest.mark.parametrize("break_it, message", [
    (break_fingerprint, r"holds adapters alone, trained on \S+below@2; \S+below@2 holds other numbers now"),
    (tear_record, r"base.json, which names their base, is missing or torn"),
    (lose_base, "their base is gone: .*below.* has no checkpoint yet: .* Put it back")])
def test_adapters_without_their_base_are_refused(upon, experiment, run_of, tiny, tmp_path, break_it, message):
  below, above = (shutil.copytree(path, tmp_path / path.name) for path in upon[:2])
  text = (above / "config.json").read_text().replace(str(upon[0]), str(below))
  (above / "config.json").write_text(text)
  (above / "base.json").write_text((above / "base.json").read_text().replace(str(upon[0]), str(below)))
  break_it(below, above)
  with pytest.raises(ConfigError, match=message):
    initial_params.load_start(str(above), experiment.model, 0, experiment.mesh)
  if break_it is not lose_base:   # there the start of the config itself is missing, which is told before
    (above / "progress.json").unlink()
    config = tiny("lora", start=below, steps=1, lora__rank=1, lora__targets="('*mlp/*',)", evals__variants="()")
    with pytest.raises(ConfigError, match=message):
      run_of(config, above)


def test_what_trains_a_model_has_no_adapters(finished, tmp_path):
  assert initial_params.adapters_of(finished("sft")) is None and initial_params.adapters_of(tmp_path) is None
  assert initial_params.adapters_of(finished("lora")) == lora.LoraConfig(rank=2)


BASE = {"start": "base:general_points_0", "model__width": 64, "model__layers": 3, "model__heads": 4, "model__unroll": 3,
        "env__attempts": 1, "batch": 32, "rollout__rows": 32, "evals__variants": "()", "log__episodes": 32}


def test_where_the_start_plays_what_was_learned_changes_no_episode(tiny, run_of, lines_of, tmp_path):
  """Self-SFT of a base that is often right, at a rate that changes it in one iteration."""
  second = {}
  for sampler, rate in (("start", 1e-2), ("start", 1e-9), ("policy", 1e-2), ("policy", 1e-9)):
    workdir = tmp_path / f"{sampler}{rate}"
    run_of(tiny("self_sft", **BASE, self_sft__sampler=sampler, optimizer__learning_rate=rate, schedule__warmup=0),
           workdir)
    episodes = lines_of(workdir, "episodes.jsonl")
    second[sampler, rate] = [line["chat"] for line in episodes if line["kind"] == "train" and line["step"] == 2]
    assert len(second[sampler, rate]) == 32
  assert second["start", 1e-2] == second["start", 1e-9] == second["policy", 1e-9]
  assert second["policy", 1e-2] != second["policy", 1e-9]
