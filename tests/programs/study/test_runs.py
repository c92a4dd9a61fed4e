"""The runs of a study: their names, seeds, order and commands, and what study.json records."""

import json

import pytest

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.study import runs as study_runs


def test_runs_are_the_bases_and_every_method_on_each(files, expand):
  runs = {run.name: run for run in expand(seeds=2)}
  assert {"base-0", "base-1"} < runs.keys()
  assert len(runs) == 2 + 2 * 2 * 2
  run = runs["base-1-ppo-1"]
  assert run.needs == "base-1"
  assert run.words[:3] == ("rl", f"--config={files['ppo']}", "--workdir=runs/x/runs/base-1-ppo-1")
  assert {"--config.flops=1000000000.0", "--config.seed=201", "--config.start=runs/x/runs/base-1"} <= set(run.words)
  assert runs["base-1-sft-1"].words[0] == "sft"
  assert "--config.seed=1" in runs["base-1"].words
  assert not any("flops" in word for word in runs["base-1"].words)


def test_a_method_uses_what_a_prepared_run_of_its_base_and_seed_has_left(files, expand):
  runs = {run.name: run for run in expand(
      seeds=2, prepares={"pairs": files["sft"]}, uses={"sft": {"data": {"path": "pairs/pairs.jsonl", "held": "pairs"}}},
      overrides={"pairs": {"steps": 3}})}
  assert len(runs) == 2 + 2 * 2 * 3
  prepared, method = runs["base-1-pairs-1"], runs["base-1-sft-1"]
  assert (prepared.needs, method.needs, runs["base-1-ppo-1"].needs) == ("base-1", "base-1-pairs-1", "base-1")
  assert {"--config.steps=3", "--config.seed=201", "--config.start=runs/x/runs/base-1"} <= set(prepared.words)
  assert not any("flops" in word for word in prepared.words)
  home = "runs/x/runs/base-1-pairs-1"
  assert {f"--config.data.path={home}/pairs.jsonl", f"--config.data.held={home}",
          "--config.start=runs/x/runs/base-1"} <= set(method.words)


def test_a_prepared_run_may_start_where_a_method_ends(files, expand):
  methods = {"sft": files["sft"], "ppo": files["ppo"], "again": files["ppo"]}
  runs = {run.name: run for run in expand(
      methods=methods, prepares={"reward": files["sft"]}, bases_of={"reward": "ppo", "again": "ppo"},
      uses={"again": {"x": "reward"}})}
  assert runs["base-0-reward-0"].needs == "base-0-ppo-0" and runs["base-0-again-0"].needs == "base-0-reward-0"
  for name in ("reward", "again"):
    assert "--config.start=runs/x/runs/base-0-ppo-0" in runs[f"base-0-{name}-0"].words


def test_no_two_runs_share_a_seed_and_methods_of_a_base_are_paired(expand):
  runs = [run for run in expand(bases=3, seeds=3) if run.needs]
  seeds = [next(word for word in run.words if word.startswith("--config.seed=")) for run in runs]
  assert len(set(seeds)) == 9
  assert all(seeds.count(seed) == 2 for seed in seeds)


def test_the_first_comparison_comes_first_and_the_other_bases_before_the_other_runs(expand):
  names = [run.name for run in expand(bases=3, seeds=2)]
  assert names[:5] == ["base-0", "base-0-ppo-0", "base-0-sft-0", "base-1", "base-2"]
  assert names[5:9] == ["base-1-ppo-0", "base-1-sft-0", "base-2-ppo-0", "base-2-sft-0"]


def test_a_base_may_start_where_a_run_of_its_own_ends(files, expand):
  runs = {run.name: run for run in expand(base_start=files["sft"], overrides={"base": {"steps": 7}})}
  assert [*runs][:2] == ["base-0-start", "base-0"] and len(runs) == 2 * 2 + 2 * 2
  first, base = runs["base-1-start"], runs["base-1"]
  assert (first.needs, base.needs, runs["base-1-ppo-0"].needs) == ("", "base-1-start", "base-1")
  assert {"--config.start=runs/x/runs/base-1-start", "--config.steps=7", "--config.seed=1"} <= set(base.words)
  assert "--config.seed=1" in first.words and not any("steps" in word or "start=" in word for word in first.words)
  assert study_runs.method_of("base-1-start") == "base"


