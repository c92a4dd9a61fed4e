"""How much of a run its evaluations will take, for whoever would rather wait less."""

import math

from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.training.position import Position

SHARE = 0.2    # of a run's time: more is said
LEAST = 60.0   # seconds of all evaluations of a run: less is not worth a line


def planned(experiment: Experiment, steps: float) -> int:
  """Evaluations of a run of so many steps, the start's and the last one included."""
  evals = experiment.evals
  return 1 + (math.ceil(steps / evals.every) if evals.every else len(evals.at) + 1)


def note(experiment: Experiment, position: Position, seconds: float) -> str:
  """What a run says where its evaluations will take more than SHARE of its time; "" where they will not.

  position: after a step; its seconds are those of all steps so far. seconds: of the evaluation there
  """
  done = experiment.limits.done(position)
  if not done:
    return ""
  count, stepping = planned(experiment, position.step / done), position.seconds / done
  evaluating = count * seconds
  share = evaluating / (evaluating + stepping)
  if share <= SHARE or evaluating < LEAST:
    return ""
  fewer = int(experiment.evals.episodes * SHARE / (1 - SHARE) * stepping / evaluating)
  times = "evals.every" if experiment.evals.every else "evals.at"
  episodes = f"--config.evals.episodes={fewer}" if fewer else "--config.evals.episodes"
  if experiment.evals.tasks:   # nobody knows which of the two takes the time
    episodes = f"--config.evals.task_limit, {episodes}" if experiment.evals.variants else "--config.evals.task_limit"
  return (f"Evaluations will take about {share:.0%} of this run's time: {count} of {seconds:.1f} s each, beside "
          f"{stepping:.0f} s of steps. For {SHARE:.0%}, begin it with about {episodes}, or fewer of --config.{times}, "
          "--config.evals.variants or --config.evals.kl_episodes.")
