"""A whole reinforcement-learning run in small."""

import itertools
import json
import math
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sftrl_jax import trees
from sftrl_jax.programs import rl
from sftrl_jax.programs.experiment import learner

CONTRACT = {"step", "tokens", "seconds", "compute/train_flops", "compute/rollout_flops", "compute/score_flops",
            "compute/total_flops", "objective/scores", "objective/kl", "policy/approxkl_avg", "policy/clipfrac_avg",
            "policy/entropy_avg", "loss/policy_avg", "loss/value_avg", "val/ratio", "critic/vf_explained_var",
            "sampling/sampling_logp_difference/mean", "sampling/sampling_logp_difference/p99",
            "sampling/sampling_logp_difference/max", "response_length/mean", "timing_s/rollout", "timing_s/verify",
            "timing_s/score", "timing_s/update", "timing_s/step", "compile/count", "success", "nonfinite_steps"}
OF_VALUES = {"loss/value_avg", "critic/vf_explained_var"}
OF_GROUPS = {"reward_std", "frac_reward_zero_std", "objective/scores_std", "label_tokens"}


@pytest.fixture(scope="module")
def lines(finished, lines_of):
  return lines_of(finished("rl"), "metrics.jsonl")


def test_every_iteration_is_written_with_the_keys_of_the_contract(lines):
  assert [line["step"] for line in lines] == [1, 2]
  for line in lines:
    assert line.keys() >= CONTRACT and all(math.isfinite(value) for value in line.values())
    parts = [line[f"compute/{name}_flops"] for name in ("train", "rollout", "score")]
    assert min(parts) > 0 and line["compute/total_flops"] == sum(parts)


def test_the_first_minibatch_is_on_policy(lines):
  for line in lines:   # one minibatch and one epoch: every iteration's only update is a first one
    assert line["val/ratio"] == pytest.approx(1.0, abs=1e-5)
    assert line["policy/approxkl_avg"] == pytest.approx(0.0, abs=1e-9) and line["policy/clipfrac_avg"] == 0.0


def test_the_start_is_its_own_reference_and_the_sampler_agrees_with_the_training_graph(lines):
  assert lines[0]["objective/kl"] == 0.0 and lines[1]["objective/kl"] != 0.0
  for line in lines:
    assert line["sampling/sampling_logp_difference/max"] < 1e-4


def test_nothing_compiles_after_the_first_iteration(lines):
  assert lines[0]["compile/count"] == lines[1]["compile/count"]


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_groups_share_a_hand_and_a_prompt_and_need_no_value(finished, lines_of, method):
  lines = lines_of(finished(method), "metrics.jsonl")
  assert [line["step"] for line in lines] == [1, 2]
  assert lines[0]["compile/count"] == lines[1]["compile/count"]
  for line in lines:
    assert line.keys() >= CONTRACT - OF_VALUES - ({"objective/kl"} if method == "rloo" else set()) | OF_GROUPS
    assert not OF_VALUES & line.keys() and all(math.isfinite(value) for value in line.values())
    assert line["val/ratio"] == pytest.approx(1.0, abs=1e-5) and line["policy/clipfrac_avg"] == 0.0
    assert line["sampling/sampling_logp_difference/max"] < 1e-4
    assert line["label_tokens"] == pytest.approx(8 * line["num_turns/mean"] * line["response_length/mean"])
  seeds = [line["seed"] for line in lines_of(finished(method), "episodes.jsonl") if line["kind"] == "train"]
  assert len(seeds) == 4 and len(set(seeds)) == 2   # two of each iteration are shown, both of its first group


def test_what_differs_from_ppo_is_the_method_alone(finished, lines_of):
  """The same hands judged by the same evaluator from the same start; a shared prompt costs less, a critic nothing."""
  first = {method: lines_of(finished(method), "evals.jsonl")[:4] for method in ("rl", "grpo", "rloo")}
  assert first["rl"] == first["grpo"] == first["rloo"]
  costs = {method: lines_of(finished(method), "metrics.jsonl")[0] for method in first}
  assert costs["rloo"]["compute/score_flops"] == 0 < costs["grpo"]["compute/score_flops"]   # one update, and no KL
  assert costs["rloo"]["compute/train_flops"] < costs["grpo"]["compute/train_flops"]   # whose rows are whole


