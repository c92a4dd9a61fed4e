"""An experiment says of itself what its config says, and has what its kind needs."""

import jax
import numpy as np
import orbax.checkpoint as ocp
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


def test_prompts_are_shared_where_microbatches_have_whole_groups(tiny, rewriters):
  make = lambda method="grpo", **own: build_experiment(
      tiny(method, **{"compute__share_prompts": True, "evals__variants": "()", **own}), "rl")
  experiment = make()
  shared = experiment.shared_prompts
  assert (shared.prompt, shared.group) == (experiment.actor.rollout.prompt_tokens - 1, 4)
  assert not any("share_prompts" in note for note in experiment.notes)
  for because, other in {
      "a microbatch has 2 rows on 1 devices": make(compute__microbatches=4),
      "compute.exact is True": make(compute__exact=True),
      "the environment rewrites its prompt": make(env__name=f"{rewriters}:Hands", env__attempts=4)}.items():
    assert other.shared_prompts is None and because in other.whole_rows_because
    assert sum(f"computed with its own prompt, for {because}" in note for note in other.notes) == 1
  # Beside long responses short prompts save less than whole groups are padded, however much room they have.
  short = make(rollout__max_new_tokens=64, rollout__prompt_tokens=100)
  assert 0 < short.usual_prompt < 20
  for silent in (make(compute__share_prompts=False), make("rl"), make("self_sft"), short):
    assert silent.shared_prompts is None and not any("share_prompts" in note for note in silent.notes)


def params_of(workdir, step):
  path = workdir / "checkpoints" / str(step) / "state"
  return jax.device_get(ocp.StandardCheckpointer().restore(path.absolute()))["params"]


# Adam divides by the size of a gradient, and so makes its rounding as large as itself.
SGD = {"optimizer__name": "sgd", "optimizer__learning_rate": 0.1, "schedule__warmup": 0}


@pytest.mark.parametrize("method, own", [
    ("grpo", {"batch": 16, "rollout__rows": 16, "grpo__minibatches": 2, "grpo__mean": "sequence"}),
    ("rloo", {"compute__lengths": 2})], ids=["grpo, scored, two minibatches", "rloo, not scored"])
def test_a_run_learns_from_shared_prompts_what_it_learns_from_whole_rows(
    tiny, run_of, lines_of, tmp_path, method, own):
  changes = {**own, **SGD, "evals__variants": "()", "checkpoint__every": 1, "steps": 1}
  for name, share in (("shared", True), ("whole", False)):
    run_of(tiny(method, compute__share_prompts=share, **changes), tmp_path / name)
  shared, whole = (lines_of(tmp_path / name, "metrics.jsonl")[0] for name in ("shared", "whole"))
  assert shared.keys() == whole.keys() and shared["compute/real_share"] > 0
  assert shared["compute/train_flops"] < whole["compute/train_flops"]
  assert shared["compute/score_flops"] < whole["compute/score_flops"] or method == "rloo"
  assert shared["sampling/sampling_logp_difference/max"] < 1e-4
  if method == "rloo":   # one update, whose batch does not depend on how it is shuffled
    nearly = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)
    jax.tree.map(nearly, *(params_of(tmp_path / name, 1) for name in ("shared", "whole")))
    alike = ("loss", "policy", "grad_norm", "val", "objective", "reward", "success", "label_tokens", "groups")
    for key in shared:
      if key.startswith(alike):
        assert shared[key] == pytest.approx(whole[key], rel=1e-3, abs=1e-5), key
