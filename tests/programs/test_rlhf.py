"""Whole runs of RLHF in small: a reward model that is trained here, PPO and GRPO by its scores, gold beside proxy."""

import json
import math
import random

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from sftrl_jax.models import lora as lora_layers
from sftrl_jax.programs import preference
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.environment import make_env
from sftrl_jax.programs.start import initial_params

WORD = "+"   # that the reward model is to prefer
UNPAID = '''
from sftrl_jax.envs.general_points.env import GeneralPoints


@dataclasses.dataclass(frozen=True)
class Unpaid(GeneralPoints):
  """Says what is right and pays nothing."""

  def step(self, state, response):
    state, verdict = super().step(state, response)
    return state, dataclasses.replace(verdict, reward=None)
'''


@pytest.fixture(scope="module")
def rewarded(tiny, tmp_path_factory):
  """rewarded(**overrides) -> the workdir of a reward model that prefers WORD, trained once for each of them."""
  section, home, there = tiny("rl").env.to_dict(), tmp_path_factory.mktemp("rewarded"), {}
  env, source = make_env(section), random.Random(0)
  words = [word for word in env.words if word != WORD]
  rows = []
  for seed in range(48):
    answer = source.choices(words, k=source.randrange(3, 9))
    better = [WORD if source.random() < 0.5 else word for word in answer]
    better[source.randrange(len(better))] = WORD
    rows.append({"prompt": env.reset(seed)[1][-1].text, "chosen": " ".join(better), "rejected": " ".join(answer)})
  path = home / "pairs.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  base = dict(steps=60, batch=4, env=section, tokenizer=dict(name="words"), start="scratch", objective="reward",
              model=dict(width=16, layers=1, heads=2), data=dict(path=str(path), length=96), evals=dict(variants=()),
              optimizer=dict(name="adamw", learning_rate=2e-2), log=dict(writers=(), report=False),
              mesh=dict(cpu_threads=0))

  def make(**overrides):
    name = "-".join([f"{key}={value}" for key, value in overrides.items()]) or "whole"
    if name not in there:
      changed = [(key.replace("__", "."), str(value)) for key, value in overrides.items()]
      there[name] = home / name
      preference.run(run_config.resolve_for("preference", ConfigDict(base), changed, lambda _: None), there[name])
    return there[name]

  return make


@pytest.fixture(scope="module")
def rlhf(tiny, rewarded):
  """rlhf(method, **overrides) -> the config of a run by the reward model, whose KL is adapted."""
  own = {"rl": {"ppo__kl_coef": 0.02, "ppo__kl_target": 1.0, "ppo__kl_horizon": 64, "ppo__gae_lambda": 0.95},
         "grpo": {"grpo__kl_coef": 0.02, "evals__variants": "()"}}
  return lambda method, **overrides: tiny(method, **{
      "reward": "", "reward_model__start": rewarded(), "reward_model__missing_eos": -1.5, "batch": 16,
      "rollout__rows": 16, "steps": 10, "optimizer__learning_rate": 0.02, "schedule__warmup": 1,
      "evals__variants": "('id_seen',)", "evals__at": "()", "checkpoint__every": 5, **own[method], **overrides})