def test_the_start_is_evaluated_episodes_are_shown_and_the_run_is_complete(finished, lines_of):
  workdir = finished("rl")
  assert {line["step"] for line in lines_of(workdir, "evals.jsonl")} == {0, 1, 2}
  episodes = lines_of(workdir, "episodes.jsonl")
  assert {(line["kind"], line["step"]) for line in episodes} == {
      ("eval", 0), ("train", 1), ("eval", 1), ("train", 2), ("eval", 2)}
  for line in episodes:
    assert line.keys() == {"step", "kind", "variant", "temperature", "seed", "chat", "rewards", "codes", "success"}
    assert len(line["rewards"]) == len(line["codes"]) >= 1
  train = [line for line in episodes if line["kind"] == "train"]
  assert len({line["seed"] for line in train}) == len(train)   # every iteration deals new hands
  assert json.loads((workdir / "progress.json").read_text())["phase"] == "complete"


def test_a_step_tells_how_fast_it_was(finished, lines_of):
  for line in lines_of(finished("rl"), "metrics.jsonl"):
    assert min(line[f"throughput/{name}"] for name in ("tokens_per_second", "decode_bytes_per_second")) > 0
    assert line["compute/chip_hours"] > 0


FAULTY = '''
import dataclasses, random
from sftrl_jax.envs.general_points.env import GeneralPoints

@dataclasses.dataclass(frozen=True)
class Faulty(GeneralPoints):
  """One hand in five cannot be dealt, and one in five cannot be judged; the shift is sound."""

  def reset(self, seed):
    state, chat = super().reset(seed)
    fate = random.Random(f"fate {seed}").randrange(5) if self.variant != "rule_ood" else 2
    if fate == 0:
      raise ConnectionError("the server is down")
    return (None if fate == 1 else state), chat

def reward(chat, response, verdict):
  """No judgement of one answer in eight."""
  return None if random.Random(chat[-1].text + response).randrange(8) == 0 else verdict.reward + 0.01 * len(response)
'''


@pytest.fixture(scope="module")
def faulty(tiny, tmp_path_factory):
  """faulty(method, **overrides) -> the config of a run whose task and reward fail now and then."""
  file = tmp_path_factory.mktemp("faulty") / "faulty.py"
  file.write_text(FAULTY)
  return lambda method, **changes: tiny(method, env__name=f"{file}:Faulty", reward=f"{file}:reward", **changes)


@pytest.mark.parametrize("method", ["rl", "grpo"])
def test_what_fails_is_left_out_and_counted_over_the_run_also_over_a_resume(
    faulty, run_of, lines_of, tmp_path, method):
  settings = dict(batch=16, evals__variants="()")
  run_of(faulty(method, steps=3, **settings), tmp_path / "straight")
  lines = lines_of(tmp_path / "straight", "metrics.jsonl")
  assert [line["step"] for line in lines] == [1, 2, 3]
  assert all(math.isfinite(value) for line in lines for value in line.values())
  counts = [{key: line.get(key, 0) for key in ("dropped/env", "dropped/reward")} for line in lines]
  assert min(counts[2].values()) > 0 and max(counts[2].values()) > max(counts[0].values())
  assert len({line["compile/count"] for line in lines}) == 1
  run_of(faulty(method, steps=1, **settings, own_reward__process=False), tmp_path / "resumed")   # the same rewards
  most = max(counts[0].values())
  with pytest.raises(ValueError, match=rf"\.py, line \d+, in .*\n.*\n.*config\.max_dropped is {most}"):
    run_of(faulty(method, steps=3, **settings, max_dropped=most), tmp_path / "resumed")
  run_of(faulty(method, steps=3, **settings), tmp_path / "resumed")
  timed = ("timing_s", "throughput", "memory", "seconds", "compute/chip", "compile")
  same = lambda name: [{k: v for k, v in line.items() if not k.startswith(timed)}
                       for line in lines_of(tmp_path / name, "metrics.jsonl")]
  assert same("resumed") == same("straight")
  # What the alarms know of earlier lines goes on too.
  known = [json.loads((tmp_path / name / "checkpoints" / "3" / "meta" / "metadata").read_text())["alarm_streaks"]
           for name in ("resumed", "straight")]
  assert known[0] == known[1] and known[0]["success/lines"] == 3


def test_an_evaluation_counts_what_was_spoiled(faulty, run_of, lines_of, tmp_path):
  run_of(faulty("rl", steps=1), tmp_path)
  lines = lines_of(tmp_path, "evals.jsonl")
  for line in lines:
    assert line["episodes"] == len(line["outcomes"]) == 16 and line["success"] == line["successes"] / 16
    assert math.isfinite(line["reward"])
    assert ("dropped/env" in line.get("troubles", {})) == (line["variant"] == "id_seen")
  assert any("dropped/reward" in line.get("troubles", {}) for line in lines)


