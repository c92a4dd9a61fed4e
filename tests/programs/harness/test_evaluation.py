"""What lm-eval's evaluator gives becomes lines; who asks again asks the same, and compiles nothing for it."""

import random

import jax
import numpy as np
import pytest

from sftrl_jax.programs.evaluate.open_decoder import open_decoder
from sftrl_jax.programs.harness import evaluation, harness_tasks
from sftrl_jax.programs.harness.decoder import on_mesh
from sftrl_jax.programs.harness.task_options import TaskOptions
from sftrl_jax.training import compile_count


def test_groups_and_values_that_are_none(task_folder):
  results = {"results": {"all": {"name": "all", "acc,none": 0.5, "acc_stderr,none": "N/A", "sample_len": 7},
                         "part": {"acc,none": float("nan"), "acc_stderr,none": 0.1, "alias": " - part"}},
             "n-samples": {"part": {"original": 9, "effective": 7}}, "n-shot": {"all": 2, "part": 2},
             "versions": {"all": 1}, "higher_is_better": {"all": {"acc": True}}, "group_subtasks": {"all": ["part"]}}
  first, second = evaluation.lines_of(results, {"limit": None})
  assert (first["value"], first["stderr"], first["group"], first["n"], first["documents"]) == (0.5, None, True, 7, None)
  assert (second["value"], second["stderr"], second["group"], second["n"]) == (None, 0.1, False, 7)


def test_parameters_are_asked_the_same_each_time_by_the_same_programs(tiny_home, task_folder, capsys):
  """Few-shot examples that a global generator of Python chooses among them; and other parameters give other values."""
  (task_folder / "own.py").write_text("import random\n\ndef ask(doc):\n"
                                      "  return random.choice(['', 'So: ']) + doc['question']\n")
  path = task_folder / "choice.yaml"
  path.write_text(path.read_text().replace('doc_to_text: "{{question}}"', "doc_to_text: !function own.ask"))
  names = ("tiny_choice", "tiny_answer", "tiny_text")
  tasks = harness_tasks.load(TaskOptions(names, shots=2, task_path=str(task_folder)))
  opened, batches = open_decoder(str(tiny_home()), []), []
  capsys.readouterr()
  with on_mesh(opened.decoder):
    params = opened.load()[0]
    other = jax.tree.map(lambda leaf: leaf * 0.5, params)
    ask = lambda params: evaluation.lines_of(
        evaluation.ask(tasks, opened.decoder, params, lambda: batches.append(1)), {})
    first, asked = ask(params), len(batches)
    random.seed(7)
    np.random.default_rng(7)
    compiled = compile_count.count()
    changed, again = ask(other), ask(params)
  assert again == first and len(first) == 4 and asked > 3 and len(batches) == 3 * asked
  assert compile_count.count() == compiled
  assert [line["value"] for line in changed] != [line["value"] for line in first]
  assert "it/s" not in capsys.readouterr().err   # no bar where there is no terminal


@pytest.mark.parametrize("of_config, names", [(False, ("--tasks=tiny_answer", "--chat")), (True, (
    "config.evals.tasks=tiny_answer", "config.evals.task_chat"))])
def test_a_refusal_names_the_flag_or_the_key(of_config, names, task_folder, one_device):
  from sftrl_jax.models import DecoderConfig, build
  from sftrl_jax.parallel import mesh as meshes
  from sftrl_jax.programs.config.errors import ConfigError
  from sftrl_jax.programs.harness.decoder import Decoder
  from sftrl_jax.text import tokenizer as tokenizers
  mesh, options = meshes.make(meshes.MeshConfig()), dict(task_path=str(task_folder), of_config=of_config)
  tasks = harness_tasks.load(TaskOptions(("tiny_answer",), **options))
  own = tokenizers.words(("a", "b"))
  model = build(DecoderConfig(vocab=own.size, width=8, layers=1, heads=1, context=9))
  with pytest.raises(ConfigError, match=f"{names[0]}: its responses have up to 9 tokens"):
    evaluation.refuse_unfit(tasks, Decoder(model, own, mesh))
  longer = build(DecoderConfig(vocab=own.size, width=8, layers=1, heads=1, context=99))
  with pytest.raises(ConfigError, match=f"{names[0]}: the model cannot read this task: 'The'"):
    evaluation.refuse_unfit(tasks, Decoder(longer, own, mesh))
  chats = harness_tasks.load(TaskOptions(("tiny_answer",), chat=True, **options))
  with pytest.raises(ConfigError, match=f"{names[1]} writes prompts by the model's chat template"):
    evaluation.refuse_unfit(chats, Decoder(longer, own, mesh))
