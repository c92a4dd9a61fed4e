"""WORKDIR/weights.json: what a run has changed in the weights of its start, a row a parameter and layer."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from sftrl_jax import trees
from sftrl_jax.models import weight_change
from sftrl_jax.parallel import hosts
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.start import initial_params
from sftrl_jax.training.log import write_json

NAME = "weights.json"
MOST_NUMBERS = 20_000_000   # of a model that is compared at the end of its run: a second for each million


def is_compared(experiment: Experiment) -> bool:
  """Whether a run is compared with its start at its end: a random start means nothing, and a large model takes long."""
  size = trees.size(initial_params.param_shapes(experiment.model))
  return experiment.start != "scratch" and size <= MOST_NUMBERS


def load_start(experiment: Experiment, home: Path) -> dict:
  """The parameters of `model` that the run in a workdir began with. ConfigError where they are gone."""
  load = (experiment.start, experiment.model, experiment.seed, experiment.mesh)
  if initial_params.adapters_of(home):
    return initial_params.reference_params(home, *load)
  initial_params.check_start(experiment.start, experiment.model)
  return initial_params.load_start(*load)


def write(experiment: Experiment, path: Path, step: int, start: dict, params: dict,
          heartbeat: Callable[[], None] = lambda: None) -> list[dict]:
  """Writes the file in the first process, and returns its rows there, [] in the others. A collective call.

  Parameters are gathered one at a time, so that no host holds a second model.
  step: of `params`; start, params: trees of `model` without adapters; heartbeat: called before every parameter
  """
  before, rows = trees.leaves(start), []
  for name, leaf in trees.leaves(params).items():
    heartbeat()
    pair = hosts.whole_arrays((before[name], leaf))
    if hosts.is_first_process():
      rows += [{"path": name, "part": weight_change.part_of(name), "layer": layer, **dataclasses.asdict(change)}
               for layer, change in enumerate(weight_change.changes(name, *pair))]
  if hosts.is_first_process():
    write_json(path, {"step": step, "start": experiment.start, "moved": weight_change.MOVED,
                      "leading": weight_change.LEADING, "rows": rows})
  return rows


def write_at_end(experiment: Experiment, workdir: Path, step: int, params: dict, held: dict,
                 say: Callable[[str], None], heartbeat: Callable[[], None]) -> None:
  """The file of a run that ends, unless its start is gone. held: the start, where the run holds it; else {}"""
  try:
    start = held or load_start(experiment, workdir)
  except ConfigError as error:
    say(f"{workdir}: the weights are not compared with the start: {error}")
    return
  write(experiment, workdir / NAME, step, start, params, heartbeat)
