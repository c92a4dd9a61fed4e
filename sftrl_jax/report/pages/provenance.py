"""Where a study's numbers come from: one episode, what was shared, the FLOPs account, checks, runs and command."""

import numpy as np

from sftrl_jax.report import labels as report_labels
from sftrl_jax.report.pages import study_page, transcripts
from sftrl_jax.report.pages.blocks import Code, Heading, Notice, Table, Text
from sftrl_jax.report.stats import claims, flops_axis

RUN_KEYS = ("seed", "start", "workdir")


def played(study):
  """One episode by the start, SFT and the first other method."""
  trio = transcripts.choose(study, study.others[0]) if study.others and not study.crowd else None
  if trio is None:
    return []
  names = study.reference_label, study.methods[study.others[0]]
  return [Heading("One episode"), Text(
    f"An episode on {report_labels.variant_label(study.ood)}, greedy, chosen because it tells the methods apart (seed "
    f"{trio.seed}, {' and '.join(trio.run_names)}). It is not representative: of {trio.logged} episodes logged, "
    f"{names[1]} alone was right on {trio.right_only} and {names[0]} alone on {trio.wrong_only}."),
          transcripts.talks(trio.episodes)]


def shared(study):
  """Keys that differ between the methods' configs, and a warning if one of them is part of the task or the model."""
  firsts = {}
  for (_, method, _), run in study.runs.items():
    firsts.setdefault(method, run)
  if len(firsts) < 2:
    return []
  strip = [{k: v for k, v in run.config.items() if k not in RUN_KEYS} for run in firsts.values()]
  different = flops_axis.differing(strip)
  same = len(set().union(*map(flops_axis.flat, strip))) - len(different)
  alien = [key for key, _ in different if key.split(".")[0] in ("model", "env", "evals", "flops")]
  labels = [study.methods[method] for method in firsts]
  blocks = [Text(f"{same} config keys agree; these differ (seed and start aside):"),
            by_method(labels, different) if study.crowd else by_key(labels, different)]
  if alien:
    blocks.insert(0, Notice("The methods differ in more than the method", tuple(f"config.{key}" for key in alien)))
  return blocks


def by_key(labels, different):
  """A row a key of config, a column a method."""
  rows = [(report_labels.plain(key, 60), *(report_labels.plain(value, 60) for value in values)) for key, values in different]
  return Table(("config key", *labels), tuple(rows))


def by_method(labels, different):
  """A row a method: what it has that not all others have."""
  told = [", ".join(f"{key} = {values[index]}" for key, values in different if values[index] != "–")
          for index in range(len(labels))]
  return Table(("method", "its keys of config, where not all agree"),
               tuple((label, report_labels.plain(text, 600)) for label, text in zip(labels, told, strict=True)))


def method(study, effects):
  """What was shared, the FLOPs account, episodes, intervals, checks."""
  parts = []
  for name, label in study.methods.items():
    accounts = [flops_axis.account(study.runs[key]) for key in effects.comparison.at if key[1] == name]
    if accounts:
      means = {part: float(np.mean([each[part] for each in accounts])) for part in accounts[0]}
      parts.append((label, *(report_labels.flops_text(means[part]) for part in ("train", "rollout", "score", "total"))))
  blocks = [Heading("Method"), Text(
    "Every method starts from the same base models, on the same task, evaluator and episodes; compute is counted in "
    "FLOPs of post-training, with padding and rollouts that taught nothing charged to the method that made them. "
    + (f"The budget is {report_labels.flops_text(study.flops)} FLOPs. " if study.flops > 0 else "")
    + study_page.counted(study, effects, each=not study.crowd))]
  if parts:
    blocks.append(Table(("mean FLOPs a run", "training", "rollouts", "scoring", "total"), tuple(parts)))
  blocks += shared(study) + [Heading("Intervals", 3), Text(
    "The unit is the base model. Each of 10,000 resamples draws bases with replacement, seeds within each drawn base, "
    "and episodes; one draw of episodes serves start and end, all methods and all bases, so differences are paired "
    "episode by episode. The statistic is the mean over bases of the mean over seeds; the interval its 2.5% and 97.5% "
    "quantiles. Interpolations are done anew in each resample. The t interval uses the values of the bases alone.")]
  rows = tuple((what, "passed" if passed else "FAILED", detail) for what, passed, detail in claims.checks(study))
  return [*blocks, Heading("Checks", 3), Table(("check", "result", "detail"), rows)]


def appendix(study):
  """Every run, and the commands."""
  rows = []
  for run in (*study.starts.values(), *study.runs.values()):
    rows.append((run.name, run.verb, f"{run.last('step', 0):g}", report_labels.flops_text(flops_axis.account(run)["total"]),
                 report_labels.seconds_text(run.last("seconds")), "complete" if run.finished else run.phase or "unknown"))
  rows += [(name, "–", "–", "–", "–", "missing") for name in study.missing]
  blocks = [Heading("Runs"), Table(("run", "verb", "steps", "FLOPs", "time", "status"), tuple(rows))]
  if study.hardware:
    blocks.append(Text(f"Hardware: {study.hardware}"))
  if study.command:
    blocks += [Heading("Command"), Code(study.command)]
  return blocks