@pytest.mark.parametrize("method, own", [("rl", {"ppo__value_gradient": True}), ("grpo", {"grpo__kl": "reward"}), (
    "reinforce_plus_plus", {})])
def test_a_constant_reward_leaves_the_policy_alone_and_ends_the_run(
    method, own, tiny, run_of, lines_of, tmp_path):
  reward = tmp_path / "flat.py"
  reward.write_text("def minus(chat, response, verdict):\n  return -1.0\n")
  config = tiny(method, steps=9, reward=f"{reward}:minus", env__attempts=1, max_without_signal=4,
                optimizer__weight_decay=0.1, optimizer__learning_rate=0.01, evals__variants="()", **own)
  with pytest.raises(RuntimeError, match=r"\(config.reward=.*flat.py:minus\).*last 4 steps .*mean is -1\."):
    run_of(config, tmp_path / "flat")
  lines = lines_of(tmp_path / "flat", "metrics.jsonl")
  assert [line["objective/kl"] for line in lines] == [0.0] * 4   # not even a rounding error from the start
  assert all(line.get("alarm/constant_rewards") or line.get("alarm/constant_groups") for line in lines)


def params_of(workdir, step):
  path = workdir / "checkpoints" / str(step) / "state"
  return jax.device_get(ocp.StandardCheckpointer().restore(path.absolute()))["params"]


FOUR = {"ppo__epochs": 2, "ppo__minibatches": 2, "evals__variants": "()", "checkpoint__every": 1}


def test_a_target_that_nothing_reaches_changes_nothing(tiny, run_of, lines_of, tmp_path):
  run_of(tiny("rl", **FOUR), tmp_path / "off")
  run_of(tiny("rl", **FOUR, ppo__target_kl=1e9), tmp_path / "huge")
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  jax.tree.map(close, *(params_of(tmp_path / name, 2) for name in ("off", "huge")))
  off, huge = (lines_of(tmp_path / name, "metrics.jsonl") for name in ("off", "huge"))
  assert [line["policy/updates"] for line in huge] == [4, 4] and not any(line["policy/early_stops"] for line in huge)
  assert not {"policy/updates", "policy/early_stops"} & off[0].keys()
  for name in ("tokens", "compute/train_flops", "compute/total_flops"):
    assert [line[name] for line in off] == [line[name] for line in huge]


def test_a_target_that_everything_exceeds_leaves_the_first_minibatch_of_an_iteration(
    tiny, run_of, lines_of, tmp_path, capsys, monkeypatch):
  settings = {**FOUR, "steps": 3}
  run_of(tiny("rl", **settings, ppo__target_kl=1e-12), tmp_path / "stopped")
  assert capsys.readouterr().out.count("target_kl stopped the iteration, 1 of 4 updates were applied") == 1
  lines = lines_of(tmp_path / "stopped", "metrics.jsonl")
  assert [(line["policy/updates"], line["policy/early_stops"]) for line in lines] == [(1, 1)] * 3
  # By hand: nothing but the first minibatch of each iteration is ever seen.
  every = rl._minibatches
  monkeypatch.setattr(rl, "_minibatches", lambda *of: itertools.islice(every(*of), 1))
  run_of(tiny("rl", **settings), tmp_path / "by_hand")
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  jax.tree.map(close, *(params_of(tmp_path / name, 3) for name in ("stopped", "by_hand")))
  by_hand = lines_of(tmp_path / "by_hand", "metrics.jsonl")
  for name in ("tokens", "compute/train_flops"):   # the minibatch that was computed and not applied is charged
    assert [line[name] for line in lines] == pytest.approx([2 * line[name] for line in by_hand])
  assert [line["objective/scores"] for line in lines] == [line["objective/scores"] for line in by_hand]


def test_lines_of_several_iterations_count_what_was_applied(tiny, run_of, lines_of, tmp_path):
  run_of(tiny("rl", **FOUR, ppo__target_kl=1e-12, log__every=2), tmp_path)
  line, = lines_of(tmp_path, "metrics.jsonl")
  assert (line["policy/updates"], line["policy/early_stops"]) == (2, 2)


def test_groups_have_the_same_limit(tiny, run_of, lines_of, tmp_path):
  run_of(tiny("grpo", grpo__epochs=2, grpo__target_kl=1e-12, grpo__dual_clip=3.0, evals__variants="()"), tmp_path)
  assert [line["policy/updates"] for line in lines_of(tmp_path, "metrics.jsonl")] == [1, 1]


