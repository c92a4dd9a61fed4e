"""`sftrl evaluate FROM --tasks=...`: tasks of lm-eval, asked of our decoder in this process.

Nothing is compiled or written before the tasks, their data and the model have been found to go together.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sftrl_jax import jsonl, paths
from sftrl_jax.parallel import hosts
from sftrl_jax.programs.config.errors import AbortAllProcesses, ConfigError
from sftrl_jax.programs.evaluate import harness_tasks
from sftrl_jax.programs.evaluate.decoder import Decoder, on_mesh, open_decoder
from sftrl_jax.programs.evaluate.subject import refuse_run
from sftrl_jax.programs.evaluate.task_options import TaskOptions
from sftrl_jax.programs.runtime.lock import only_output

NAME = "tasks.jsonl"
SETTINGS = ("from", "step", "task", "shots", "limit", "chat", "dtype")   # lines that agree in all of them are replaced
RESAMPLES = 1000   # for the standard error of metrics that have no formula


def run(source: str, options: TaskOptions, overrides: Sequence[tuple[str, str]] = (), workdir: str = "",
        spec: str = "") -> list[dict]:
  """Asks the tasks and prints a table.

  source, overrides, spec: as of decoder.open_decoder
  workdir: where tasks.jsonl goes (default: WORKDIR/evaluate/STEP; runs/evaluate/NAME without a run)

  Returns the new lines of tasks.jsonl: one a task or group, metric and filter. Raises ConfigError.
  """
  if hosts.several():
    raise AbortAllProcesses("--tasks runs in one process: leave --coordinator, --processes and --process out, and give "
                            "the command on one host.")
  refuse_run(workdir)
  tasks = harness_tasks.load(options)
  decoder = open_decoder(source, overrides, spec, options.dtype)
  refuse_unfit(tasks["tasks"], decoder, options)
  with on_mesh(decoder):
    params, step = decoder.load()
    out = decoder.output(workdir, step)
    with only_output(out, "--workdir", inside=True):
      settings = {"from": source, "step": step, "chat": options.chat, "dtype": decoder.model.config.dtype,
                  "context": decoder.context, "limit": options.limit or None}
      lines = lines_of(ask(tasks, decoder, params, options), settings)
      write(out, lines)
  print(table(lines))
  print(f"Written: {', '.join(map(str, jsonl.files(out / NAME)))}")
  return lines


def refuse_unfit(tasks: Mapping[str, Any], decoder: Decoder, options: TaskOptions) -> None:
  """ConfigError for tasks that this model cannot be asked."""
  tokenizer = decoder.tokenizer
  if options.chat and not getattr(getattr(tokenizer, "hf", None), "chat_template", None):
    raise ConfigError("--chat writes prompts by the model's chat template, but this model has none: leave it out.")
  for name, task in tasks.items():
    longest = harness_tasks.most_new_tokens(task)
    if longest >= decoder.context:
      raise ConfigError(f"--tasks={name}: its responses have up to {longest} tokens, but the model was trained for a "
                        f"context of {decoder.context}: set a smaller max_gen_toks in a copy of its YAML file.")
  if tokenizer.kind == "words":   # a closed vocabulary: all texts are read before any is asked
    for name, text in harness_tasks.requests(tasks.values(), options):
      try:
        tokenizer.encode(text.strip(" "))
      except ValueError as error:
        raise ConfigError(f"--tasks={name}: the model cannot read this task: {error}") from error


def ask(tasks: Mapping[str, Any], decoder: Decoder, params: dict, options: TaskOptions) -> dict:
  """The results of lm-eval's evaluator."""
  from lm_eval.evaluator import evaluate

  from sftrl_jax.programs.evaluate.decoder_lm import DecoderLM
  return evaluate(DecoderLM(decoder, params), tasks, limit=options.limit or None, bootstrap_iters=RESAMPLES,
                  log_samples=False, apply_chat_template=options.chat, fewshot_as_multiturn=options.chat)


def lines_of(results: Mapping[str, Any], settings: Mapping[str, Any]) -> list[dict]:
  """Lines of tasks.jsonl: a metric of a task, or of a group, by a filter of its responses.

  results: of lm-eval's evaluator
  settings: what all lines have
  """
  from lm_eval import __version__
  lines = []
  for name, metrics in results["results"].items():
    counts = results["n-samples"].get(name, {})
    for key, value in metrics.items():
      metric, comma, filter_name = key.partition(",")
      if not comma or metric.endswith("_stderr"):
        continue
      stderr = metrics.get(f"{metric}_stderr,{filter_name}")
      lines.append({
          "task": name, "metric": metric, "filter": filter_name, "value": _number(value), "stderr": _number(stderr),
          "higher_is_better": results["higher_is_better"].get(name, {}).get(metric),
          "n": counts.get("effective", metrics.get("sample_len")), "documents": counts.get("original"),
          "shots": results["n-shot"].get(name), "version": results["versions"].get(name),
          "group": name in results.get("group_subtasks", {}), "lm_eval": __version__, **settings})
  return lines


def _number(value: Any) -> float | None:
  """A finite number; None for what is none, as lm-eval writes N/A."""
  try:
    return float(value) if math.isfinite(float(value)) else None
  except (TypeError, ValueError):
    return None


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
