"""The functions of the verbs, beyond the command lines of tests/test_main.py."""

from sftrl_jax.main import main
from sftrl_jax.programs.runtime.lock import only_output


def test_report_knows_a_run_a_study_and_several(tmp_path, monkeypatch, capsys):
  from sftrl_jax.report import write
  asked = []
  for name in ("write_run", "write_study", "write_overlay"):
    monkeypatch.setattr(write, name, lambda *arguments, name=name: asked.append((name, *arguments)) or "report.html")
  run, study = tmp_path / "run", tmp_path / "study"
  for directory, file in ((run, "config.json"), (study, "study.json")):
    directory.mkdir()
    (directory / file).write_text("{}")
  assert main(["report", str(run)]) == 0
  assert main(["report", str(study), "--out", str(tmp_path / "o")]) == 0
  assert main(["report", str(run), str(study)]) == 0
  assert main(["report", str(study), "--price=1.5"]) == 0
  assert asked == [("write_run", run, run / "report", 0.0), ("write_study", study, tmp_path / "o", 0.0),
                   ("write_overlay", [run, study], run / "overlay"), ("write_study", study, study / "report", 1.5)]
  assert main(["report", str(study), "--price=cheap"]) == 1
  assert main(["report", str(run), str(study), "--price=1"]) == 1
  assert "--price=cheap must be a number" in (errors := capsys.readouterr().err) and "give one run or study" in errors
  assert main(["report", str(tmp_path)]) == 1
  assert "is no workdir" in capsys.readouterr().err


def test_a_second_report_into_one_directory_is_refused(tmp_path, capsys):
  (tmp_path / "config.json").write_text("{}")
  with only_output(tmp_path / "report", "--out", inside=True):
    assert main(["report", str(tmp_path)]) == 1
  assert f"{tmp_path / 'report'} is being written by process" in capsys.readouterr().err


def test_a_report_is_not_written_into_a_file(tmp_path, capsys):
  taken = tmp_path / "file"
  taken.write_text("mine")
  assert main(["report", str(tmp_path), f"--out={taken}"]) == 1
  assert f"--out={taken} is a file" in capsys.readouterr().err and taken.read_text() == "mine"
