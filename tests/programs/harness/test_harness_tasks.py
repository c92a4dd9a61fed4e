"""Tasks are loaded whole before a model is: names, data, few-shot examples; and refused with one message."""

import pytest

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.harness import harness_tasks
from sftrl_jax.programs.harness.task_options import TaskOptions


def load(folder, *names, **options):
  return harness_tasks.load(TaskOptions(names, task_path=str(folder), **options)).tasks


def prompts(task):
  task.build_all_requests(limit=None)
  return [instance.args[0] for instance in task.instances]


def change(folder, name, *changes):
  path = folder / f"{name}.yaml"
  text = path.read_text()
  for old, new in changes:
    assert text.count(old) == 1
    text = text.replace(old, new)
  path.write_text(text)


def test_a_task_of_ones_own_is_loaded_with_its_data(task_folder):
  tasks = load(task_folder, "tiny_choice", "tiny_answer", "tiny_text")
  assert {name: len(task.eval_docs) for name, task in tasks.items()} == dict.fromkeys(tasks, 5)
  assert [harness_tasks.most_new_tokens(task) for task in tasks.values()] == [0, 9, 0]
  assert prompts(tasks["tiny_choice"])[3] == "3 + 4 ="


def test_shots_are_the_same_each_time_and_never_the_question_itself(task_folder):
  first, again = (prompts(load(task_folder, "tiny_answer", shots=2)["tiny_answer"]) for _ in range(2))
  assert first == again and first != prompts(load(task_folder, "tiny_answer", shots=1)["tiny_answer"])
  for prompt in first:
    *examples, question = prompt.split("\n\n")
    assert len(examples) == 2 and not any(example.startswith(question) for example in examples)
  change(task_folder, "answer", ("output_type", "num_fewshot: 0\noutput_type"))   # which lm-eval never changes
  assert "\n\n" not in prompts(load(task_folder, "tiny_answer", shots=2)["tiny_answer"])[0]


def test_reading_all_requests_leaves_them_as_they_are(task_folder):
  task, = load(task_folder, "tiny_choice", shots=2).values()
  texts = [text for _, text in harness_tasks.requests([task], TaskOptions(("tiny_choice",)))]
  assert texts[::2] == prompts(task) and any(text.endswith("\n\nThe capital of France is Paris") for text in texts)


def test_a_function_in_a_task_file_of_ones_own_runs(task_folder):
  (task_folder / "own.py").write_text("def shout(docs):\n"
                                      "  return docs.map(lambda doc: {'question': doc['question'].upper()})\n")
  change(task_folder, "choice", ("output_type", "process_docs: !function own.shout\noutput_type"))
  assert prompts(load(task_folder, "tiny_choice")["tiny_choice"])[3] == "3 + 4 ="
  assert prompts(load(task_folder, "tiny_choice")["tiny_choice"])[0] == "THE CAPITAL OF FRANCE IS"


def test_an_unknown_task_is_refused_with_names_near_it(task_folder):
  with pytest.raises(ConfigError, match="--tasks names 'tiny_chose', which is no task .*: did you mean tiny_choice"):
    load(task_folder, "tiny_chose", "tiny_answer")
  with pytest.raises(ConfigError, match="--task_path=.*nowhere is no directory"):
    load(task_folder / "nowhere", "tiny_choice")


def test_a_task_of_lm_eval_beside_ones_own_needs_its_data(task_folder, monkeypatch):
  """Without a network, as in a test: no data comes from the hub."""
  import datasets
  import huggingface_hub
  monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
  monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
  with pytest.raises(ConfigError, match="--tasks=arc_easy: this task, or its data, cannot be read: .*arc"):
    load(task_folder, "tiny_choice", "arc_easy")
  with pytest.raises(ConfigError, match="which is no task of lm-eval .*: did you mean arc_easy"):
    load(task_folder, "arc_eesy")


@pytest.mark.parametrize(("name", "changes", "message"), [
    ("choice", [("rows.jsonl", "gone.jsonl")], "--tasks=tiny_choice: this task, or its data, cannot be read: .*gone"),
    ("choice", [("doc_to_choice: choices", "doc_to_choice: nothing")], "--tasks=tiny_choice: this task, or its data"),
    ("choice", [("output_type", "process_docs: !function nowhere.at_all\noutput_type")], "cannot be read: .*nowhere"),
    ("choice", [("output_type", "unsafe_code: true\noutput_type")], "runs the code that a model writes"),
    ("answer", [("do_sample: false", "num_beams: 4")], "num_beams: 4, which this sampler lacks"),
    ("choice", [("test_split: test", "test_split: exam")], "cannot be read")])
def test_a_task_that_cannot_be_asked_says_why(name, changes, message, task_folder):
  change(task_folder, name, *changes)
  with pytest.raises(ConfigError, match=message):
    load(task_folder, f"tiny_{name}")


def test_what_has_no_effect_is_let_through(task_folder):
  change(task_folder, "answer", ("do_sample: false", "num_beams: 1"))
  assert load(task_folder, "tiny_answer")


def test_without_lm_eval_the_extra_is_named(monkeypatch):
  monkeypatch.setattr(harness_tasks, "PACKAGE", "lm_eval_that_is_not_there")
  with pytest.raises(ConfigError, match=r"needs the package lm-eval, which is not installed: pip install .*\[eval\]"):
    harness_tasks.load(TaskOptions(("arc_easy",)))
