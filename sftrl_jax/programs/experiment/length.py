"""How long a run is, and what its learning rate makes of it: sentences about numbers that do not go together."""

import dataclasses

from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.learner import Learner, steps_at_most
from sftrl_jax.training.algorithms import group_of
from sftrl_jax.training.optimizers import catalogue, ranges
from sftrl_jax.training.optimizers.schedule import make_schedule
from sftrl_jax.training.position import Limits, Position


def notes(experiment: Experiment, learner: Learner) -> tuple[str, ...]:
  """Sentences for the beginning of a run, whose numbers are each in range."""
  return tuple(note for note in (_warm_up(experiment, learner), _epsilon(experiment), _context(experiment, learner),
                                 _whole_rows(experiment)) if note)


def _warm_up(experiment: Experiment, learner: Learner) -> str:
  warmup, updates = experiment.schedule.warmup, _updates(learner, experiment.limits)
  if warmup < updates or (warmup == updates and not experiment.schedule.has_length):
    return ""
  share = f"the rate ends at {100 * min(1.0, updates / warmup):.3g}% of its peak"
  return (f"config.schedule.warmup is {warmup} updates, but this run makes {updates}"
          f"{' at most' if experiment.algorithm and experiment.limits.flops else ''}: {share}"
          f"{' and never goes down' if experiment.schedule.has_length else ''}. Shorten it, or lengthen the run.")


def _epsilon(experiment: Experiment) -> str:
  optimizer = experiment.optimizer
  if catalogue.is_user_file(optimizer.name):
    return ""
  return ranges.warning(optimizer.name, {**catalogue.entry(optimizer.name).given, **optimizer.args})


def _context(experiment: Experiment, learner: Learner) -> str:
  context, length = experiment.model.config.context, learner.row_tokens
  if not context or length <= context:
    return ""
  key = "data.length" if experiment.data else "rollout.max_new_tokens"
  return (f"config.{key}: a row has {length} tokens, but the model was trained for {context} positions: beyond them "
          "its answers may be poor.")


def _whole_rows(experiment: Experiment) -> str:
  if group_of(experiment.algorithm_config) == 1 or not experiment.compute.share_prompts:
    return ""
  reason = experiment.whole_rows_because
  return f"config.compute.share_prompts: each row is computed with its own prompt, for {reason}." if reason else ""


def _updates(learner: Learner, limits: Limits) -> int:
  """The updates of a run; where rollouts are paid from the same FLOPs, or rows cost what they have, an upper bound."""
  return steps_at_most(limits, learner.least_flops) * learner.updates


def record(experiment: Experiment) -> dict[str, float]:
  """What a checkpoint remembers of the length of its run."""
  return {**dataclasses.asdict(experiment.limits), "updates": experiment.schedule.updates}


def change(experiment: Experiment, learner: Learner, recorded: dict[str, float], position: Position,
           update: int) -> str:
  """What another length makes of the learning rate of a run that goes on, "" if nothing.

  recorded: of the checkpoint, see `record`; update: the number of the next update
  """
  schedule = experiment.schedule
  if not schedule.has_length or not recorded or recorded == record(experiment) or not update:
    return ""
  before = Limits(recorded["steps"], recorded["flops"])
  old = dataclasses.replace(experiment, limits=before, schedule=dataclasses.replace(
      schedule, updates=recorded["updates"]))
  last, old_next, new_next = (_rate(which, learner, position, number) for which, number in (
      (old, update - 1), (old, update), (experiment, update)))
  if abs(new_next - old_next) <= 1e-6 * experiment.optimizer.learning_rate:
    return ""
  span = schedule.updates or _updates(learner, experiment.limits)
  exact = not (experiment.algorithm and before.flops)
  kept = recorded["updates"] or _updates(learner, before)
  way_out = f"; --config.schedule.updates={kept} keeps the old one" if exact and kept > schedule.warmup else ""
  return (f"The schedule now spans {span} updates: the learning rate goes from {last:.2g} "
          f"{'back up ' if new_next > last else ''}to {new_next:.2g}{way_out}.")


def _rate(experiment: Experiment, learner: Learner, position: Position, update: int) -> float:
  """The rate of an update of this experiment, as its train step computes it."""
  section, limits = experiment.schedule, experiment.limits
  by_flops = experiment.algorithm and limits.flops and not section.updates
  updates = limits.steps * learner.updates if experiment.algorithm else _updates(learner, limits)
  rate = make_schedule(section, experiment.optimizer.learning_rate, updates)
  return float(rate(update, limits.spent(position)) if by_flops else rate(update))
