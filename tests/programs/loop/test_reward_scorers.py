"""A reward model in RL: what its scorer reads and refuses, and whole runs that learn from it, PPO and GRPO, in small.

In the first tests its parameters are random; in the runs it is trained here.
"""

import dataclasses
import json
import math
import random

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from sftrl_jax import trees
from sftrl_jax.envs.env import Verdict
from sftrl_jax.inputs import right_pad
from sftrl_jax.programs import preference
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.evaluate import run as evaluate
from sftrl_jax.programs.experiment import memory, run_config
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.environment import make_env
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.loop.reward_scorers import RECORD, make_scorer
from sftrl_jax.programs.plan import jitted_functions
from sftrl_jax.programs.start import trainable
from sftrl_jax.rollout.episodes import Episode, Response, Turn
from sftrl_jax.training.score import CRITIC

WORD = "+"   # that the reward model is to prefer
UNPAID = '''
import dataclasses
from sftrl_jax.envs.general_points.env import GeneralPoints


@dataclasses.dataclass(frozen=True)
class Unpaid(GeneralPoints):
  """Pays nothing, and does not say what is right."""

  verifies = False

  def step(self, state, response):
    state, verdict = super().step(state, response)
    return state, dataclasses.replace(verdict, reward=None)
'''


@pytest.fixture(scope="module")
def experiment(tiny, reward_home, tmp_path_factory):
  home = reward_home(tmp_path_factory.mktemp("reward") / "run", bias=0.1)
  return build_experiment(tiny("rl", reward="", reward_model__start=home, reward_model__missing_eos=-1.5), "rl")


@pytest.fixture(scope="module")
def scorer(experiment, tmp_path_factory):
  return make_scorer(experiment, tmp_path_factory.mktemp("scored"))


def played(seed, count):
  """Episodes of 0 to 2 turns of random ids, some of whose responses were cut."""
  random, episodes = np.random.default_rng(seed), []
  ids = lambda most: tuple(random.integers(3, 30, random.integers(1, most + 1)).tolist())
  for number in range(count):
    turns = [Turn(Response("", ids(11 if not turn else 2), tokens := ids(13), (-1.0,) * len(tokens),
                           bool(random.random() < 0.7)),
                  Verdict(None, False, True, False, False, "", None, "value")) for turn in range(number % 3)]
    episodes.append(Episode(number, tuple(turns), (), True))
  return episodes


def test_rewards_are_those_of_each_chat_alone_in_float64(experiment, scorer):
  episodes = played(0, 20)   # in three calls of 8
  scored = scorer(episodes)
  reward = experiment.reward_model
  params, _ = reward.load(experiment.mesh)
  hidden = jax.jit(lambda tokens: reward.model.hidden(params["model"], tokens))
  kernel, bias = (np.asarray(params["value"][name], np.float64) for name in ("kernel", "bias"))
  outside, count = 0, 0
  for episode, rewards in zip(episodes, scored.rewards, strict=True):
    assert len(rewards) == len(episode.turns)
    ids = []
    for turn, got in zip(episode.turns, rewards, strict=True):
      ids += [*turn.response.context, *turn.response.tokens]
      state = np.asarray(hidden(right_pad([ids], 40))[0, len(ids) - 1], np.float64)
      want = (state @ kernel + bias - 0.2) / 2.0
      outside, count = outside + (not -0.5 <= want <= 9.0), count + 1
      assert got == pytest.approx(want if turn.response.stopped else -1.5, abs=1e-5)
  numbers = scored.numbers["reward_model/outside"]
  assert (numbers.total, numbers.weight) == (outside, count) and 0 < outside < count
  longer = scorer(played(0, 24)).flops
  assert longer == scored.flops > scorer(played(0, 8)).flops > 0   # what is computed is charged


def test_a_score_that_is_no_number_abstains(experiment, reward_home, tmp_path):
  home = reward_home(tmp_path / "run", bias=math.nan)
  reward = dataclasses.replace(experiment.reward_model, home=home)
  scored = make_scorer(dataclasses.replace(experiment, reward_model=reward), tmp_path)(played(1, 6))
  stopped = [turn.response.stopped for episode in played(1, 6) for turn in episode.turns]
  rewards = [reward for rewards in scored.rewards for reward in rewards]
  assert [reward is None for reward in rewards] == stopped and any(stopped)


