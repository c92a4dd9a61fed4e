"""Tasks asked of a decoder, and what came out as lines of tasks.jsonl."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.harness import harness_tasks
from sftrl_jax.programs.harness.decoder import Decoder
from sftrl_jax.programs.harness.harness_tasks import LoadedTasks

RESAMPLES = 1000   # for the standard error of metrics that have no formula


def refuse_unfit(tasks: LoadedTasks, decoder: Decoder) -> None:
  """ConfigError for tasks that this model cannot be asked."""
  tokenizer, options, key = decoder.tokenizer, tasks.options, tasks.options.name_of("tasks")
  if options.chat and not getattr(getattr(tokenizer, "hf", None), "chat_template", None):
    raise ConfigError(f"{options.name_of('chat')} writes prompts by the model's chat template, but this model has "
                      "none: leave it out.")
  for name, task in tasks.tasks.items():
    longest = harness_tasks.most_new_tokens(task)
    if longest >= decoder.context:
      raise ConfigError(f"{key}={name}: its responses have up to {longest} tokens, but the model was trained for a "
                        f"context of {decoder.context}: set a smaller max_gen_toks in a copy of its YAML file.")
  if tokenizer.kind == "words":   # a closed vocabulary: all texts are read before any is asked
    for name, text in harness_tasks.requests(tasks.tasks.values(), options):
      try:
        tokenizer.encode(text.strip(" "))
      except ValueError as error:
        raise ConfigError(f"{key}={name}: the model cannot read this task: {error}") from error


def ask(tasks: LoadedTasks, decoder: Decoder, params: dict,
        after_batch: Callable[[], None] = lambda: None) -> dict:
  """The results of lm-eval's evaluator, under decoder.on_mesh. Of several processes all ask, and have the same results.

  after_batch: called after every batch of requests
  """
  from lm_eval.evaluator import evaluate

  from sftrl_jax.programs.harness.decoder_lm import DecoderLM
  tasks.restart()
  options = tasks.options
  with harness_tasks.bars_on_terminals():
    return evaluate(DecoderLM(decoder, params, after_batch), {"tasks": tasks.tasks, "groups": tasks.groups},
                    limit=options.limit or None, bootstrap_iters=RESAMPLES, log_samples=False,
                    apply_chat_template=options.chat, fewshot_as_multiturn=options.chat)


def settings_of(decoder: Decoder, tasks: LoadedTasks) -> dict:
  """How tasks were asked, as all lines have it."""
  return {"chat": tasks.options.chat, "dtype": decoder.model.config.dtype, "context": decoder.context,
          "limit": tasks.options.limit or None}


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
