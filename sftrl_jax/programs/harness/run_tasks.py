"""Tasks of lm-eval along a run: config.evals.tasks, asked wherever the run is evaluated, into its tasks.jsonl."""

import dataclasses
import os
from collections.abc import Callable, Sequence

from sftrl_jax.programs.experiment import hosts_agree
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.harness import evaluation, harness_tasks
from sftrl_jax.programs.harness.decoder import Decoder
from sftrl_jax.programs.harness.task_options import options_of
from sftrl_jax.training.position import Position
from sftrl_jax.training.updates.ema import of_weights


def with_tasks(experiment: Experiment) -> Experiment:
  """The run with the tasks of config.evals.tasks, loaded with their data; as it is where there are none.

  Nothing is compiled or written. ConfigError for tasks that cannot be loaded, or that its model cannot be asked.
  """
  options = options_of(experiment.evals)
  if options is None:
    return experiment
  hosts_agree.check(experiment.config, experiment.verb, {}, os.environ)   # before one process asks what no other does
  tasks = harness_tasks.load_together(options)
  evaluation.refuse_unfit(tasks, Decoder.of(experiment))
  return dataclasses.replace(experiment, tasks=tasks)


def measure(experiment: Experiment, params: dict, position: Position, kind: str = "",
            after_batch: Callable[[], None] = lambda: None) -> list[dict]:
  """The lines of tasks.jsonl of these parameters, under the mesh of the run; the same in all processes, which all ask.

  params: a tree of `model`
  position: after the step that they are of
  kind: of the params, "" or EMA, see `of_weights`; after_batch: called after every batch of requests
  """
  decoder, tasks = Decoder.of(experiment), experiment.tasks
  about = {"step": position.step, "flops": position.total_flops, "seconds": round(position.seconds, 3),
           **evaluation.settings_of(decoder, tasks)}
  lines = evaluation.lines_of(evaluation.ask(tasks, decoder, params, after_batch), about)
  return [{**line, "task": of_weights(line["task"], kind)} for line in lines]


def summary(step: int, lines: Sequence[dict], seconds: float) -> str:
  """One line a person reads at every evaluation: the first metric of each task."""
  first = {}
  for line in lines:
    first.setdefault(line["task"], line)
  texts = [f"{task} {line['metric']} " + ("–" if line["value"] is None else f"{line['value']:.4g}")
           for task, line in first.items()]
  return f"step {step:>5}  {'  '.join(texts)}  ({seconds:.1f} s)"
