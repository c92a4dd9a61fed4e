"""Evaluations: the same hands everywhere, counted right."""

import tempfile

import jax
import pytest

from sftrl_jax.envs.virl.env import VIRL
from sftrl_jax.programs.evaluate import run as evaluate
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.saved_run import config_of
from sftrl_jax.programs.experiment.sections import EvalsConfig
from sftrl_jax.programs.plan import compilation, jitted_functions
from sftrl_jax.programs.start.initial_params import param_shapes
from sftrl_jax.rollout.tally import wilson

KEYS = {"step", "variant", "temperature", "seed", "attempts", "episodes", "successes", "success", "ci95", "flops",
        "seconds", "first_success", "outcomes", "codes", "reward", "response_length"}
COUNTS = {"attempts_of", "responses", "right", "per_step", "points", "first_right", "legal", "all_codes",
          "episode_right", "episode_responses", "updates", "paper_flops"}


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_every_variant_and_temperature_is_measured_once_a_step(finished, lines_of, verb):
  lines = lines_of(finished(verb), "evals.jsonl")
  at = [(line["step"], line["variant"], line["temperature"]) for line in lines]
  assert len(at) == len(set(at))
  for step in {line["step"] for line in lines}:
    assert {(v, t) for s, v, t in at if s == step} == {(v, t) for v in ("id_seen", "rule_ood") for t in (0.0, 1.0)}


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_lines_keep_the_contract_and_agree_with_themselves(finished, lines_of, verb):
  for line in lines_of(finished(verb), "evals.jsonl"):
    assert line.keys() - {"kl", "entropy", "kl_episodes"} == KEYS | COUNTS
    assert ("kl" in line) == ("entropy" in line) == ("kl_episodes" in line) == (line["temperature"] == 1.0)
    assert len(line["outcomes"]) == line["episodes"] == 16
    assert line["successes"] == 16 - line["outcomes"].count("0") and line["success"] == line["successes"] / 16
    assert line["first_success"] == line["outcomes"].count("1") / 16
    assert line["ci95"] == wilson(line["successes"], 16) and set(line["outcomes"]) <= set("012")
    assert sum(line["codes"].values()) == 16 and line["attempts"] == 2 and line["seed"] == 10**9


def counts_agree(line):
  """What is counted of responses adds up, over episodes and over codes."""
  assert sum(line["episode_responses"]) == line["responses"] == sum(line["all_codes"].values())
  assert sum(line["episode_right"]) == line["right"] == line["all_codes"]["correct"]
  assert line["per_step"] == line["right"] / line["responses"]
  assert line["legal"] == line["responses"] - line["all_codes"]["illegal"]
  assert line["first_right"] <= line["points"] and len(line["episode_right"]) == line["episodes"]


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_responses_are_counted_beside_episodes(finished, lines_of, verb):
  for line in lines_of(finished(verb), "evals.jsonl"):
    counts_agree(line)
    assert line["attempts_of"] == "episode" and line["points"] == 16
    assert line["first_right"] == line["codes"]["correct"] == line["first_success"] * 16
    assert line["right"] == line["successes"]   # a hand ends with its first right response
    assert [1 if outcome != "0" else 0 for outcome in line["outcomes"]] == line["episode_right"]


def test_updates_and_the_papers_flops_grow_with_the_run(finished, lines_of):
  """SFT: 6 N D, the positions of its rows; PPO: of its episodes, and what decoding without a cache would read."""
  spent = {}
  for verb in ("sft", "rl"):
    lines = lines_of(finished(verb), "evals.jsonl")
    at = {line["step"]: line for line in lines}
    assert [at[step]["updates"] for step in sorted(at)] == sorted(at) and at[0]["paper_flops"] == 0
    steps = [at[step]["paper_flops"] for step in sorted(at)]
    assert steps == sorted(set(steps))
    spent[verb] = at[2]["paper_flops"]
  sft = [line for line in lines_of(finished("sft"), "metrics.jsonl") if line["step"] == 2][0]
  experiment = build_experiment(config_of(finished("sft"), []), "sft")
  parameters = sum(leaf.size for leaf in jax.tree.leaves(param_shapes(experiment.model)))
  assert spent["sft"] == 6 * parameters * sft["tokens"]


def test_a_task_of_many_points_says_so_on_every_line(tiny_routes, run_of, lines_of, tmp_path, capsys):
  run_of(tiny_routes(evals__expert_episodes=99, evals__samples=3), tmp_path)
  printed = capsys.readouterr().out
  assert "id/T0 0.0% (per step 0.0%)" in printed
  for line in lines_of(tmp_path, "evals.jsonl"):
    counts_agree(line)
    assert line["attempts_of"] == "point" and line["attempts"] == 2   # the tries of a point, not those of the route
    sampled = line["temperature"] > 0
    assert ({"pass_at", "distinct"} <= line.keys()) == sampled and ("expert_accuracy" in line) == (not sampled)
    if sampled:
      assert set(line["pass_at"]) == {"1", "2", "3"} and line["pass_at"]["1"] <= line["pass_at"]["3"]
    else:
      routes = VIRL(style="compact", legs=1, straight=1, variant=line["variant"])
      assert line["expert_states"] == sum(len(routes.route(10**9 + number).points) for number in range(16))


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_a_run_that_was_stopped_counts_as_one_that_was_not(tiny, run_of, lines_of, tmp_path, verb):
  longer = tiny(verb, steps=2, evals__expert_episodes=99, evals__every=1)
  run_of(longer, tmp_path / "straight")
  run_of(tiny(verb, steps=1, evals__expert_episodes=99, evals__every=1), tmp_path / "resumed")
  run_of(longer, tmp_path / "resumed")
  straight, resumed = ([{key: value for key, value in line.items() if key != "seconds"} for line in lines_of(
      tmp_path / name, "evals.jsonl") if line["step"] == 2] for name in ("straight", "resumed"))
  assert straight == resumed and straight[0]["paper_flops"] > 0 and straight[0]["updates"] == 2


