"""`sftrl evaluate FROM --tasks=...`: tasks of lm-eval, asked of our decoder in this process.

Nothing is compiled or written before the tasks, their data and the model have been found to go together.
"""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from sftrl_jax import jsonl, paths
from sftrl_jax.parallel import hosts
from sftrl_jax.programs.evaluate.open_decoder import open_decoder
from sftrl_jax.programs.evaluate.subject import refuse_run, say
from sftrl_jax.programs.experiment import hosts_agree
from sftrl_jax.programs.harness import evaluation, harness_tasks
from sftrl_jax.programs.harness.decoder import on_mesh
from sftrl_jax.programs.harness.task_options import TaskOptions
from sftrl_jax.programs.runtime.lock import only_output

NAME = "tasks.jsonl"
SETTINGS = ("from", "step", "task", "shots", "limit", "chat", "dtype")   # lines that agree in all of them are replaced


def run(source: str, options: TaskOptions, overrides: Sequence[tuple[str, str]] = (), workdir: str = "",
        spec: str = "") -> list[dict]:
  """Asks the tasks and prints a table.

  source, overrides, spec: as of open_decoder.open_decoder
  workdir: where tasks.jsonl goes (default: WORKDIR/evaluate/STEP; runs/evaluate/NAME without a run)

  Returns the new lines of tasks.jsonl: one a task or group, metric and filter. Of several processes all ask the same
  requests, whose rows the mesh splits, and the first one writes and prints. Raises ConfigError.
  """
  refuse_run(workdir)
  command = {"from": source, "overrides": list(map(list, overrides)), "config": spec, "workdir": workdir}
  hosts_agree.check({**command, **dataclasses.asdict(options)}, "evaluate", {}, os.environ)
  tasks = harness_tasks.load_together(options)
  opened = open_decoder(source, overrides, spec, options.dtype)
  decoder = opened.decoder
  evaluation.refuse_unfit(tasks, decoder)
  with on_mesh(decoder):
    params, step = opened.load()
    out = opened.output(workdir, step)
    with only_output(out, "--workdir", inside=True) if hosts.is_first_process() else contextlib.nullcontext():
      settings = {"from": source, "step": step, **evaluation.settings_of(decoder, tasks)}
      lines = evaluation.lines_of(evaluation.ask(tasks, decoder, params), settings)
      if hosts.is_first_process():
        write(out, lines)
  say(table(lines))
  say(f"Written: {', '.join(map(str, jsonl.files(out / NAME)))}")
  return lines


def write(out: Path, lines: Sequence[dict]) -> None:
  """Adds the lines to tasks.jsonl, in the place of those of the same tasks with the same settings."""
  paths.make(out)
  setting = lambda line: tuple(line.get(key) for key in SETTINGS)
  replaced = {setting(line) for line in lines}
  jsonl.cut(out / NAME, lambda line: setting(line) not in replaced)
  writer = jsonl.Writer(out / NAME)
  for line in lines:
    writer.write(line)
  writer.close_part()


def table(lines: Sequence[dict]) -> str:
  """A row a metric: value, standard error, documents, shots, version of the task."""
  wide = max([len("task"), *(len(line["task"]) for line in lines)]) + 2
  names = [line["metric"] + (f" ({line['filter']})" if line["filter"] != "none" else "") for line in lines]
  metric_wide = max([len("metric"), *map(len, names)]) + 2
  rows = [f"{'task':<{wide}}{'metric':<{metric_wide}}{'value':>10}{'stderr':>10}{'n':>8}{'shots':>7}{'version':>9}"]
  cell = lambda value: "" if value is None else f"{value:.4f}"
  for line, name in zip(lines, names, strict=True):
    n, shots, version = ("" if line[key] is None else line[key] for key in ("n", "shots", "version"))
    rows.append(f"{line['task']:<{wide}}{name:<{metric_wide}}{cell(line['value']):>10}{cell(line['stderr']):>10}"
                f"{n:>8}{shots:>7}{version:>9}")
  return "\n".join([*rows, f"By lm-eval {lines[0]['lm_eval']}" + (
      f"; the first {lines[0]['limit']} documents of each task." if lines[0]["limit"] else ".")])
