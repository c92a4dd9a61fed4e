"""A run on a slice of TPU that is not here, by the real compiler."""

import json

import jax
import pytest

from sftrl_jax.programs.plan import options, topology, tpu_slice

pytest.importorskip("libtpu")


@pytest.fixture(scope="module")
def config(tiny):
  return tiny("sft", evals__variants="()", model__dtype="bfloat16", compute__microbatches="2", model__layers="2")


@pytest.fixture(scope="module")
def told(config, tmp_path_factory):
  """What plan.json of a tiny SFT on four chips holds; the environment is given back."""
  path = tmp_path_factory.mktemp("plan") / "plan.json"
  with pytest.MonkeyPatch.context() as patch:
    for name, value in topology.ENVIRONMENT.items():
      patch.setenv(name, value)
    before = jax.config.jax_enable_compilation_cache
    tpu_slice.run(config, options.PlanOptions("sft", topology.parse("v5e-4"), out=str(path), price=2.0, show="sharding"))
    jax.config.update("jax_enable_compilation_cache", before)
  return json.loads(path.read_text())


def test_it_fits_and_says_what_it_promises(told):
  assert told["fits"] is True and told["hbm_limit_gib"] == 15.75
  assert [one["name"] for one in told["functions"]] == ["state", "train step"]
  for one in told["functions"]:
    assert {"name", "peak_gib", "flops", "bytes", "seconds_bound"} <= one.keys() and one["peak_gib"] > 0
  assert told["note"] == "compiled, not run" and (told["chips"], told["hosts"]) == (4, 1)


def test_a_train_step_on_four_chips_exchanges_and_its_cost_follows(told):
  step = told["functions"][1]
  assert step["collectives"] and step["sent_bytes"] > 0 and step["text_read"]
  assert told["cost_bound"] == pytest.approx(2.0 * told["chip_hours_bound"])
  assert told["step_seconds_bound"] == pytest.approx(step["seconds_bound"])


def test_only_some_functions_can_be_weighed_and_none_compiled(config, monkeypatch):
  for name, value in topology.ENVIRONMENT.items():
    monkeypatch.setenv(name, value)
  made = tpu_slice.make(config, "sft", topology.parse("v5e-4"), only=("train step",), arguments_only=True)
  assert [one.name for one in made.functions] == ["train step"] and made.functions[0].temporaries == 0
  assert made.fits and made.experiment.mesh.size == 4