def test_shipped_bases_are_named_and_need_nothing(expand):
  runs = expand(base="")
  assert [run.name for run in runs][:2] == ["base-0-ppo-0", "base-0-sft-0"]
  assert "--config.start=base:general_points_1" in runs[-1].words
  assert not any(run.needs for run in runs)


def test_overrides_and_eval_episodes_reach_their_runs_only(files, expand):
  overrides = {"ppo": {"optimizer": {"learning_rate": 3e-4}, "env.faces": (11, 12, 13)}, "base": {"steps": 7}}
  base, ppo, sft = expand(bases=1, flops=0.0, eval_episodes=64, overrides=overrides)
  assert {"--config.optimizer.learning_rate=0.0003", "--config.env.faces=(11, 12, 13)"} <= set(ppo.words)
  assert {"--config.steps=7", "--config.seed=0"} <= set(base.words)
  assert "--config.evals.episodes=64" in sft.words
  assert not any("learning_rate" in word or "steps" in word for word in sft.words)


def test_a_run_that_has_begun_keeps_its_threads(expand, tmp_path):
  home = tmp_path / "runs" / "base-0"
  home.mkdir(parents=True)
  (home / "config.json").write_text(json.dumps({"mesh": {"cpu_threads": 7}}))
  runs = expand(workdir=tmp_path, jobs=1000)
  assert "--config.mesh.cpu_threads=7" in runs[0].words
  assert "--config.mesh.cpu_threads=1" in runs[1].words


def test_a_method_runs_under_the_verb_of_its_config_and_is_no_study(files, expand, tmp_path, monkeypatch):
  verbs = {run.name: run.words[0] for run in expand()}
  assert {name: verbs[f"base-0-{name}-0"] for name in ("sft", "ppo")} == {"sft": "sft", "ppo": "rl"}
  nested = tmp_path / "nested.py"
  nested.write_text("def get_config():\n  return dict(study=dict(name='x'))\n")
  with pytest.raises(ConfigError, match=r"config\.study\.methods\.sft is '.*nested\.py', which is a study"):
    expand(methods={"sft": str(nested)})
  monkeypatch.setitem(run_config.VERB_OF_KEY, "preferences", "preference")
  nested.write_text("def get_config():\n  return dict(preferences='x')\n")
  assert expand(methods={"dpo": str(nested)})[-1].words[0] == "preference"


def test_a_run_is_of_the_method_in_its_name():
  assert [study_runs.method_of(name) for name in ("base-0", "base-1-grpo-2", "base-1-dr_grpo-2")] == [
      "base", "grpo", "dr_grpo"]
  assert study_runs.method_of("base-0-clean") == "base"


def test_shares_by_method_reach_the_runs_of_that_method_only(expand):
  shared = {run.name: run.words for run in expand(base="", at=(0.5,)) if run.name.startswith("base-0")}
  assert all({"--config.evals.at=(0.5,)", "--config.evals.every=0"} <= set(words) for words in shared.values())
  own = {run.name: run.words for run in expand(base="", at={"sft": (0.02, 0.5)})}
  assert "--config.evals.at=(0.02, 0.5)" in own["base-1-sft-0"]
  assert not any("evals" in word for word in own["base-1-ppo-0"])


def test_a_method_may_start_from_other_bases_and_methods_share_them(files, expand, section_of):
  methods = {"sft": files["sft"], "ppo": files["ppo"], "clean": files["sft"], "clean_ppo": files["ppo"]}
  source = f"{files['base']}:clean"
  changes = dict(methods=methods, bases_of={"clean": source, "clean_ppo": source}, overrides={"base": {"steps": 7}})
  runs = {run.name: run for run in expand(**changes)}
  assert {name for name in runs if study_runs.method_of(name) == "base"} == {
      "base-0", "base-1", "base-0-clean", "base-1-clean"}
  base = runs["base-1-clean"].words
  assert base[1] == f"--config={source}" and {"--config.seed=1", "--config.steps=7"} <= set(base)
  for method in ("clean", "clean_ppo"):
    run = runs[f"base-1-{method}-0"]
    assert run.needs == "base-1-clean" and "--config.start=runs/x/runs/base-1-clean" in run.words
  assert runs["base-1-ppo-0"].needs == "base-1"
  assert study_runs.record(section_of(**changes), "", "")["bases_of"] == {"clean": "clean", "clean_ppo": "clean"}