def test_another_reward_model_is_refused(experiment, tmp_path):
  make_scorer(experiment, tmp_path)
  record = json.loads((tmp_path / RECORD).read_text())
  assert record["start"].endswith("@60") and record["scale"]["sd"] == 2.0
  make_scorer(experiment, tmp_path)
  other = dataclasses.replace(experiment.reward_model.scale, sd=3.0)
  changed = dataclasses.replace(experiment, reward_model=dataclasses.replace(experiment.reward_model, scale=other))
  with pytest.raises(ConfigError, match="began with the rewards of .*@60, whose scale differ"):
    make_scorer(changed, tmp_path)
  (tmp_path / RECORD).write_text(json.dumps({**record, "fingerprint": "another"}))
  with pytest.raises(ConfigError, match="whose fingerprint differ"):
    make_scorer(experiment, tmp_path)


def test_without_a_reward_model_there_is_no_scorer(tiny, tmp_path):
  assert make_scorer(build_experiment(tiny("rl"), "rl"), tmp_path) is None


def test_plan_and_the_memory_check_count_the_reward_model(experiment):
  held = memory.held(experiment, KINDS["rl"].make_learner(experiment))
  params, _ = experiment.reward_model.load(experiment.mesh)
  assert held["reward model"] == 4 * trees.size(params) and held["reference"] == held["parameters"]
  seen = []

  def handle(function):
    seen.append(function)
    return function.name, jitted_functions.guess_results(function, experiment.mesh)

  for name in jitted_functions.for_each(experiment, handle):
    if name == "score":
      break
  assert [function.name for function in seen] == ["state", "reward model", "score"]
  assert "reward model" in dict(seen[1].arguments) and "reward model" in dict(seen[2].resident)


@pytest.fixture(scope="module")
def rewarded(tiny, tmp_path_factory):
  """The workdir of a reward model that prefers WORD."""
  section, home = tiny("rl").env.to_dict(), tmp_path_factory.mktemp("rewarded")
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
  config = ConfigDict(dict(
      steps=40, batch=4, env=section, tokenizer=dict(name="words"), start="scratch", objective="reward",
      model=dict(width=16, layers=1, heads=2, mlp="plain", activation="relu"),
      data=dict(path=str(path), length=96), evals=dict(variants=()),
      optimizer=dict(name="adamw", learning_rate=3e-2), log=dict(writers=(), report=False), mesh=dict(cpu_threads=0)))
  preference.run(run_config.resolve_for("preference", config, [], lambda _: None), home / "run")
  return home / "run"


@pytest.fixture(scope="module")
def rlhf(tiny, rewarded):
  """rlhf(method, **overrides) -> the config of a run by the reward model, whose KL is adapted. The critic of PPO has a
  trunk of its own, which begins as the reward model's."""
  own = {"rl": {"ppo__kl_coef": 0.02, "ppo__kl_target": 5.0, "ppo__kl_horizon": 64, "ppo__gae_lambda": 0.95,
                "ppo__critic": "own", "reward_model__critic": True},
         "grpo": {"grpo__kl_coef": 0.02, "grpo__kl_target": 1e-3, "grpo__kl_horizon": 64, "evals__variants": "()"}}
  return lambda method, **overrides: tiny(method, **{
      "reward": "", "reward_model__start": rewarded, "batch": 16, "rollout__rows": 16, "rollout__shrink": "()",
      "env__attempts": 1, "steps": 10, "optimizer__learning_rate": 0.05, "schedule__warmup": 1,
      "evals__variants": "('id_seen',)", "evals__at": "()", "checkpoint__every": 5, **own[method], **overrides})


