"""`:smoke`: every config of ours runs on a toy scale, and what makes it that experiment is untouched."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from sftrl_jax.main import main
from sftrl_jax.programs.cli import experiments
from sftrl_jax.programs.config import resolve, smoke
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import build, run_config
from sftrl_jax.programs.study import config as study_config, dry_run, runs

ROOT = pathlib.Path(__file__).parents[3]
ENTRIES = {str(entry.path.relative_to(ROOT)): entry.commands[0].split()[1]
           for entry in experiments.find(ROOT / "configs")}
# One run of each kind of task, model and method: those of configs/general_points by the first study, and that of RLHF,
# for which configs/preference/reward.py is run too, by --long; tests/programs/loop/test_sft_data.py runs
# configs/sft/chat.py. Every other config is made by the code of these, with other numbers: it is built, with a probe of
# its episodes and rows, and not run.
RUN = ("configs/general_points/base.py", "configs/general_points/sft.py", "configs/general_points/ppo.py",
       "configs/examples/prompts.py", "configs/paper/gp_l_ppo.py", "configs/rlhf/ppo.py", "configs/preference/dpo.py",
       "configs/virl/grpo.py")
STUDIES = ("configs/study/general_points_cpu.py", "configs/study/virl_cpu.py")   # the second one by --long
# Their rewards are by a model that is trained first, without which they are built as far as they can be.
RLHF = ("configs/rlhf/ppo.py", "configs/rlhf/grpo.py", "configs/general_points/rlhf.py", "configs/virl/rlhf.py",
        "configs/documents/rlhf.py")
BUILT = [path for path in ENTRIES if path not in (*RUN, *STUDIES, *RLHF)]
QUICK = ("--config.rollout.shrink=()", "--config.evals.temperatures=(0.0,)", "--config.log.report=False")


def expanded(path, workdir):
  """The runs of a study's :smoke."""
  config = resolve.resolve(resolve.load(f"{path}:smoke"), [], study_config.SCHEMA)
  return runs.expand(resolve.build(study_config.StudyConfig, config.study, "config.study"), workdir)


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
  """studied(path) -> the workdir of a study's :smoke, run once and as a person runs it: every run a process."""
  @functools.cache
  def run(path):
    workdir = tmp_path_factory.mktemp("study") / "smoke"
    flags = " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)
    words = ["study", f"--config={path}:smoke", f"--workdir={workdir}"]
    done = subprocess.run([sys.executable, "-m", "sftrl_jax", *words], capture_output=True, text=True, cwd=ROOT,
                          check=False, env={**os.environ, "XLA_FLAGS": flags})
    assert done.returncode == 0, done.stdout + done.stderr
    return workdir
  return run


@pytest.fixture
def trained(studied, one_device, tmp_path, monkeypatch):
  """trained(path, verb) -> the workdir of a config's :smoke: the first study's run of it, or else one made here."""
  def run(path, verb):
    for run_of_study in expanded(STUDIES[0], pathlib.Path("x")):
      if f"--config={path}:smoke" in run_of_study.words:
        return studied(STUDIES[0]) / "runs" / run_of_study.name
    for name in ("NPROC", "XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL", *smoke.ENVIRONMENT):
      monkeypatch.setenv(name, os.environ.get(name, smoke.ENVIRONMENT.get(name, "")))
    more = []
    if path in RLHF:
      rewards = ["preference", "--config=configs/preference/reward.py:smoke", f"--workdir={tmp_path / 'reward'}"]
      assert main([*rewards, "--config.log.report=False"]) == 0
      more = [f"--config.reward_model.start={tmp_path / 'reward'}"]
    assert main([verb, f"--config={path}:smoke", f"--workdir={tmp_path / 'run'}", *more, *QUICK]) == 0
    return tmp_path / "run"
  monkeypatch.chdir(ROOT)
  return run


@pytest.mark.parametrize(("path", "verb"), [(path, ENTRIES[path]) for path in RUN])
def test_every_run_of_ours_runs_small(path, verb, trained, lines_of):
  workdir = trained(path, verb)
  assert json.loads((workdir / "progress.json").read_text())["phase"] == "complete"
  assert [line["step"] for line in lines_of(workdir, "metrics.jsonl")] == [1, 2, 3]
  config = json.loads((workdir / "config.json").read_text())
  assert config["model"]["width"] == smoke.EXACTLY["model.width"] and config["verb"] == verb
  evals = lines_of(workdir, "evals.jsonl") if config["evals"]["variants"] else ()
  measured = {(line["step"], line["variant"]) for line in evals}
  assert measured == {(step, variant) for step in (0, 3) for variant in config["evals"]["variants"]}
  assert (workdir / "checkpoints" / "3").is_dir()


@pytest.mark.parametrize("path", BUILT)
def test_what_is_made_like_others_is_built_small(path, one_device, monkeypatch):
  monkeypatch.chdir(ROOT)
  if ENTRIES[path] == "study":
    cases = [(runs.method_of(run.name), run.name, run.words, run.needs) for run in expanded(path, pathlib.Path("x"))]
    assert len(cases) > 1 and not dry_run.find_mistakes(cases, {})
    return
  config, _ = run_config.resolve_run(f"{path}:smoke", (), ENTRIES[path])
  experiment = build.build_experiment(config, ENTRIES[path])
  assert experiment.model.config.width == smoke.EXACTLY["model.width"] and experiment.limits.steps == 3


