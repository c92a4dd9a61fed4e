"""One message lists every mistake in the runs of a study before it trains anything."""

import os
import pathlib

import pytest

from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.study import config, dry_run, process_pool, run as study_run

ROOT = pathlib.Path(__file__).parents[3]
FILE = "configs/general_points/{}.py"


@pytest.fixture
def here(monkeypatch):
  monkeypatch.chdir(ROOT)
  for name in ("NPROC", "XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL"):
    monkeypatch.setenv(name, os.environ.get(name, ""))


def case(who, verb="sft", needs="", workdir="none", **keys):
  words = (verb, f"--config={FILE.format('ppo' if verb == 'rl' else who)}", f"--workdir={workdir}",
           *(f"--config.{key.replace('__', '.')}={value}" for key, value in keys.items()))
  name = "base-0" if who == "base" else f"base-0-{who}-0"
  return who, process_pool.ChildRun(name, words, pathlib.Path(workdir), pathlib.Path("log"), needs)


def mistakes_in(*cases, **claimed):
  mistakes = dry_run.find_mistakes([(who, run.name, run.words, run.needs) for who, run in cases], claimed)
  return {message: whose for (_, message), whose in mistakes.items()}


def test_a_study_tells_of_every_method_at_once_and_makes_nothing(here, tmp_path):
  overrides = {"ppo": {"ppo.gamma": 2}, "odd": {"batch": 250}, "lion": {"optimizer.name": "lyon"},
               "large": {"model.width": 32}, "typo": {"evals.episods": 4},
               "base": {"steps": 3, "compute.microbatches": 4}}
  section = {"name": "Try", "claim": ".", "base": FILE.format("base"), "bases": 2, "overrides": overrides,
             "methods": {method: FILE.format("sft" if method in ("lion", "large", "fine") else "ppo")
                         for method in (*overrides, "fine") if method != "base"}}
  with pytest.raises(ConfigError) as error:
    study_run.run(resolve.resolve({"study": section}, [], config.SCHEMA), tmp_path / "study")
  printed = str(error.value)
  for message in ("ppo of the study, configs/general_points/ppo.py: config.ppo.gamma is 2.0",
               "odd of the study, configs/general_points/ppo.py: config.batch is 250, but the mesh",
               "lion of the study, configs/general_points/sft.py: config.optimizer.name=lyon: name is 'lyon'",
               "typo of the study, configs/general_points/ppo.py: config.evals.episods is not a key",
               "large of the study, configs/general_points/sft.py: config.model.width is 32, but 64 in the base"):
    assert message in printed, printed
  assert len(printed.splitlines()) == 5 and "fine" not in printed
  assert not (tmp_path / "study").exists()


def test_a_base_that_is_not_shipped_is_told_of_and_what_is_right_is_not(here):
  assert not mistakes_in(case("sft", start="base:general_points_0"), case("sft", start="base:general_points_1", seed=7))
  mistakes = mistakes_in(case("sft", start="base:general_points_0"), case("sft", start="base:general_points_77"))
  assert list(mistakes.values()) == [["sft"]] and "is not shipped" in next(iter(mistakes))


def test_a_claim_about_a_part_of_verdicts_needs_a_task_that_has_it(here):
  """Of text nothing is judged apart; of pictures their cards are."""
  start = dict(start="base:general_points_0")
  message, = mistakes_in(case("sft", **start), sft=["cards"])
  assert "has the measure 'cards', which is none of this task. Valid: success, per_step." in message
  seen = dict(start="scratch", env__vision=True, env__style="recite", model__name="tiny_vlm", data__length=32)
  assert not mistakes_in(case("sft", **seen), sft=["cards"])
  message, = mistakes_in(case("sft", **seen), sft=["carts"])
  assert "did you mean cards?" in message


def test_one_mistake_of_several_methods_is_told_once_and_a_wrong_base_alone(here):
  mistakes = mistakes_in(case("base", batch=0), case("sft", needs="base-0", start="runs/base-0"))
  assert list(mistakes.values()) == [["base"]]
  first, second = case("sft", batch=0), case("sft", batch=0)
  assert list(mistakes_in(first, ("lion", second[1])).values()) == [["sft", "lion"]]


def test_runs_begun_with_another_file_of_the_task_are_told_of_and_do_not_go_on(here, tmp_path, stranger, one_device):
  from sftrl_jax.programs.experiment import build, workdir as experiment_workdir
  file, workdir = stranger(tmp_path), tmp_path / "run"
  assemble = lambda: build.build_experiment(run_config.resolve_for("sft", resolve.load(f"{file}:sft"), []), "sft")
  cases = [("sft", "base-0-sft-0", ("sft", f"--config={file}:sft", f"--workdir={workdir}"), "")]
  assert not dry_run.find_mistakes(cases, {})
  for _ in range(2):
    with experiment_workdir.workdir_of(assemble(), workdir):
      assert str(file) in (workdir / "own.json").read_text()
  stranger(tmp_path, ("randrange(20)", "randrange(19)"))
  (_, message), = dry_run.find_mistakes(cases, {})
  assert "sort_numbers.py has changed since the run" in message
  with pytest.raises(ConfigError, match="has changed since the run"):
    experiment_workdir.workdir_of(assemble(), workdir).__enter__()


def test_a_child_that_breaks_is_no_silence(monkeypatch):
  monkeypatch.setattr(dry_run, "COMMAND", (dry_run.sys.executable, "-c", "raise SystemExit('no memory')"))
  with pytest.raises(RuntimeError, match="configs failed:\nno memory"):
    dry_run.refuse([case("sft")], {})


def test_what_a_prepared_run_will_write_is_no_mistake(here):
  reward = ("reward", process_pool.ChildRun(
      "base-0-reward-0", ("preference", f"--config={FILE.format('reward')}", "--workdir=none"), pathlib.Path("none"),
      pathlib.Path("log")))
  there = "runs/x/runs/base-0-reward-0"
  chosen = case("sft", needs="base-0-reward-0", data__path=f"{there}/pairs.jsonl", data__format="chosen")
  learned = case("ppo", "rl", needs="base-0-reward-0", reward_model__start=there)
  assert not mistakes_in(reward, chosen, learned)
  wrong = case("ppo", "rl", needs="base-0-reward-0", reward_model__start=there, ppo__gamma=2)
  assert "config.ppo.gamma" in next(iter(mistakes_in(reward, wrong)))
