"""Where a study's numbers come from: one episode, what was shared, the FLOPs account, checks, runs and command."""

from collections.abc import Sequence

import numpy as np

from sftrl_jax.report.labels import flops_text, plain, seconds_text
from sftrl_jax.report.pages.blocks import Block, Code, Heading, Notice, Table, Text
from sftrl_jax.report.pages.study_page import sample_sizes
from sftrl_jax.report.pages.transcripts import choose, transcripts
from sftrl_jax.report.records import PER_STEP, Study
from sftrl_jax.report.stats import claims
from sftrl_jax.report.stats.bootstrap import MIN_BASES
from sftrl_jax.report.stats.effects import Effects
from sftrl_jax.report.stats.flops_axis import ABSENT, account, differing, flat

RUN_KEYS = ("seed", "start", "workdir")  # differ between runs of one method
TASK_SECTIONS = ("model", "env", "evals", "flops")  # must agree between methods


def episode(study: Study) -> list[Block]:
  """One episode as the start, SFT and the first compared method played it; [] if none was logged by all of them."""
  if not study.compared_methods or study.has_many_methods:
    return []
  method = study.compared_methods[0]
  chosen = choose(study, method)
  if chosen is None:
    return []
  return [Heading("One episode"), Text(
      f"An episode on {study.labels.variant(study.ood)}, greedy, chosen because it tells the methods apart (seed "
      f"{chosen.seed}, {' and '.join(chosen.run_names)}). It is not representative: of {chosen.logged} episodes "
      f"logged, {study.methods[method]} alone was right on {chosen.right_only} and {study.reference_label} alone on "
      f"{chosen.wrong_only}."), transcripts(chosen.episodes)]


def config_differences(study: Study) -> list[Block]:
  """Keys that differ between the methods' configs, and a warning if one of them is part of the task or the model."""
  configs = {}
  for (_, method, _), run in study.runs.items():
    configs.setdefault(method, {key: value for key, value in run.config.items() if key not in RUN_KEYS})
  if len(configs) < 2:
    return []
  differences = differing(list(configs.values()))
  agreeing = len(set().union(*map(flat, configs.values()))) - len(differences)
  labels = [study.methods[method] for method in configs]
  blocks = [Text(f"{agreeing} config keys agree; these differ (seed and start aside):"),
            (_by_method if study.has_many_methods else _by_key)(labels, differences)]
  task_keys = tuple(f"config.{key}" for key, _ in differences if key.split(".")[0] in TASK_SECTIONS
                    and not (key == "flops" and study.budgets))   # which the page names at its top
  return [Notice("The methods differ in more than the method", task_keys), *blocks] if task_keys else blocks


def _by_key(labels: Sequence[str], differences: Sequence[tuple[str, list]]) -> Table:
  """A row a key of config, a column a method."""
  rows = [(plain(key, 60), *(plain(value, 60) for value in values)) for key, values in differences]
  return Table(("config key", *labels), tuple(rows))


def _by_method(labels: Sequence[str], differences: Sequence[tuple[str, list]]) -> Table:
  """A row a method: the keys that it has and not all others."""
  rows = []
  for index, label in enumerate(labels):
    pairs = [f"{key} = {values[index]}" for key, values in differences if values[index] != ABSENT]
    rows.append((label, plain(", ".join(pairs), 600)))
  return Table(("method", "its keys of config, where not all agree"), tuple(rows))


def method(study: Study, effects: Effects) -> list[Block]:
  """What was shared, the FLOPs account, episodes, intervals, checks."""
  accounts = []
  for name, label in study.methods.items():
    charged = [account(study.runs[key]) for key in effects.comparison.at if key[1] == name]
    if charged:
      means = (float(np.mean([run[part] for run in charged])) for part in ("train", "rollout", "score", "total"))
      accounts.append((label, *map(flops_text, means)))
  blocks: list[Block] = [Heading("Method"), Text(
      f"Every method{'' if not study.bases_of else ' but those named above'} starts from the same base models, on the "
      "same task, evaluator and episodes; compute is counted in FLOPs of post-training, with padding and discarded "
      "rollouts charged to their method. "
      + (f"The budget is {flops_text(study.flops)} FLOPs. " if study.flops > 0 else "")
      + sample_sizes(study, effects, by_method=not study.has_many_methods))]
  if accounts:
    blocks.append(Table(("mean FLOPs a run", "training", "rollouts", "scoring", "total"), tuple(accounts)))
  blocks += [*config_differences(study), Heading("Intervals", 3), Text(
      "The unit is the base model. Each of 10,000 resamples draws bases with replacement, seeds within each drawn "
      "base, and episodes; one draw of episodes serves start and end, all methods and all bases, so differences are "
      "paired episode by episode. The statistic is the mean over bases of the mean over seeds; the interval its 2.5% "
      "and 97.5% quantiles. Interpolations are done anew in each resample. The t interval uses the values of the bases "
      f"alone. With fewer than {MIN_BASES} bases there is no interval over bases: bases and seeds stay as they are, "
      "and only episodes are drawn."
      + (" The share of right responses is their number over all responses of the drawn episodes, whose right "
         "responses and responses are drawn together." if PER_STEP in study.measures else ""))]
  rows = tuple((check, "passed" if passed else "FAILED", detail) for check, passed, detail in claims.checks(study))
  return [*blocks, Heading("Checks", 3), Table(("check", "result", "detail"), rows)]


def appendix(study: Study) -> list[Block]:
  """Every run, and the commands."""
  rows = []
  for run in (*study.starts.values(), *study.runs.values()):
    rows.append((run.name, run.verb, f"{run.last('step', 0):g}", flops_text(account(run)["total"]),
                 seconds_text(run.last("seconds")), "complete" if run.finished else run.phase or "unknown"))
  rows += [(name, "–", "–", "–", "–", "missing") for name in study.missing]
  blocks: list[Block] = [Heading("Runs"),
                         Table(("run", "verb", "steps", "FLOPs", "time", "status"), tuple(rows))]
  if study.hardware:
    blocks.append(Text(f"Hardware: {study.hardware}"))
  if study.command:
    blocks += [Heading("Command"), Code(study.command)]
  return blocks