@pytest.mark.parametrize("choice", ["11b", "smolvlm_numbers"])
def test_a_large_model_that_reads_pictures_becomes_a_small_one_that_reads_the_same(choice, one_device, monkeypatch):
  """Whatever the size of a picture: the task stays."""
  monkeypatch.chdir(ROOT)
  spec = f"configs/paper/gp_vl_ppo.py:{choice}"
  config, _ = run_config.resolve_run(f"{spec}:smoke", (), "rl")
  assert config.env.to_dict().items() >= resolve.load(spec).env.to_dict().items() and config.tokenizer.name == "bytes"
  reader = build.build_experiment(config, "rl").tokenizer.reader
  assert (reader.tokens, reader.images, config.model.width) == (4, 1, 16) and config.model.dtype == "bfloat16"


@pytest.mark.parametrize("path", RLHF)
def test_rlhf_asks_for_its_reward_model(path, one_device, monkeypatch):
  monkeypatch.chdir(ROOT)
  config, _ = run_config.resolve_run(f"{path}:smoke", (), ENTRIES[path])
  with pytest.raises(ConfigError, match="--config.reward_model.start=WORKDIR"):
    build.build_experiment(config, ENTRIES[path])


@pytest.mark.parametrize("path", STUDIES)
def test_every_study_of_ours_runs_small_to_its_report(path, studied, monkeypatch):
  monkeypatch.chdir(ROOT)
  workdir = studied(path)
  page = (workdir / "report" / "report.html").read_text()
  assert "a toy scale that shows nothing" in page
  for run in expanded(path, workdir):
    assert json.loads((run.workdir / "progress.json").read_text())["phase"] == "complete", run.name


@pytest.mark.parametrize("path", ENTRIES)
def test_only_what_makes_it_long_or_large_is_changed(path, monkeypatch):
  monkeypatch.chdir(ROOT)
  decided = {*smoke.EXACTLY, *smoke.AT_MOST, *smoke.WHERE_GIVEN, *smoke.PAIRS, *smoke.STUDY, "study.name",
             "study.base", "study.base_start", "study.methods", "study.prepares", "teacher.start"}
  if len(resolve.load(path).get("study", {}).get("methods", ())) > smoke.CROWD:
    decided |= {"study.labels", "study.overrides", "study.notes", "study.claims", "study.uses"}
  if resolve.load(path).get("model", {}).get("name") == "pretrained":
    decided |= {"model.name", "model.layers", "tokenizer.name", "rollout.max_new_tokens", *smoke.BYTES}
  changed = [key for key, _, _ in resolve.differences(resolve.load(path), resolve.load(f"{path}:smoke"))]
  assert changed and all(any(key == one or key.startswith(f"{one}.") for one in decided) for key in changed)


def test_tasks_are_asked_of_a_few_documents():
  small = smoke.smoke({"evals": {"tasks": ("a", "b"), "task_limit": 500}, "model": {}})
  assert small.evals.task_limit == 2 and small.evals.tasks == ("a", "b")
  assert "task_limit" not in smoke.smoke({"evals": {}, "model": {}}).evals


