"""A finished run read back: the same parameters give the same answers, and what is no run is told apart."""

import json

import pytest

from sftrl_jax.main import main
from sftrl_jax.programs import evaluate
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import saved_run


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_evaluating_a_checkpoint_repeats_what_the_run_measured_at_its_end(finished, lines_of, tmp_path, verb, capsys):
  home = finished(verb)
  lines = evaluate.run(str(home), [], str(tmp_path / "out"))
  last = [line for line in lines_of(home, "evals.jsonl") if line["step"] == 2]
  same = ("step", "variant", "temperature", "outcomes", "codes", "success", "seed")
  assert [[line[key] for key in same] for line in lines] == [[line[key] for key in same] for line in last]
  assert lines_of(tmp_path / "out", "evals.jsonl") == lines
  assert "rule_ood" in capsys.readouterr().out


def test_overrides_change_what_is_evaluated_and_nothing_in_the_run(finished, tmp_path, capsys):
  home = finished("sft")
  before = (home / "config.json").read_text(), (home / "evals.jsonl").read_text()
  lines = evaluate.run(f"{home}@best:rule_ood", [("evals.episodes", "5"),
                                                               ("evals.temperatures", "(0.0,)")], str(tmp_path))
  assert [line["episodes"] for line in lines] == [5, 5] and {line["step"] for line in lines} == {2}
  assert f"{home}@best:rule_ood is step 2" in capsys.readouterr().out
  assert before == ((home / "config.json").read_text(), (home / "evals.jsonl").read_text())


def test_a_run_in_a_bucket_is_evaluated_and_reported_there(afar, lines_of, capsys):
  home, _ = afar
  lines = evaluate.run(f"{home}@best:rule_ood", [], "")
  assert lines_of(home / "evaluate" / str(lines[0]["step"]), "evals.jsonl") == lines
  again = evaluate.run(f"{home}@{lines[0]['step']}", [], "")
  assert lines_of(home / "evaluate" / str(lines[0]["step"]), "evals.jsonl") == again
  assert main(["report", str(home)]) == 0
  assert f"Report: {home}/report/report.html" in capsys.readouterr().out
  assert b"rule_ood" in (home / "report" / "report.html").read_bytes() and (home / "report" / "success.png").is_file()


@pytest.mark.parametrize("source", ["nowhere", "nowhere@x", "nowhere@best:id_seen"])
def test_what_is_no_workdir_is_refused(source, tmp_path):
  with pytest.raises(ConfigError, match="nowhere is no workdir of a run: it holds no config.json"):
    saved_run.parse(str(tmp_path / source))


def test_an_evaluation_never_replaces_the_measurements_of_a_run(finished):
  home = finished("sft")
  before = (home / "evals.jsonl").read_text()
  with pytest.raises(ConfigError, match="is the workdir of a run"):
    evaluate.run(str(home), [], str(home))
  assert (home / "evals.jsonl").read_text() == before


def test_a_missing_step_names_the_steps_there_are(finished, tmp_path):
  with pytest.raises(ValueError, match="no checkpoint 7; steps there: .*2"):
    evaluate.run(f"{finished('sft')}@7", [], str(tmp_path))


def test_a_study_and_a_torn_config_are_refused(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"verb": "study"}))
  with pytest.raises(ConfigError, match="one of its runs"):
    saved_run.verb_of(tmp_path)
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(ConfigError, match="no JSON"):
    saved_run.verb_of(tmp_path)
