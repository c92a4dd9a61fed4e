"""A run on a slice of TPU that is not here, by the real compiler."""

import json

import jax
import pytest

from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.plan import options, suggestions, topology, tpu_slice

pytest.importorskip("libtpu")


@pytest.fixture(scope="module")
def config(tiny):
  return tiny("sft", evals__variants="()", model__dtype="bfloat16", compute__microbatches="2", model__layers="8",
              model__remat="light", model__mlp_dim="2048", data__length="256", batch="16")


@pytest.fixture(scope="module")
def plan(config, tmp_path_factory):
  """The content of plan.json of a tiny SFT on four chips; the environment is restored."""
  path = tmp_path_factory.mktemp("plan") / "plan.json"
  with pytest.MonkeyPatch.context() as patch:
    for name, value in topology.ENVIRONMENT.items():
      patch.setenv(name, value)
    before = jax.config.jax_enable_compilation_cache
    where = topology.parse("v5e-4")
    tpu_slice.run(config, options.PlanOptions("sft", where, out=str(path), price=2.0, show="sharding"))
    jax.config.update("jax_enable_compilation_cache", before)
  return json.loads(path.read_text())


def test_it_fits_and_says_what_it_promises(plan):
  assert plan["fits"] is True and plan["hbm_limit_gib"] == 15.75
  assert [line["name"] for line in plan["functions"]] == ["state", "train step"]
  for line in plan["functions"]:
    assert {"name", "peak_gib", "flops", "bytes", "seconds_bound"} <= line.keys() and line["peak_gib"] > 0
  assert plan["note"] == "compiled, not run" and (plan["chips"], plan["hosts"]) == (4, 1)


def test_a_train_step_on_four_chips_exchanges_and_its_cost_follows(plan):
  step = plan["functions"][1]
  assert step["collectives"] and step["sent_bytes"] > 0 and step["text_read"]
  assert plan["cost_bound"] == pytest.approx(2.0 * plan["chip_hours_bound"])
  assert plan["step_seconds_bound"] == pytest.approx(step["seconds_bound"])


def test_activations_that_are_offloaded_leave_the_device(config, plan, monkeypatch):
  for name, value in topology.ENVIRONMENT.items():
    monkeypatch.setenv(name, value)
  offloads = suggestions.changed(config, "sft", {"model.remat": "offload"})
  offloaded = tpu_slice.make_plan(offloads, "sft", topology.parse("v5e-4"), only=("train step",)).functions[0]
  saved = plan["functions"][1]
  assert offloaded.host > 0 == saved["host_gib"] and offloaded.flops == saved["flops"]
  assert offloaded.peak / GIB < saved["peak_gib"]


def test_only_some_functions_can_be_weighed_and_none_compiled(config, monkeypatch):
  for name, value in topology.ENVIRONMENT.items():
    monkeypatch.setenv(name, value)
  plan = tpu_slice.make_plan(config, "sft", topology.parse("v5e-4"), only=("train step",), arguments_only=True)
  assert [function.name for function in plan.functions] == ["train step"] and plan.functions[0].temporaries == 0
  assert plan.fits and plan.experiment.mesh.size == 4