def test_the_last_word_is_never_the_files_own_choice(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text("def get_config(word='none'):\n  return dict(seed=7, env=dict(name=word), model=dict(layers=1))\n")
  config = resolve.load(f"{path}:a:b:smoke")
  assert (config.seed, config.env.name, config.steps, config.model.layers) == (7, "a:b", 3, 1)
  assert resolve.load(f"{path}:smoke").env.name == ""
  assert resolve.load(f"{path}:smoke:a").env.name == "smoke:a"
  assert [smoke.split(spec) for spec in ("f.py", "f.py:", "f.py:x", "f.py:smoke", "f.py:x:smoke", "smoke")] == [
      ("f.py", "", False), ("f.py", "", False), ("f.py", "x", False), ("f.py", "", True), ("f.py", "x", True),
      ("smoke", "", False)]
  assert smoke.small("f.py:x") == smoke.small("f.py:x:smoke") == "f.py:x:smoke"


@pytest.mark.parametrize("changes", [
    {"compute": {"microbatches": 64}, "ppo": {"minibatches": 32, "epochs": 9}, "batch": 4096},
    {"model": {"width": 4096, "layers": 48, "heads": 32, "kv_heads": 8, "head_dim": 128, "unroll": 48, "vocab": 10**5}},
    {"mesh": {"data": 4, "fsdp": 8, "tensor": 4}}, {"start": "runs/somewhere@best:id_seen", "flops": 1e20},
    {"schedule": {"name": "cosine", "warmup": 1000, "updates": 10**6}}, {"evals": {"every": 7}}])
def test_whatever_the_scale_of_a_config_its_parts_fit_when_small(changes, one_device):
  """A config for a pod becomes one for one CPU device."""
  from sftrl_jax.programs.experiment.build import build_experiment
  tree = resolve.load(str(ROOT / "configs/general_points/ppo.py")).to_dict()
  for section, keys in changes.items():
    tree[section] = {**tree[section], **keys} if isinstance(keys, dict) else keys
  experiment = build_experiment(run_config.resolve_for("rl", smoke.smoke(tree), [], lambda _: None), "rl")
  assert experiment.start == "scratch" and experiment.limits.steps == 3 and experiment.limits.flops == 0
  assert experiment.model.config.width == 16 and experiment.mesh.size == 1


def test_making_small_twice_is_making_small_and_the_file_is_left_alone():
  tree = {"model": {"layers": 9}, "ppo": {"minibatches": 4}, "env": {"name": "x"}}
  once = smoke.smoke(tree)
  assert tree == {"model": {"layers": 9}, "ppo": {"minibatches": 4}, "env": {"name": "x"}}
  assert smoke.smoke(once) == once
  assert smoke.smoke({"rollout": {"shrink": ()}}).rollout.shrink == ()


def test_a_toy_study_keeps_what_belongs_to_the_methods_that_it_keeps():
  claims = tuple(dict(method=method, comparison=other, sign=1) for method, other in (
      ("a", "b"), ("a", "c"), ("c", "start"), ("b", "start")))
  study = smoke.smoke({"study": {
      "methods": dict.fromkeys("abc", "x.py"), "notes": dict.fromkeys("abc", "why"), "claims": claims,
      "at": {"c": (0.5,)}, "bases_of": {"c": "y.py"}}}).study
  assert set(study.methods) == set(study.notes) == {"a", "b"} and len(study.claims) == 2
  assert study.at == () and not study.bases_of


def test_what_is_wrong_in_a_config_is_still_told():
  small = smoke.smoke(ConfigDict({"model": 5, "ppo": {"gama": 1.0, "epochs": "many"}, "compute": "x"}))
  assert (small.model, small.compute, small.ppo.gama, small.ppo.epochs) == (5, "x", 1.0, "many")
  with pytest.raises(ConfigError, match=r"config\.ppo\.gama is not a key"):
    tree = resolve.load(str(ROOT / "configs/general_points/ppo.py")).to_dict()
    run_config.resolve_for("rl", smoke.smoke({**tree, "ppo": {"gama": 1.0}}), [])


def test_a_study_is_made_small_with_its_methods_and_its_overrides(monkeypatch):
  monkeypatch.chdir(ROOT)
  overrides = {"ppo": {"optimizer": {"learning_rate": 1e-4}, "steps": 500, "model": {"width": 512, "mlp": "gated"}},
               "base": {"batch": 4096, "mesh.fsdp": 8}}
  tree = {"study": {"name": "Big", "claim": ".", "bases": 9, "seeds": 5, "jobs": 8, "flops": 1e15, "base": "b.py:x",
                    "methods": {"sft": "s.py", "ppo": "p.py:y"}, "overrides": overrides, "at": (0.5,)}}
  small = smoke.smoke(tree).study
  assert small.methods.to_dict() == {"sft": "s.py:smoke", "ppo": "p.py:y:smoke"} and small.base == "b.py:x:smoke"
  assert (small.bases, small.seeds, small.jobs, small.flops, small.at) == (1, 1, 1, 0.0, ())
  assert small.overrides.to_dict() == {"ppo": {"optimizer": {"learning_rate": 1e-4}, "model": {"mlp": "gated"}},
                                       "base": {}}


def test_of_a_crowd_of_methods_the_reference_and_one_more_are_run():
  names = [f"m{number}" for number in range(9)]
  tree = {"study": {"name": "Many", "methods": dict.fromkeys(names, "s.py"), "labels": {name: name for name in names},
                    "overrides": {name: {"data.careless": 0.1} for name in names}, "reference": "m4"}}
  small = smoke.smoke(tree).study
  assert set(small.methods) == set(small.labels) == set(small.overrides) == {"m0", "m4"}
  tree["study"]["methods"] = dict.fromkeys(names[:2], "s.py")
  assert set(smoke.smoke(tree).study.methods) == set(names[:2])


def test_a_study_of_shipped_bases_begins_newborn_when_small(monkeypatch):
  monkeypatch.chdir(ROOT)
  for path in ("configs/study/general_points_cpu.py:quick", "configs/study/settings/optimizers.py"):
    for run in expanded(path, pathlib.Path("x")):
      assert "--config.start=scratch" in run.words and any(word.endswith(":smoke") for word in run.words)


def test_it_is_prepared_for_a_cpu_unless_told_otherwise(monkeypatch, capsys):
  for name in ("NPROC", "XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL", "JAX_DISABLE_MOST_OPTIMIZATIONS"):
    monkeypatch.setenv(name, "")
  monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")
  monkeypatch.setenv("JAX_PLATFORMS", "tpu")
  assert main(["sft", f"--config={ROOT / 'configs/general_points/sft.py'}:smoke", "--help"]) == 0
  assert os.environ["JAX_PLATFORMS"] == "tpu" and os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
  assert os.environ["NPROC"] == "1" and "--config.model.width=16" in capsys.readouterr().out
