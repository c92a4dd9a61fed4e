"""`sftrl evaluate FROM --tasks=...`: the numbers of lm-eval's own backend, one line each; and refusals that write
nothing."""

import json
import pathlib
import shlex

import pytest

from sftrl_jax.main import main

ROOT = pathlib.Path(__file__).parents[3]
NAMES = "tiny_choice,tiny_answer,tiny_text"


@pytest.fixture
def ask(task_folder, tmp_path, monkeypatch, capsys):
  """ask(source, *words) -> (exit code, lines of tasks.jsonl in tmp_path/out, what was printed)."""
  monkeypatch.setenv("NPROC", "1")

  def run(source, *words):
    out = tmp_path / "out"
    code = main(["evaluate", str(source), f"--task_path={task_folder}", f"--workdir={out}", *words])
    file = out / "tasks.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return code, lines, capsys.readouterr()

  return run


def values(lines):
  return {(line["task"], line["metric"]): (line["value"], line["stderr"]) for line in lines}


def test_the_lines_are_what_lm_evals_own_backend_gives(ask, tiny_home, task_folder):
  pytest.importorskip("accelerate", reason="lm-eval's own backend needs torch and accelerate")
  import lm_eval
  from lm_eval.models.huggingface import HFLM
  from lm_eval.tasks import TaskManager
  home = tiny_home()
  code, lines, printed = ask(home, f"--tasks={NAMES}", "--shots=1")
  theirs = lm_eval.simple_evaluate(
      HFLM(str(home), device="cpu", dtype="float32", batch_size=2), tasks=NAMES.split(","), num_fewshot=1,
      task_manager=TaskManager(include_path=str(task_folder), include_defaults=False))
  expected = {(name, key.partition(",")[0]): (value, metrics[key.replace(",", "_stderr,")])
              for name, metrics in theirs["results"].items()
              for key, value in metrics.items() if key.endswith(",none") and "_stderr" not in key}
  assert code == 0 and values(lines).keys() == expected.keys() and len(lines) == 4
  for key, (value, stderr) in values(lines).items():
    assert value == pytest.approx(expected[key][0], rel=1e-4), key
    assert stderr == (pytest.approx(expected[key][1]) if expected[key][1] != "N/A" else None), key
  for line in lines:
    assert (line["from"], line["step"], line["n"], line["documents"]) == (str(home), 0, 5, 5)
    assert (line["lm_eval"], line["dtype"]) == (lm_eval.__version__, "float32")
    assert (line["context"], line["limit"]) == (48, None)
  assert {line["version"] for line in lines if line["task"] == "tiny_choice"} == {2.5}
  assert {line["task"]: line["shots"] for line in lines} == {"tiny_choice": 1, "tiny_answer": 1, "tiny_text": 1}
  assert "tiny_choice  acc_norm" in printed.out and "Written: " in printed.out


def test_a_later_command_replaces_the_lines_with_its_settings_and_keeps_others(ask, tiny_home):
  home = tiny_home()
  _, first, _ = ask(home, "--tasks=tiny_choice,tiny_text", "--limit=3")
  _, again, printed = ask(home, "--tasks=tiny_choice", "--limit=3")
  assert again == [*first[2:], *first[:2]] and "the first 3 documents of each task" in printed.out
  _, more, _ = ask(home, "--tasks=tiny_choice", "--limit=2", "--chat")
  assert more[:3] == again and [(line["n"], line["limit"], line["chat"]) for line in more[3:]] == [(2, 2, True)] * 2


def test_a_run_of_bytes_is_asked_at_its_step(ask, pair_config, tmp_path):
  from sftrl_jax.programs import preference
  preference.run(pair_config("dpo"), tmp_path / "dpo")
  code, lines, _ = ask(tmp_path / "dpo", "--tasks=tiny_choice,tiny_answer", "--limit=2")
  assert code == 0 and {line["step"] for line in lines} == {3} and {line["n"] for line in lines} == {2}
  code, _, printed = ask(tmp_path / "dpo", "--tasks=tiny_choice", "--chat")
  assert code == 1 and "--chat writes prompts by the model's chat template, but this model has none" in printed.err


@pytest.mark.parametrize(("words", "message"), [
    (["--tasks=tiny_chioce"], "did you mean tiny_choice"), (["--tasks=tiny_choice", "--limit=0"], "--limit is '0'"),
    (["--tasks=tiny_choice", "--dtype=int8"], "--dtype is 'int8'"),
    (["--tasks=tiny_choice", "--weights"], "give one of the two"),
    (["--tasks=tiny_answer", "--config.evals.episodes=3"], "--tasks plays none"),
    (["--tasks=tiny_choice"], "--tasks=tiny_choice: the model cannot read this task: 'The' is no word"),
    (["--tasks=tiny_answer"], "--tasks=tiny_answer: the model cannot read this task")])
def test_what_a_run_with_a_closed_vocabulary_cannot_be_asked_is_one_error_and_writes_nothing(
    words, message, ask, finished, tmp_path, monkeypatch):
  from sftrl_jax.programs.harness import likelihood
  monkeypatch.setattr(likelihood, "score_rows", lambda model: pytest.fail("It compiles."))
  code, lines, printed = ask(finished("sft"), *words)
  assert code == 1 and printed.err.count("error: ") == 1 and message in printed.err
  assert not (tmp_path / "out").exists() and not lines


def test_a_response_as_long_as_the_context_is_refused(ask, tiny_home, task_folder, tmp_path):
  path = task_folder / "answer.yaml"
  path.write_text(path.read_text().replace("max_gen_toks: 9", "max_new_tokens: 48"))
  code, _, printed = ask(tiny_home(), "--tasks=tiny_answer")
  assert code == 1 and "responses have up to 48 tokens, but the model was trained for a context of 48" in printed.err
  assert not (tmp_path / "out").exists()


def test_the_workdir_of_a_run_is_not_written_into(finished, task_folder, capsys):
  home = finished("sft")
  assert main(["evaluate", str(home), "--tasks=tiny_choice", f"--task_path={task_folder}", f"--workdir={home}"]) == 1
  assert "is the workdir of a run" in capsys.readouterr().err and not (home / "tasks.jsonl").exists()


def test_the_example_of_the_page_runs(tiny_home, monkeypatch, capsys, tmp_path):
  """Its commands, on a tiny model in the place of theirs."""
  pytest.importorskip("lm_eval", reason="tasks need the extra `eval`")
  monkeypatch.chdir(ROOT)
  page = (ROOT / "sftrl_jax/programs/evaluate/README.md").read_text()
  commands = [shlex.split(line, comments=True) for line in page.replace("\\\n", " ").splitlines()
              if line.startswith("sftrl evaluate") and "--task_path=" in line]
  monkeypatch.setenv("NPROC", "1")
  for _, verb, _, *words in commands:
    assert main([verb, str(tiny_home()), *words, "--limit=3", f"--workdir={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "capitals" in printed and "sums" in printed
  assert commands
