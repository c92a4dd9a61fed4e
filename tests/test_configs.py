"""What SFT and RL are compared on is the same, word for word; only what belongs to a method may differ."""

import dataclasses
import pathlib

import pytest

from sftrl_jax.checkpoints import families
from sftrl_jax.models.vision.mllama.model import MllamaConfig
from sftrl_jax.programs.cli import experiments
from sftrl_jax.programs.config import nested, resolve
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.start.pretrained import PretrainedConfig

ROOT = pathlib.Path(__file__).parents[1]

# What may differ between two methods of a study, and why. Whatever else differed would be a second cause.
METHOD = {
    "data": "what SFT is shown; RL has no demonstrations",
    "sft": "the objective of SFT",
    "algorithm": "which method of RL; SFT has none",
    "ppo": "the objective of RL",
    "grpo": "the objective of RL, by groups",
    "objective": "that of learning from pairs",
    "dpo": "the objective of learning from pairs",
    "rloo": "the objective of RL, by groups",
    "reinforce_plus_plus": "the objective of RL, without a value function",
    "distill": "the objective of learning from a teacher",
    "teacher": "whose distribution is learned; SFT has none",
    "self_sft": "the objective of imitating its own right responses",
    "dagger": "the objective of imitating the expert at its own states",
    "batch": "rows of packed demonstrations here, episodes there: another unit",
    "steps": "updates here, iterations there: another unit; both are ended by the same FLOPs",
    "reward_model": "what scores the episodes of RL; SFT has none",
    "max_without_signal": "of rewards, which SFT has none of",
    "optimizer.learning_rate": "a rate is good for a loss, not for a task",
    "optimizer.args": "as the rate",
    "optimizer.factors.value/*": "of the value head, which SFT has none of",
    "ema": "an average beside the run, which training does not read",
    "schedule": "counts updates, of which the methods make different numbers",
    "compute": "how a batch is cut into pieces: speed and rounding",
    "checkpoint": "counts steps: another unit; what is kept does not change what is trained",
    "log": "counts steps: another unit",
}
# What a study compares, by its file, where that is no method: it says so in its overrides.
COMPARED = {"configs/study/settings/attempts_cpu.py": "env.attempts",
            **dict.fromkeys(("configs/study/adaptability_cpu.py", "configs/study/adaptability_cpu.py:quick"),
                            "env.faces"),
            **dict.fromkeys((f"configs/study/continuum.py{choice}" for choice in (
                "", ":quick", ":targets")), "env.attempts"),
            "configs/study/general_points_vl_cpu.py:arms": "optimizer.freeze"}
STUDIES = [experiments.config_of(command) for entry in experiments.find(ROOT / "configs") for command in entry.commands
           if command.split()[1] == "study"]


def resolved(spec, overrides=()):
  config = resolve.load(spec)
  verb = run_config.verb_of(config, overrides)
  return run_config.resolve_for(verb, config, list(overrides), lambda _: None)


def alien(one, other):
  """Keys in which two configs differ and may not."""
  differing = [key for key, *values in resolve.differences(one, other) if {} not in values]   # {}: its keys differ
  return [key for key in differing if not any(key == free or key.startswith(f"{free}.") for free in METHOD)]


@pytest.mark.parametrize("spec", STUDIES)
def test_the_methods_of_a_study_differ_in_nothing_but_the_method(spec, monkeypatch):
  monkeypatch.chdir(ROOT)
  study = resolve.load(spec).study.to_dict()
  overrides = {method: nested.flat(changed) for method, changed in study.get("overrides", {}).items()}
  used = {method: nested.flat(keys) for method, keys in study.get("uses", {}).items()}
  budget = {"flops": study["flops"]} if study.get("flops") else {}
  configs = {method: resolved(path, [(key, str(value)) for key, value in
                                     {**budget, **used.get(method, {}), **overrides.get(method, {})}.items()])
             for method, path in study["methods"].items()}
  changed_keys = {key for changed in overrides.values() for key in changed}
  swapped, budgeted = "optimizer.name" in changed_keys, "flops" in changed_keys   # the report names such a budget
  assert len(configs) > 1
  first, *rest = configs.values()
  for other in rest:   # where the optimizer is the method, it may differ; nothing else may
    assert not [key for key in alien(first, other) if key != COMPARED.get(spec)
                and not (swapped and key.startswith("optimizer.")) and not (budgeted and key == "flops")]


def test_another_task_model_or_evaluation_would_be_seen(monkeypatch):
  monkeypatch.chdir(ROOT)
  sft = resolved("configs/general_points/sft.py")
  for override in (("env.cards", "4"), ("model.width", "128"), ("evals.episodes", "7"), ("start", "scratch"),
                   ("rollout.max_new_tokens", "20"), ("flops", "1e12"), ("optimizer.name", "lion"), ("seed", "5")):
    assert alien(resolved("configs/general_points/ppo.py", [override]), sft) == [override[0]]


def test_both_come_from_the_one_function_of_their_task(monkeypatch):
  """A change of the task function reaches both."""
  monkeypatch.chdir(ROOT)
  for name in ("sft", "ppo", "grpo"):
    resolve.load(f"configs/general_points/{name}.py")
    from configs.general_points import task
    shared = task.shared
    monkeypatch.setattr(task, "shared", lambda *choice, shared=shared: shared(*choice, cards=5))
    assert resolve.load(f"configs/general_points/{name}.py").env.cards == 5
    monkeypatch.undo()
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("spec", [
    *(f"configs/general_points/{name}" for name in ("ppo.py", "ppo.py:five_cards", "grpo.py")), "configs/virl/ppo.py",
    "configs/virl/grpo.py", "configs/examples/sort_numbers.py:rl"])
def test_published_figures_are_of_rows_of_one_length(spec, monkeypatch):
  """What a microbatch computes is charged, so another number of lengths is another number of updates at equal FLOPs."""
  monkeypatch.chdir(ROOT)
  assert resolved(spec).compute.lengths == 1 < resolved("configs/pod/ppo.py").compute.lengths


def test_the_papers_model_in_numbers_is_the_one_that_transformers_describes():
  """Llama-3.2-11B-Vision-Instruct is transformers' default, but for its tiles and its rotary positions."""
  from configs.paper.setup.models import LLAMA_VISION
  rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
  described = families.describe({"model_type": "mllama", "text_config": {"rope_scaling": rope},
                                 "vision_config": {"image_size": 560}})
  ours = MllamaConfig(**{key: value for key, value in LLAMA_VISION.items() if key != "name"})
  free = {field.name for field in dataclasses.fields(PretrainedConfig)} | {"image_id", "image_mean", "image_std"}
  for field in dataclasses.fields(MllamaConfig):
    assert field.name in free or getattr(ours, field.name) == getattr(described, field.name), field.name