def test_the_critic_warms_up_before_the_policy_moves_and_has_its_own_layers(finished, lines_of):
  first, second, third = lines_of(finished("rl_guarded"), "metrics.jsonl")
  assert first["objective/kl"] == second["objective/kl"] == 0.0 and third["objective/kl"] != 0.0
  assert first["policy/updates"] == 4 and first["policy/early_stops"] == 0   # nothing to judge yet
  assert second["policy/updates"] == third["policy/updates"] == 1
  assert first["critic/values/max"] == 0.0 and second["critic/values/max"] > 0.0
  shapes = {path: leaf.shape for path, leaf in trees.leaves(params_of(finished("rl_guarded"), 3)["value"]).items()}
  assert shapes == {"kernel": (4,), "bias": (), "hidden/0/kernel": (16, 8), "hidden/0/bias": (8,),
                    "hidden/1/kernel": (8, 4), "hidden/1/bias": (4,)}


# Adam divides by the size of a gradient, and so makes its rounding as large as itself.
SGD = {"optimizer__name": "sgd", "optimizer__learning_rate": 0.1, "schedule__warmup": 0}


def refuse_different(line, same, but):
  """Two lines of metrics are alike, but for what a clock and FLOPs say, and names that begin so."""
  assert line.keys() == same.keys()
  for key in line.keys() - {"seconds", "tokens", "compile/count"}:
    if not key.startswith(("timing_s", "throughput", "memory", "compute", *but)):
      assert same[key] == pytest.approx(line[key], rel=1e-3, abs=1e-5), key


@pytest.mark.parametrize("method, own", [
    ("rl", {"ppo__epochs": 2, "ppo__minibatches": 2, "compute__microbatches": 4}),
    ("grpo", {"grpo__mean": "sequence", "env__attempts": 4, "compute__microbatches": 8}),
    ("rloo", {"compute__microbatches": 8})], ids=["ppo", "grpo of several chats", "rloo, not scored"])
def test_rows_at_their_length_are_learned_from_as_whole_ones_and_are_resumed_bit_for_bit(
    rewriters, tiny, run_of, lines_of, tmp_path, method, own):
  task = {"env__name": f"{rewriters}:Hands"} if "env__attempts" in own else {}
  changes = {**own, **task, **SGD, "evals__variants": "()", "checkpoint__every": 1, "rollout__max_new_tokens": 20}
  for count in (1, 2):
    run_of(tiny(method, compute__lengths=count, **changes), tmp_path / str(count))
  nearly = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)
  jax.tree.map(nearly, *(params_of(tmp_path / name, 1) for name in "12"))
  whole, cut = (lines_of(tmp_path / name, "metrics.jsonl") for name in "12")
  refuse_different(whole[0], cut[0], ("sampling",))
  assert cut[0]["tokens"] < whole[0]["tokens"] and cut[0]["compute/train_flops"] < whole[0]["compute/train_flops"]
  assert cut[0]["compute/score_flops"] < whole[0]["compute/score_flops"] or method == "rloo"
  # The tokens that are no padding are the same, and so is their number.
  assert whole[0]["compute/real_share"] * whole[0]["tokens"] == pytest.approx(
      cut[0]["compute/real_share"] * cut[0]["tokens"])
  assert max(line["sampling/sampling_logp_difference/max"] for line in cut) < 1e-4
  assert len({line["compile/count"] for line in cut}) == 1
  shutil.copytree(tmp_path / "2", tmp_path / "resumed")
  shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "2")
  run_of(tiny(method, compute__lengths=2, **changes), tmp_path / "resumed")
  jax.tree.map(np.testing.assert_array_equal, *(params_of(tmp_path / name, 2) for name in ("2", "resumed")))
  assert lines_of(tmp_path / "resumed", "metrics.jsonl")[1]["compute/total_flops"] == cut[1]["compute/total_flops"]


def test_what_is_not_scored_is_learned_from_as_if_it_were(tiny, run_of, lines_of, tmp_path, monkeypatch):
  config = tiny("rloo", evals__variants="()", checkpoint__every=1, **SGD)
  run_of(config, tmp_path / "alone")
  monkeypatch.setattr(learner, "has_ratio_1", lambda *_: False)
  run_of(config, tmp_path / "scored")
  nearly = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)
  jax.tree.map(nearly, *(params_of(tmp_path / name, 1) for name in ("alone", "scored")))
  alone, scored = (lines_of(tmp_path / name, "metrics.jsonl")[0] for name in ("alone", "scored"))
  refuse_different(scored, alone, ())   # the gap to the sampler among them
  assert alone["val/ratio"] == alone["val/ratio_max"] == 1.0 and alone["sampling/sampling_logp_difference/max"] > 0
  assert alone["compute/score_flops"] == 0 < scored["compute/score_flops"]


