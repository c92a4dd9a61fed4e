"""On local devices a plan is measured; no test depends on how long that takes."""

import json

import jax
import pytest

from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.programs.bench.machine_peak import MachinePeak
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.plan import local
from sftrl_jax.programs.plan.jitted_functions import PlannedFunction
from sftrl_jax.programs.plan.options import PlanOptions


def test_smaller_models_are_a_quarter_and_a_half():
  assert local.smaller(32) == [8, 16] and local.smaller(3) == [1, 2] and local.smaller(2) == []


def test_a_prediction_adds_as_much_a_layer_as_was_measured():
  times = {2: {"f": 1.0, "g": 1.0}, 4: {"f": 2.0, "h": 1.0}}
  assert local.predict(times, 8, "f") == 4.0
  assert [local.predict(*known) for known in ((times, 8, "g"), (times, 8, "h"), ({}, 8, "f"))] == [None] * 3
  assert local.predict({1: {"f": 1.0}, 2: {"f": 0.9}}, 9, "f") == 1.0   # noise is not extrapolated below zero


def test_every_function_runs_and_is_written_beside_its_prediction(tiny, tmp_path, monkeypatch):
  monkeypatch.setattr(local.machine_peak, "measure", lambda: MachinePeak(1e9, 1e9, 1e9, "cpu", 1, 1))
  monkeypatch.setattr(local, "REPEATS", 2)
  path = tmp_path / "plan.json"
  local.run(tiny("sft", evals__variants="()", model__layers="3"), PlanOptions("sft", out=str(path)))
  plan = json.loads(path.read_text())
  assert plan["fits"] is True and plan["predicted_from_layers"] == [1, 2] and plan["hbm_limit_gib"] > 0
  assert [line["name"] for line in plan["functions"]] == ["state", "train step"]
  for line in plan["functions"]:
    assert {"name", "peak_gib", "flops", "bytes", "seconds_bound", "predicted_seconds"} <= line.keys()
    assert line["measured_seconds"] > 0 and line["ran"]


def test_rows_are_measured_without_padding_which_would_cost_nothing():
  mesh = meshes.make(meshes.MeshConfig(), jax.devices()[:1])
  shape = lambda dtype: jax.ShapeDtypeStruct((2, 3), dtype, sharding=meshes.replicated(mesh))
  arguments = ("batch", shape("int32")), ("batch", shape("float32")), ("cache", shape("int32"))
  segments, weights, kept = local.real_arguments(PlannedFunction("f", None, arguments), mesh)
  assert (segments == 1).all() and not weights.any() and not kept.any()


def test_what_only_a_slice_has_is_refused_here(tiny):
  with pytest.raises(ConfigError, match="need a slice"):
    local.run(tiny("sft"), PlanOptions("sft", show="sharding"))
