"""An experiment says of itself what its config says, and has what its kind needs."""

import pytest

from sftrl_jax.data.demonstrations import DemonstrationsConfig
from sftrl_jax.objectives.grpo import GRPOConfig
from sftrl_jax.objectives.ppo import PPOConfig
from sftrl_jax.programs.experiment.build import build_experiment


@pytest.mark.parametrize("method, verb, section, value_head", [
    ("sft", "sft", None, False), ("rl", "rl", PPOConfig, True), ("grpo", "rl", GRPOConfig, False)])
def test_its_properties_are_those_of_the_config(tiny, method, verb, section, value_head):
  experiment = build_experiment(tiny(method, seed=3, batch=8), verb)
  assert (experiment.seed, experiment.batch, experiment.start, experiment.verb) == (3, 8, "scratch", verb)
  assert (experiment.head_layers is not None) is value_head and experiment.has_env and experiment.objective is None
  assert (experiment.algorithm is None) == (section is None) == isinstance(experiment.data, DemonstrationsConfig)
  assert section is None or type(experiment.algorithm_config) is section is experiment.algorithm.section
  assert experiment.limits.steps == experiment.config["steps"]


def test_a_variant_has_the_fields_of_evaluations(tiny):
  experiment = build_experiment(tiny("sft", **{"evals__env.attempts": 1}), "sft")
  assert experiment.env.attempts == 2 and experiment.env_variant("rule_ood").attempts == 1
  assert experiment.env_variant("rule_ood").variant == "rule_ood"