@pytest.fixture(scope="module")
def straight(rlhf, run_of, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("rlhf") / "straight"
  run_of(rlhf("rl", reward_model__critic=True), workdir)
  return workdir


def test_the_policy_learns_what_the_reward_model_prefers(straight, lines_of):
  lines = lines_of(straight, "metrics.jsonl")
  assert all(math.isfinite(value) for line in lines for value in line.values())
  assert lines[-1]["objective/scores"] > lines[0]["objective/scores"] + 0.5
  share = lambda line: np.mean([word == WORD for message in line["chat"] if message["role"] == "assistant"
                                for word in message["text"].split()])
  episodes = [line for line in lines_of(straight, "episodes.jsonl") if line["kind"] == "train"]
  assert np.mean(list(map(share, episodes[-6:]))) > np.mean(list(map(share, episodes[:6])))
  assert len({line["compile/count"] for line in lines}) == 1   # the reward model's program too


def test_gold_stands_beside_the_proxy(straight, lines_of):
  lines, evals = lines_of(straight, "metrics.jsonl"), lines_of(straight, "evals.jsonl")
  assert all(-1.2 <= line["objective/gold"] <= 1.0 for line in lines)   # of two attempts, by the environment
  for line in lines_of(straight, "episodes.jsonl"):
    assert len(line["rewards"]) == len(line["codes"]) and ("gold" in line) == (line["kind"] == "train")
    given = line["gold"] if line["kind"] == "train" else line["rewards"]
    assert all(reward in (1.0, -0.2, -0.4, -0.6) for reward in given)
  assert all(math.isfinite(line["proxy"]) and line["proxy_episodes"] == 16 and -1.2 <= line["reward"] <= 1.0
             for line in evals)
  sampled = [line["proxy"] for line in evals if line["temperature"] == 1.0]
  assert sampled[-1] > sampled[0]


def test_the_kl_is_measured_paid_for_and_its_coefficient_follows_it(straight, lines_of):
  lines = lines_of(straight, "metrics.jsonl")
  assert lines[0]["objective/kl"] == pytest.approx(0.0, abs=1e-5)
  coefs = [line["objective/kl_coef"] for line in lines]
  assert coefs[0] == pytest.approx(0.02)
  for line, before, after in zip(lines, coefs, coefs[1:], strict=False):
    error = min(max(line["objective/kl_response"] / 1.0 - 1, -0.2), 0.2)
    assert after == pytest.approx(before * (1 + error * 16 / 64), rel=1e-6)
  for line in lines:
    assert line["objective/non_score_reward"] == pytest.approx(-line["objective/kl_coef"] * line["objective/kl"])
    assert line["objective/rlhf_reward"] == pytest.approx(line["objective/scores"] + line["objective/non_score_reward"])


def test_a_run_that_was_stopped_has_the_bits_of_one_that_was_not(straight, rlhf, run_of, lines_of, tmp_path):
  run_of(rlhf("rl", reward_model__critic=True, steps=5), tmp_path)
  evals = lines_of(tmp_path, "evals.jsonl")
  run_of(rlhf("rl", reward_model__critic=True), tmp_path)
  timed = ("timing_s", "throughput", "seconds", "compute/chip", "compile")
  same = lambda home, name: [{key: value for key, value in line.items() if not key.startswith(timed)}
                             for line in lines_of(home, name)]
  assert same(tmp_path, "metrics.jsonl") == same(straight, "metrics.jsonl")
  whole = [line for line in same(tmp_path, "evals.jsonl") if line["step"] != 5]
  assert whole == same(straight, "evals.jsonl") and {line["step"] for line in evals} == {0, 5}


def test_an_environment_that_pays_nothing_is_learned_from_by_groups(rlhf, run_of, lines_of, tmp_path):
  file = tmp_path / "unpaid.py"
  file.write_text(UNPAID)
  run_of(rlhf("grpo", env__name=f"{file}:Unpaid", steps=2, grpo__max_rounds=2, grpo__filter_by="reward"),
         tmp_path / "run")
  for line in lines_of(tmp_path / "run", "metrics.jsonl"):
    assert "objective/gold" not in line and math.isfinite(line["objective/scores"]) and line["objective/kl"] > -1
    assert line["frac_reward_zero_std"] < 1 and "objective/non_score_reward" not in line   # the KL is in the loss


def test_a_reward_model_of_adapters_is_its_base_with_them(rlhf, rewarded):
  home = rewarded(lora__rank=2, steps=8)
  reward = build_experiment(rlhf("rl", reward_model__start=home), "rl").reward_model
  built = build_experiment(rlhf("rl"), "rl")
  params, fingerprint = reward.load(built.mesh)
  assert reward.lora.rank == 2 and fingerprint == reward.load(built.mesh)[1]
  base, _ = initial_params.adapter_base(home, "scratch", reward.model, 0, built.mesh)
  adapters, _ = initial_params.load_adapters(home, 8, reward.model, built.mesh, reward.lora)
  tokens = np.arange(12, dtype=np.int32)[None] % 9
  apply = jax.jit(lambda params: reward.model.apply(params, tokens))
  np.testing.assert_allclose(apply(params["model"]), apply(lora_layers.attach(base, adapters, reward.lora)), atol=1e-4)
