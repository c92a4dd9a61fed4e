"""The parts of a run tried: a stranger's task, model family and reward go through every check, and a model that decodes
otherwise than it trains is seen."""

import dataclasses

import pytest

from sftrl_jax.programs.check import plan_check, run_checks
from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.training.position import Limits

FAMILY = """
import dataclasses
import jax.numpy as jnp
from sftrl_jax.models import DecoderConfig, Model

class Scaled(Model):   # the logits are as sharp as the model learns to be
  def init(self, key):
    return {**super().init(key), "own": {"scale": jnp.ones(())}}

  def unembedding(self, params):
    return super().unembedding(params) * params["own"]["scale"] * self.config.gain

class Torn(Scaled):   # hidden alone is changed, so decoding is another model
  def hidden(self, params, inputs):
    return super().hidden(params, inputs)[:, :, ::-1]

@dataclasses.dataclass(frozen=True)
class Family(DecoderConfig):
  gain: float = 2.0
  torn: bool = False

  def build(self):
    return Torn(self) if self.torn else Scaled(self)

def half(chat, response, verdict):
  return verdict.reward / 2
"""


@pytest.fixture
def config(stranger, tmp_path, one_device):
  """config(choice, **overrides) -> a tiny run of the README's task with a family and a reward of the user's own."""
  (tmp_path / "mine.py").write_text(FAMILY)
  path = stranger(tmp_path)
  small = {"model.name": f"{tmp_path}/mine.py:Family", "reward": f"{tmp_path}/mine.py:half", "batch": "8",
           "model.layers": "1", "model.width": "16", "model.heads": "2", "rollout.rows": "8", "rollout.shrink": "()",
           "steps": "100", "evals.episodes": "64", "optimizer.name": "sgd", "data.length": "16"}

  def make(verb, **overrides):
    changed = {**small, **{key.replace("__", "."): value for key, value in overrides.items()}}
    changed = {key: value for key, value in changed.items() if verb == "sft" or not key.startswith("data")}
    return run_config.resolve_for(verb, resolve.load(f"{path}:{verb}"), list(changed.items()), lambda _: None)
  return make


def test_a_strangers_parts_agree_and_three_steps_are_timed(config, tmp_path):
  before = sorted(tmp_path.rglob("*"))
  planned = plan_check.PlannedStep(memory=1.0, seconds=1e4, predicted=True, chips=8, verb="sft")
  results = {result.name: result for result in run_checks.check_run(config("sft"), "sft", planned)}
  assert all(result.ok for result in results.values()), results
  assert list(results) == ["episodes played by the model", "decoding is the full forward", "sampler and trainer agree",
                         "the responses are trained", "3 steps", "as it was planned"]
  assert "times predicted" in results["as it was planned"].message
  assert results["decoding is the full forward"].message.startswith("100.00% of")
  assert "<bos> SORT" in results["the responses are trained"].message
  assert "all 100 take" in results["3 steps"].message and "GiB" in results["3 steps"].message
  assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in str(path)] == before


def test_a_model_that_decodes_otherwise_is_seen_and_a_failure_is_reported(config, monkeypatch):
  torn = config("rl", model__torn="true")

  def short(config, workdir):
    raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
  monkeypatch.setitem(run_checks.TRAINERS, "rl", short)
  results = {result.name: result for result in run_checks.check_run(torn, "rl")}
  assert not results["decoding is the full forward"].ok and not results["sampler and trainer agree"].ok
  assert "change hidden and extend alike" in results["decoding is the full forward"].way_out
  assert results["the responses are trained"].ok
  assert results["3 steps"].message.startswith("RESOURCE_EXHAUSTED") and "microbatches" in results["3 steps"].way_out


def test_how_long_a_run_is(config):
  experiment = build_experiment(config("sft"), "sft")
  for steps, flops, whole in ((100, 0.0, 100), (100, 1e6, 10), (5, 1e6, 5), (100, 1e6 + 1, 11)):
    assert run_checks.run_steps(dataclasses.replace(experiment, limits=Limits(steps, flops)), 1e5) == whole
  assert run_checks.describe_memory().endswith(" GiB in this process")