@pytest.fixture(scope="module")
def straight(rlhf, run_of, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("rlhf") / "straight"
  run_of(rlhf("rl"), workdir)
  return workdir


def test_the_policy_learns_what_the_reward_model_prefers(straight, lines_of):
  lines = lines_of(straight, "metrics.jsonl")
  assert all(math.isfinite(value) for line in lines for value in line.values())
  scores = [line["objective/scores"] for line in lines]
  assert np.mean(scores[-3:]) > np.mean(scores[:3]) + 0.5
  share = lambda line: np.mean([word == WORD for message in line["chat"] if message["role"] == "assistant"
                                for word in message["text"].split()])
  episodes = [line for line in lines_of(straight, "episodes.jsonl") if line["kind"] == "train"]
  assert np.mean(list(map(share, episodes[-6:]))) > np.mean(list(map(share, episodes[:6])))
  assert len({line["compile/count"] for line in lines}) == 1   # the reward model's program too


def test_a_critic_of_its_own_begins_as_the_reward_model_and_leaves_the_policy_its_trunk(straight, rlhf, rewarded):
  experiment = build_experiment(rlhf("rl"), "rl")
  with jax.set_mesh(experiment.mesh):
    policy, trained, _ = trainable.init_trainable(experiment, straight)
    rewarding, _ = experiment.reward_model.load(experiment.mesh)
  jax.tree.map(np.testing.assert_array_equal, trained[CRITIC]["model"], rewarding["model"])
  jax.tree.map(np.testing.assert_array_equal, trained["model"], policy)
  cost = {own: KINDS["rl"].make_learner(build_experiment(rlhf("rl", ppo__critic=own), "rl")).flops
          for own in ("own", "shared")}
  assert 1.5 < cost["own"].train / cost["shared"].train < 2 and cost["own"].score > cost["shared"].score
  held = {own: memory.held(build_experiment(rlhf("rl", ppo__critic=own), "rl"), KINDS["rl"].make_learner(experiment))
          for own in ("own", "shared")}
  assert held["own"]["parameters"] == 2 * held["shared"]["parameters"] == 8 * trees.size(policy)


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
    error = min(max(line["objective/kl_response"] / 5.0 - 1, -0.2), 0.2)
    assert after == pytest.approx(before * (1 + error * 16 / 64), rel=1e-6)
  for line in lines:
    assert line["objective/non_score_reward"] == pytest.approx(-line["objective/kl_coef"] * line["objective/kl"])
    assert line["objective/rlhf_reward"] == pytest.approx(line["objective/scores"] + line["objective/non_score_reward"])


def test_a_run_that_was_stopped_has_the_bits_of_one_that_was_not(straight, rlhf, run_of, lines_of, tmp_path):
  run_of(rlhf("rl", steps=5), tmp_path)
  evals = lines_of(tmp_path, "evals.jsonl")
  run_of(rlhf("rl"), tmp_path)
  timed = ("timing_s", "throughput", "memory", "seconds", "compute/chip", "compile")
  same = lambda home, name: [{key: value for key, value in line.items() if not key.startswith(timed)}
                             for line in lines_of(home, name)]
  assert same(tmp_path, "metrics.jsonl") == same(straight, "metrics.jsonl")
  whole = [line for line in same(tmp_path, "evals.jsonl") if line["step"] != 5]
  assert whole == same(straight, "evals.jsonl") and {line["step"] for line in evals} == {0, 5}


def test_an_environment_that_pays_nothing_is_learned_from_by_groups_and_measured_by_scores(
    rlhf, rewarded, run_of, lines_of, tmp_path, capsys):
  file = tmp_path / "unpaid.py"
  file.write_text(UNPAID)
  run_of(rlhf("grpo", env__name=f"{file}:Unpaid", steps=2, grpo__max_rounds=2, grpo__filter_by="reward",
              evals__variants="('id_seen',)", evals__episodes=16), tmp_path / "run")
  for line in lines_of(tmp_path / "run", "metrics.jsonl"):
    assert "objective/gold" not in line and math.isfinite(line["objective/scores"]) and line["objective/kl"] > -1
    assert line["frac_reward_zero_std"] < 1 and "objective/non_score_reward" not in line   # the KL is in the loss
  coefs = [line["objective/kl_coef"] for line in lines_of(tmp_path / "run", "metrics.jsonl")]
  assert coefs == pytest.approx([0.02, 0.02 * (1 - 0.2 * 16 / 64)])   # the first KL is 0
  last = lines_of(tmp_path / "run", "evals.jsonl")[-2:]
  assert all(line["verifies"] is False and "reward" not in line and math.isfinite(line["proxy"]) for line in last)
  assert f"id_seen/T1 score {last[1]['proxy']:.3g}  (" in capsys.readouterr().out   # and no success of 0%
  again = evaluate.run(str(tmp_path / "run"), [])
  assert [line["proxy"] for line in again] == [line["proxy"] for line in last]
  assert f"{last[1]['proxy']:.3g}" in capsys.readouterr().out.splitlines()[-2]
  config = json.loads((tmp_path / "run" / "config.json").read_text())
  config["reward_model"]["start"] = str(tmp_path / "gone")
  (tmp_path / "run" / "config.json").write_text(json.dumps(config))
  assert all("proxy" not in line for line in evaluate.run(str(tmp_path / "run"), []))
  assert "is not there: its scores are left out" in capsys.readouterr().out