def test_the_start_has_no_distance_from_itself_and_the_same_start_the_same_answers(finished, lines_of):
  sft, rl = ([line for line in lines_of(finished(verb), "evals.jsonl") if line["step"] == 0] for verb in ("sft", "rl"))
  assert all(line.get("kl", 0.0) == 0.0 and line["flops"] == 0 for line in sft)
  drop = lambda lines: [{k: v for k, v in line.items() if k not in ("kl", "entropy", "reward")} for line in lines]
  assert drop(sft) == drop(rl)   # whatever rows and method: paired by position
  entropies = [[line["entropy"] for line in lines if "entropy" in line] for lines in (sft, rl)]
  assert entropies[0] == pytest.approx(entropies[1], rel=1e-5) and min(entropies[0]) > 0
  moved = [line["kl"] for line in lines_of(finished("sft"), "evals.jsonl") if line["step"] == 2 and "kl" in line]
  assert moved and min(moved) > 0


def measured(run, **changes):
  """The lines at temperature 1 of an evaluation of a run with changed keys."""
  with tempfile.TemporaryDirectory() as folder:
    lines = evaluate.run(str(run), [(key.replace("__", "."), str(value)) for key, value in changes.items()], folder)
  return [line for line in lines if line["temperature"] == 1.0]


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_the_kl_is_the_same_in_pieces(finished, verb):
  """Whatever rows a call has, and whatever tokens a chunk: 8 rows, or 1 row in chunks of 5 tokens."""
  whole = measured(finished(verb), evals__kl_episodes=0, compute__microbatches=1)
  pieces = measured(finished(verb), evals__kl_episodes=99, compute__microbatches=8, compute__logit_chunk=5)
  for one, other in zip(whole, pieces, strict=True):
    assert one["kl_episodes"] == other["kl_episodes"] == 16 and one["kl"] > 0
    assert [one["kl"], one["entropy"]] == pytest.approx([other["kl"], other["entropy"]], rel=1e-4, abs=1e-7)


def test_the_kl_of_some_episodes_is_that_of_an_evaluation_of_these_alone(finished):
  """The first ones, as everywhere; what else is measured is of all."""
  some, alone, every = (measured(finished("rl"), **changes) for changes in (
      dict(evals__kl_episodes=5), dict(evals__episodes=5), dict(evals__kl_episodes=0)))
  for line, few, all_ in zip(some, alone, every, strict=True):
    kl = lambda line: [line["kl_episodes"], line["kl"], line["entropy"]]
    assert kl(line)[0] == kl(few)[0] == 5 and kl(line) == pytest.approx(kl(few), rel=1e-5, abs=1e-7)
    assert kl(line)[1:] != kl(all_)[1:]
    rest = lambda line: {key: value for key, value in line.items() if key not in ("kl_episodes", "kl", "entropy")}
    assert rest(line) == rest(all_)


@pytest.mark.parametrize("method", ["sft", "rl", "lora"])
@pytest.mark.parametrize("microbatches", [1, 2, 4])
def test_the_kl_needs_no_more_memory_than_a_train_step(tiny, method, microbatches):
  """As the compiler counts it: in temporaries, which parameters and optimizer come on top of."""
  experiment = build_experiment(tiny(method, compute__microbatches=microbatches, model__layers=2), (
      "rl" if method == "rl" else "sft"))
  sizes = dict(filter(None, jitted_functions.for_each(experiment, lambda function: _built(function, experiment.mesh))))
  kl, train = sizes["kl of an evaluation"], sizes["train step"]
  assert 0 < kl.temporaries <= train.temporaries and kl.peak <= train.peak


def _built(function, mesh):
  """((name, function as compiled) of those that are compared, what it returns)."""
  if function.name not in ("kl of an evaluation", "train step"):
    return None, jitted_functions.guess_results(function, mesh)
  compiled, returned, _ = compilation.build(function, mesh)
  return (compiled.name, compiled), returned


def test_shown_episodes_are_greedy_and_on_the_same_hands(finished, lines_of):
  shown = [line for line in lines_of(finished("sft"), "episodes.jsonl") if line["kind"] == "eval"]
  assert {line["temperature"] for line in shown} == {0.0}
  assert {line["seed"] for line in shown} == {10**9, 10**9 + 1}


@pytest.mark.parametrize("settings, key", [
    (dict(episodes=0), "episodes"), (dict(every=-1), "every"), (dict(at=(0.5, 1.5)), "at"), (dict(seed=-1), "seed"),
    (dict(log_episodes=-1), "log_episodes"), (dict(kl_episodes=-1), "kl_episodes"),
    (dict(temperatures=()), "temperatures"), (dict(temperatures=(-1.0,)), "temperatures"), (dict(samples=0), "samples"),
    (dict(samples=2, temperatures=(0.0,)), "samples"),
    (dict(expert_episodes=8, temperatures=(1.0,)), "expert_episodes")])
def test_wrong_settings_name_their_key(settings, key):
  with pytest.raises(ValueError, match=f"^{key} is"):
    EvalsConfig(**settings)