def test_other_bases_may_be_shipped_ones_and_the_same_source_is_the_same_bases(files, expand, section_of):
  runs = {run.name: run for run in expand(bases_of={"ppo": "general_points"})}
  assert not runs["base-1-ppo-0"].needs and "--config.start=base:general_points_1" in runs["base-1-ppo-0"].words
  assert runs["base-1-sft-0"].needs == "base-1"
  assert list(expand(bases_of={"ppo": files["base"]})) == list(expand())


def test_the_report_reads_labels_bases_and_seeds_from_the_record(section_of):
  record = study_runs.record(section_of(seeds=2, labels={"sft": "Fine"}), "sftrl study", "a machine")
  assert record["methods"] == {"sft": "Fine", "ppo": "PPO"}
  assert record["bases"] == record["seeds"] == [0, 1]
  assert (record["command"], record["hardware"], record["flops"]) == ("sftrl study", "a machine", 1e9)
  json.dumps(record)


def test_the_record_holds_claims_notes_and_budgets_before_a_run_starts(section_of):
  claim = {"method": "ppo", "sign": 1}
  record = study_runs.record(section_of(
      claims=(claim,), measure="per_step", notes={"sft": "The paper's."},
      overrides={"sft": {"flops": 1e6}, "ppo": {"steps": 3, "batch": 8}, "base": {"steps": 1}}), "", "")
  assert (record["claims"], record["measure"], record["notes"]) == ([claim], "per_step", {"sft": "The paper's."})
  assert record["budgets"] == {"sft": {"flops": 1e6}, "ppo": {"steps": 3}} and record["bases_of"] == {}
  assert json.loads(json.dumps(record)) == record


def test_a_method_may_start_where_the_run_of_another_one_ends(files, expand):
  methods = {"after": files["ppo"], "sft": files["sft"]}
  runs = list(expand(methods=methods, bases_of={"after": "sft"}, seeds=2))
  names = [run.name for run in runs]
  for run in runs:
    assert not run.needs or names.index(run.needs) < names.index(run.name)
  by_name = {run.name: run for run in runs}
  assert by_name["base-1-after-1"].needs == "base-1-sft-1" and by_name["base-1-sft-1"].needs == "base-1"
  assert "--config.start=runs/x/runs/base-1-sft-1" in by_name["base-1-after-1"].words
  assert by_name["base-1-after-1"].words[0] == "rl" and set(by_name["base-1-after-1"].words) >= {"--config.seed=201"}


def test_a_method_may_be_a_mix_of_the_base_and_the_end_of_another_one(files, expand):
  methods = {"half": files["sft"], "sft": files["sft"]}
  runs = {run.name: run for run in expand(methods=methods, bases_of={"half": "mix:sft,0.5"})}
  assert runs["base-1-half-0"].needs == "base-1-sft-0" and list(runs).index("base-1-half-0") > list(runs).index(
      "base-1-sft-0")
  assert "--config.start=mix:runs/x/runs/base-1,runs/x/runs/base-1-sft-0,0.5" in runs["base-1-half-0"].words


def test_whatever_a_run_needs_comes_before_it(files, expand):
  methods = {"sft": files["sft"], "ppo": files["ppo"], "ppo_clean": files["ppo"], "after": files["ppo"]}
  runs = list(expand(methods=methods, bases=3, seeds=2, bases_of={"ppo_clean": files["sft"], "after": "sft"}))
  names = [run.name for run in runs]
  assert {run.needs for run in runs if "ppo_clean" in run.name and run.needs} == {f"base-{base}-ppo_clean"
                                                                                for base in range(3)}
  assert all(names.index(run.needs) < names.index(run.name) for run in runs if run.needs)


def test_some_methods_are_chosen_with_what_they_need(files, expand):
  methods = {"sft": files["sft"], "ppo": files["ppo"], "after": files["ppo"]}
  runs = expand(methods=methods, bases_of={"after": "sft"}, prepares={"pairs": files["sft"]},
                uses={"ppo": {"x": "pairs"}})
  names = lambda *only: {run.name for run in study_runs.select(runs, only) if "0" in run.name.split("-")[1]}
  assert study_runs.select(runs, ()) == list(runs)
  assert names("base") == {"base-0"}
  assert names("sft") == {"base-0", "base-0-sft-0"}
  assert names("after") == {"base-0", "base-0-sft-0", "base-0-after-0"}
  assert names("ppo", "sft") == {"base-0", "base-0-sft-0", "base-0-pairs-0", "base-0-ppo-0"}
  with pytest.raises(ConfigError, match=r"--only names 'sfd', which no run of the study has: did you mean sft\?"):
    study_runs.select(runs, ("sft", "sfd"))