METHODS = {"ppo by tokens": ("rl", {}), "ppo by turns": ("rl", {"ppo__level": "turn", "ppo__truncation": "bootstrap"}),
           "grpo": ("grpo", {"grpo__mean": "sequence"}), "rloo": ("rloo", {})}


@pytest.mark.parametrize("name", ["ppo by turns", "grpo"])
def test_a_claim_to_rewrite_the_prompt_changes_nothing_of_a_run_whose_chats_grow(
    rewriters, tiny, run_of, lines_of, tmp_path, name):
  """Each episode then has blank rows beside its own, in every array, minibatch and microbatch."""
  method, own = METHODS[name]
  changes = {**own, "rollout__carry": False, "rollout__shrink": "()", "evals__variants": "('id_seen',)",
             "evals__temperatures": "(0.0,)", "steps": 1}
  run_of(tiny(method, **changes), tmp_path / "plain")
  run_of(tiny(method, env__name=f"{rewriters}:Claims", **changes), tmp_path / "claims")
  for file in ("metrics.jsonl", "evals.jsonl"):
    plain, claims = (lines_of(tmp_path / home, file) for home in ("plain", "claims"))
    for line, same in zip(plain, claims, strict=True):
      for key in line.keys() - {"seconds", "tokens", "flops", "compile/count"}:
        if not key.startswith(("timing_s", "throughput", "memory", "compute", "sampling")):
          want = line[key]
          assert same[key] == (pytest.approx(want, rel=1e-3, abs=1e-6) if isinstance(want, float) else want), key


@pytest.mark.parametrize("name", METHODS)
def test_episodes_of_several_chats_are_learned_from(rewriters, tiny, run_of, lines_of, tmp_path, name):
  method, own = METHODS[name]
  run_of(tiny(method, env__name=f"{rewriters}:Hands", env__attempts=4, evals__variants="()", **own), tmp_path)
  for line in lines_of(tmp_path, "metrics.jsonl"):
    assert all(math.isfinite(value) for value in line.values()) and line["compile/count"]
    assert line["sampling/sampling_logp_difference/max"] < 1e-4
    assert line["val/ratio"] == pytest.approx(1.0, abs=1e-5)   # one minibatch and one epoch
    turns = 8 * line["num_turns/mean"]
    assert line["label_tokens"] == pytest.approx(turns * (1 if "turns" in name else line["response_length/mean"]))
  shown = [line for line in lines_of(tmp_path, "episodes.jsonl") if line["kind"] == "train"]
  answers = [sum(message["role"] == "assistant" for message in line["chat"]) for line in shown]
  assert answers == [len(line["codes"]) for line in shown] and max(answers) > 1   # of all chats of an episode


def test_v_irl_in_the_style_of_the_paper_is_resumed_with_the_bits_of_a_run_that_was_not_stopped(
    rewriters, tiny, run_of, lines_of, tmp_path):
  """Its episodes have several chats: a route of two points, whose prompts are read as bytes."""
  route = {"name": f"{rewriters}:Lenient", "style": "paper", "legs": 1, "straight": 1}
  config = tiny("rl", route, tokenizer__name="bytes", rollout__prompt_tokens=860, rollout__feedback_tokens=260, batch=4,
                rollout__rows=4, rollout__max_new_tokens=8, evals__variants="()", ppo__level="turn",
                checkpoint__every=1)
  run_of(config, tmp_path / "straight")
  shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
  shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "2")
  run_of(config, tmp_path / "resumed")
  straight, resumed = (
      jax.device_get(ocp.StandardCheckpointer().restore(tmp_path / home / "checkpoints" / "2" / "state"))
      for home in ("straight", "resumed"))
  jax.tree.map(np.testing.assert_array_equal, straight, resumed)
  lines, same = (lines_of(tmp_path / home, "metrics.jsonl") for home in ("straight", "resumed"))
  for key in ("loss", "objective/kl", "grad_norm", "num_turns/mean", "sampling/sampling_logp_difference/max"):
    assert [line[key] for line in lines] == [line[key] for line in same]
  assert max(line["sampling/sampling_logp_difference/max"] for line in lines) < 1e-4
  assert max(line["num_turns/mean"] for line in lines) > 1.5
