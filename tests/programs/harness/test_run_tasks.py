"""Tasks along a run: asked where it is evaluated, once each whatever interrupts it, with the numbers of the program."""

import json
import os
import pathlib
import shlex

import pytest

from sftrl_jax.main import main
from sftrl_jax.programs import preference
from sftrl_jax.programs.config import smoke
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.harness import harness_tasks, likelihood, run_tasks
from sftrl_jax.programs.loop import session

ROOT = pathlib.Path(__file__).parents[3]
TASKS = "('tiny_choice', 'tiny_text')"


@pytest.fixture
def asked(task_folder, monkeypatch):
  """Overrides of a run that asks two tasks, whose texts are in the words of GeneralPoints."""
  rows = [{"question": question, "choices": choices, "answer": number % 2, "text": f"{question} {choices[0]}"}
          for number, (question, choices) in enumerate([
              ("CARDS c3 c4 FORMULA", ["3 + 4", "4"]), ("CARDS c8", ["8", "8 - 8"]), ("3 * 8", ["24", "8 * 3"])])]
  (task_folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return dict(evals__tasks=TASKS, evals__task_path=task_folder)


def values(lines):
  return {(line["step"], line["task"], line["metric"]): (line["value"], line["stderr"]) for line in lines}


def test_a_run_asks_at_its_evaluations_what_the_program_asks_of_its_checkpoints(
    task_folder, pair_config, lines_of, tmp_path, monkeypatch, capsys):
  """Start, steps between and end, by one program; parameters and their average; FLOPs as the step has them."""
  monkeypatch.setenv("NPROC", "1")
  home, names = tmp_path / "run", ("tiny_choice", "tiny_answer", "tiny_text")
  preference.run(pair_config(evals__tasks=names, evals__task_path=task_folder, evals__task_limit=4, evals__at="(0.6,)",
                             checkpoint__every=1, ema__decay=0.5, optimizer__learning_rate=0.1), home)
  printed = capsys.readouterr().out
  lines = lines_of(home, "tasks.jsonl")
  assert [line["step"] for line in lines] == [0] * 8 + [2] * 8 + [3] * 8 and printed.count("tiny_choice acc") == 6
  assert {line["task"] for line in lines} == {*names, *(f"ema:{name}" for name in names)}
  metrics = {line["step"]: line for line in lines_of(home, "metrics.jsonl")}
  assert metrics[3]["compile/count"] == metrics[1]["compile/count"]
  assert {(line["step"], line["flops"]) for line in lines} == {
      (0, 0.0), *((step, metrics[step]["compute/total_flops"]) for step in (2, 3))}
  assert {(line["n"], line["documents"], line["limit"]) for line in lines} == {(4, 5, 4)}
  for source, kind in (("@2", ""), ("@3", ""), ("@3:ema", "ema:")):
    out = tmp_path / f"out{len(source)}{source[1]}"
    words = [f"--task_path={task_folder}", f"--tasks={','.join(names)}", "--limit=4", f"--workdir={out}"]
    assert main(["evaluate", f"{home}{source}", *words]) == 0
    expected = {(step, f"{kind}{task}", metric): value for (step, task, metric), value in values(
        lines_of(out, "tasks.jsonl")).items()}
    assert len(expected) == 4 and expected.items() <= values(lines).items()
  texts = {(line["step"], line["value"]) for line in lines if line["task"].endswith("tiny_text")}
  assert len(texts) == 5   # the start is its own average


class Stopped(Exception): ...


def test_a_run_that_was_stopped_has_every_line_once(tiny, asked, run_of, lines_of, tmp_path, monkeypatch):
  """After a step; between the requests of an evaluation; and saved when all is asked and nobody has noted it."""
  config = tiny("sft", steps=3, checkpoint__every=1, evals__every=1, evals__variants="()", **asked)
  run_of(config, tmp_path / "straight")
  after_step, measure, evaluate = session.after_step, run_tasks.measure, session._evaluate

  def stop_after_step(experiment, run_state, state, done, *rest):
    after = after_step(experiment, run_state, state, done, *rest)
    after.store.wait_until_finished()
    raise Stopped

  def stop_within(experiment, params, position, kind, after_batch):
    def batch():
      raise Stopped
    return measure(experiment, params, position, kind, batch if position.step == 2 else after_batch)

  def stop_unnoted(experiment, run_state, log, stop):
    after = evaluate(experiment, run_state, log, stop)
    if run_state.position.step < 3:
      return after
    session._save_last(run_state, log)   # as a signal has it saved
    raise Stopped

  for module, name, function in ((session, "after_step", stop_after_step), (run_tasks, "measure", stop_within),
                                 (session, "_evaluate", stop_unnoted)):
    with monkeypatch.context() as patch, pytest.raises(Stopped):
      patch.setattr(module, name, function)
      run_of(config, tmp_path / "stopped")
  assert [line["step"] for line in lines_of(tmp_path / "stopped", "tasks.jsonl")][-3:] == [3] * 3
  run_of(config, tmp_path / "stopped")
  timeless = lambda home: [{key: value for key, value in line.items() if key != "seconds"}
                           for line in lines_of(home, "tasks.jsonl")]
  assert timeless(tmp_path / "stopped") == timeless(tmp_path / "straight")
  assert [line["step"] for line in timeless(tmp_path / "straight")] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
  assert not (tmp_path / "straight" / "evals.jsonl").exists()


def test_rl_asks_tasks_where_it_plays_variants(tiny, asked, run_of, lines_of, tmp_path):
  run_of(tiny("rl", evals__variants="('id_seen',)", evals__temperatures="(0.0,)", evals__at="()", **asked), tmp_path)
  assert [line["step"] for line in lines_of(tmp_path, "evals.jsonl")] == [0, 2]
  lines = lines_of(tmp_path, "tasks.jsonl")
  assert [line["step"] for line in lines] == [0] * 3 + [2] * 3
  assert values(lines[:3]).values() != values(lines[3:]).values()
  assert lines[-1]["flops"] == lines_of(tmp_path, "metrics.jsonl")[-1]["compute/total_flops"]


def refuse_work(patch):
  """Compiling the step, or a request, fails the test."""
  for module, name in ((session, "start_or_resume"), (likelihood, "score_rows")):
    patch.setattr(module, name, lambda *_: pytest.fail("It begins."))


@pytest.mark.parametrize(("changed", "message"), [
    (dict(), "config.evals.tasks=tiny_choice: the model cannot read this task: 'The' is no word"),
    (dict(evals__tasks="('tiny_chose',)"), "config.evals.tasks names 'tiny_chose', .*did you mean tiny_choice"),
    (dict(evals__task_path="/nowhere"), "config.evals.task_path=/nowhere is no directory"),
    (dict(evals__task_chat=True), "config.evals.task_chat writes prompts by the model's chat template"),
    (dict(gone=True), "config.evals.tasks=tiny_choice: this task, or its data, cannot be read: .*rows.jsonl"),
    (dict(without=True), "config.evals.tasks needs the package lm-eval, which is not installed")])
def test_what_cannot_be_asked_is_one_error_before_anything_is_done(changed, message, tiny, task_folder, run_of,
                                                                   tmp_path, monkeypatch):
  refuse_work(monkeypatch)
  if changed.pop("gone", False):
    (task_folder / "rows.jsonl").unlink()
  if changed.pop("without", False):
    monkeypatch.setattr(harness_tasks, "PACKAGE", "lm_eval_that_is_not_there")
  for method in ("sft", "rl"):
    with pytest.raises(ConfigError, match=message):
      run_of(tiny(method, **{**dict(evals__tasks=TASKS, evals__task_path=task_folder), **changed}), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_reward_model_and_a_run_without_tasks(pair_config, task_folder, tmp_path, monkeypatch):
  with pytest.raises(ConfigError, match=r"config.evals.tasks is .*trains a model that scores and does not answer"):
    preference.run(pair_config("reward", evals__tasks=TASKS, evals__task_path=task_folder), tmp_path / "run")
  assert not (tmp_path / "run").exists()
  from sftrl_jax.programs.experiment.build import build_experiment
  monkeypatch.setattr(harness_tasks, "PACKAGE", "lm_eval_that_is_not_there")
  experiment = build_experiment(pair_config(), "preference")
  assert run_tasks.with_tasks(experiment) is experiment


def test_the_example_of_the_page_runs_small(one_device, task_folder, monkeypatch, lines_of, tmp_path):
  monkeypatch.chdir(ROOT)
  page = (ROOT / "sftrl_jax/programs/evaluate/README.md").read_text().replace("\\\n", " ")
  words, = (shlex.split(line) for line in page.splitlines() if "--config.evals.tasks=" in line)
  small = [word.replace("chat.py", "chat.py:smoke").replace("runs/", f"{tmp_path}/") for word in words[1:]]
  for name in ("NPROC", "XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL", *smoke.ENVIRONMENT):
    monkeypatch.setenv(name, os.environ.get(name, smoke.ENVIRONMENT.get(name, "")))
  assert main([*small, "--config.log.report=False", "--config.batch=2"]) == 0
  lines = lines_of(tmp_path / "chat", "tasks.jsonl")
  assert {(line["step"], line["task"], line["n"]) for line in lines} == {
      (step, task, 32) for step in (0, 3) for task in ("capitals", "sums")}


def test_the_line_for_people_has_the_first_metric_of_each_task():
  lines = [{"task": "a", "metric": "acc", "value": 0.51234}, {"task": "a", "metric": "acc_norm", "value": 1.0},
           {"task": "b", "metric": "word_perplexity", "value": None}]
  assert run_tasks.summary(7, lines, 1.26) == "step     7  a acc 0.5123  b word_perplexity –  (1.3 s)"


ASKED = """
import json, os, pathlib, sys
import jax
jax.config.update("jax_disable_most_optimizations", True)
from ml_collections import ConfigDict
from sftrl_jax.parallel import hosts, peers
from sftrl_jax.programs import preference
from sftrl_jax.programs.config.errors import AbortAllProcesses
from sftrl_jax.programs.evaluate import tasks
from sftrl_jax.programs.harness.task_options import TaskOptions

hosts.join({})
fellows = peers.connect()
configs, home = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])
given = {**configs["options"], "tasks": tuple(configs["options"]["tasks"])}
tasks.run(configs["model"], TaskOptions(**given), workdir=str(home / "asked"))
preference.run(ConfigDict(configs["run"]), home / "run")
second = not hosts.is_first_process()
for folder, changes in (("gone", {"limit": 2 + second}), ("gone", {}), ("others", {})):
  os.chdir(home / folder / str(hosts.index()))
  try:
    tasks.run(configs["model"], TaskOptions(**{**given, "task_path": ".", **changes}), workdir=str(home / "refused"))
  except AbortAllProcesses as error:
    print("REFUSED", error, flush=True)
"""


def test_two_processes_ask_tasks_as_one_does(
    tiny_home, task_folder, task_files, pair_config, run_in_two, lines_of, tmp_path):
  """The program, and a run; and commands, data and task files in which they differ are refused by both."""
  from sftrl_jax.programs.evaluate import tasks
  from sftrl_jax.programs.harness.task_options import TaskOptions
  options = dict(tasks=("tiny_choice", "tiny_answer"), shots=1, task_path=str(task_folder))
  config = pair_config("dpo", steps=1, evals__tasks="('tiny_text',)", evals__task_path=task_folder)
  for name in ("gone", "others"):
    for process in "01":
      (tmp_path / name).mkdir(exist_ok=True)
      task_files.write_tasks(tmp_path / name / process)
  (tmp_path / "gone" / "1" / "rows.jsonl").unlink()
  rows = tmp_path / "others" / "1" / "rows.jsonl"
  rows.write_text(rows.read_text().replace("France", "Spain"))
  model = str(tiny_home())
  expected = tasks.run(model, TaskOptions(**options), workdir=str(tmp_path / "one"))
  preference.run(config, tmp_path / "straight")
  both = run_in_two(ASKED, {"model": model, "options": options, "run": config.to_dict()}, tmp_path)
  for code, output in both:
    assert code == 0, output
  by_key = lambda lines: {(line["step"], line["task"], line["metric"]): line["value"] for line in lines}
  for ours, theirs in ((expected, lines_of(tmp_path / "asked", "tasks.jsonl")),
                       (lines_of(tmp_path / "straight", "tasks.jsonl"), lines_of(tmp_path / "run", "tasks.jsonl"))):
    assert by_key(theirs) == pytest.approx(by_key(ours), rel=1e-4) and len(theirs) == len(ours)
  assert sum("Written:" in output for _, output in both) == 1 and not (tmp_path / "refused").exists()
  refused = [[line for line in output.splitlines() if line.startswith("REFUSED")] for _, output in both]
  assert ["limit is 2 in process 0, 3 in process 1" in both[0][1], *(len(lines) for lines in refused)] == [True, 3, 3]
  assert "Process 1 cannot ask these tasks: --tasks=tiny_choice: this task, or its data" in refused[0][1]
  assert "--tasks=tiny_choice: this task, or its data, cannot be read" in refused[1][1]
  for lines in refused:
    assert "process 1 would ask other requests than process 0" in lines[2]
