"""FROM: the run, its step, or the best of its steps; and what is said where there is none."""

import json

import pytest

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.start import checkpoint_ref
from sftrl_jax.programs.start.checkpoint_ref import CheckpointRef


def line(step, success, variant="id_seen", temperature=0.0):
  return json.dumps({"step": step, "variant": variant, "temperature": temperature, "success": success})


@pytest.fixture
def run(tmp_path):
  """run(kept, *lines of evals.jsonl) -> a workdir as a run leaves it, without the arrays."""
  def make(kept, *lines):
    home = tmp_path / "run@home"
    for step in kept:
      (home / "checkpoints" / str(step)).mkdir(parents=True)
    (home / "evals.jsonl").write_text("".join(f"{text}\n" for text in lines))
    return home
  return make


def test_a_workdir_a_step_and_a_name_with_an_at(run, tmp_path):
  home = run([2, 10])
  (home / "checkpoints" / "12.corrupt").mkdir()
  (home / "checkpoints" / "14.orbax-checkpoint-tmp-1").mkdir()
  assert checkpoint_ref.parse(str(home)) == checkpoint_ref.parse(f"{home}/") == CheckpointRef(home)
  assert checkpoint_ref.parse(f"{home}@10") == CheckpointRef(home, 10)
  assert str(CheckpointRef(home)) == str(home) and str(CheckpointRef(home, 10)) == f"{home}@10"
  assert checkpoint_ref.home_of(f"{home}@best:x") == home
  assert checkpoint_ref.home_of("a/b@7") == tmp_path.__class__("a/b")
  with pytest.raises(ConfigError, match="no checkpoint 12; steps there: 2, 10"):
    checkpoint_ref.parse(f"{home}@12")


def test_the_best_is_the_highest_greedy_success_and_the_earlier_of_equals(run):
  home = run([0, 5, 10, 15], line(0, 0.1), line(5, 0.4), line(10, 0.4), line(15, 0.3),
             line(15, 0.9, temperature=1.0), line(15, 0.8, variant="rule_ood"))
  found = checkpoint_ref.parse(f"{home}@best:id_seen")
  assert found.step == 5 and found.note == f"{home}@best:id_seen is step 5: success 40.0%, greedy."
  assert checkpoint_ref.parse(f"{home}@best:rule_ood").step == 15


def test_where_greedy_was_not_measured_the_lowest_temperature_counts(run):
  home = run([5, 10], line(5, 0.1, temperature=0.7), line(5, 0.9, temperature=1.0), line(10, 0.2, temperature=0.7),
             line(10, 0.0, temperature=1.0))
  found = checkpoint_ref.parse(f"{home}@best:id_seen")
  assert found.step == 10 and "at temperature 0.7" in found.note


def test_the_best_of_those_with_a_checkpoint_and_it_is_said(run):
  home = run([10, 15], line(0, 0.5), line(5, 0.8), line(10, 0.3), line(15, 0.4))
  found = checkpoint_ref.parse(f"{home}@best:id_seen")
  assert found.step == 15
  assert "Step 5 was better (80.0%), but has no checkpoint (kept: 10, 15)" in found.note
  (home / "evals.jsonl").write_text("\n".join([line(0, 0.5), line(10, 0.3), line(15, 0.5)]))
  note = f"{home}@best:id_seen is step 15: success 50.0%, greedy."
  assert checkpoint_ref.parse(f"{home}@best:id_seen") == CheckpointRef(home, 15, note)
  with pytest.raises(ConfigError, match=r"no step .* has a checkpoint \(evaluated: 5; kept: 10, 15\)"):
    (home / "evals.jsonl").write_text(line(5, 1.0))
    checkpoint_ref.parse(f"{home}@best:id_seen")


def test_where_no_response_is_right_or_wrong_no_step_is_the_best(run):
  home = run([5])
  (home / "evals.jsonl").write_text(line(5, 0.0)[:-1] + ', "verifies": false}\n')
  with pytest.raises(ConfigError, match="has no evaluations of success"):
    checkpoint_ref.parse(f"{home}@best:id_seen")


def test_half_a_last_line_is_left_out_and_a_damaged_one_is_told(run):
  home = run([5])
  (home / "evals.jsonl").write_text(line(5, 0.2) + '\n{"step": 9, "codes": {}')
  assert checkpoint_ref.parse(f"{home}@best:id_seen").step == 5
  (home / "evals.jsonl").write_text(line(5, "high") + "\n" + line(9, 0.2) + "\n")
  with pytest.raises(ConfigError, match=r"evals.jsonl line 1 is damaged .*give .*@STEP"):
    checkpoint_ref.parse(f"{home}@best:id_seen")


@pytest.mark.parametrize("at, told", [
    ("@best:rule_odd", r"no evaluation on 'rule_odd': did you mean rule_ood\? Valid: id_seen, rule_ood"),
    ("@best:", "no evaluation on ''"), ("@last", "number of a step or best:VARIANT"), ("@", "number of a step"),
    ("@-1", "number of a step")])
def test_what_is_no_step_is_told_with_the_way_out(run, at, told):
  home = run([5], line(5, 0.2), line(5, 0.2, variant="rule_ood"))
  with pytest.raises(ConfigError, match=told) as error:
    checkpoint_ref.parse(f"{home}{at}", "config.start is 'x'")
  assert str(error.value).startswith("config.start is 'x': ")


def test_a_start_is_pinned_to_its_step_so_that_a_resumed_run_finds_the_same(run, capsys):
  home = run([5, 10], line(5, 0.4), line(10, 0.2))
  assert checkpoint_ref.resolve_best(f"{home}@best:id_seen") == f"{home}@5"
  assert "is step 5: success 40.0%" in capsys.readouterr().out
  for same in ("scratch", "base:x", str(home), f"{home}@10"):
    assert checkpoint_ref.resolve_best(same) == same
  assert not capsys.readouterr().out
  with pytest.raises(ConfigError, match=r"config.start is '.*@best:rule_odd': "):
    checkpoint_ref.resolve_best(f"{home}@best:rule_odd")


def test_what_is_no_run_is_told(run, tmp_path):
  with pytest.raises(ConfigError, match="nowhere has no checkpoints/"):
    checkpoint_ref.parse(str(tmp_path / "nowhere"))
  home = run([5])
  with pytest.raises(ConfigError, match=r"has no evaluations of success \(evals.jsonl\)"):
    checkpoint_ref.parse(f"{home}@best:id_seen")
  (home / "checkpoints" / "5").rmdir()
  with pytest.raises(ConfigError, match="has no checkpoint yet"):
    checkpoint_ref.parse(str(home))
  study = tmp_path / "study"
  (study / "runs" / "base-0" / "checkpoints").mkdir(parents=True)
  (study / "study.json").write_text("{}")
  with pytest.raises(ConfigError, match="is a study; give one of its runs: .*runs/base-0"):
    checkpoint_ref.parse(str(study))
