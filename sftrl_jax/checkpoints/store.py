"""Checkpoints of a run: orbax, the newest few steps, written while training goes on.

Orbax is imported where it is used: a config is checked without it.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """When the state is saved.

  every: steps between checkpoints (0: only at the end)
  keep: how many are kept, the newest
  """

  every: int = 0
  keep: int = 2

  def __post_init__(self):
    if self.every < 0:
      raise ValueError(f"every is {self.every}; it must be 0 (only at the end) or a number of steps.")
    if self.keep < 1:
      raise ValueError(f"keep is {self.keep}; it must be at least 1.")


def manager(workdir: Path, keep: int = 1):
  """orbax's manager of workdir/checkpoints. Half-written steps of a killed run are cleared away."""
  import orbax.checkpoint as ocp
  options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
  return ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)


def save(store, step: int, state: Any, meta: dict) -> None:
  """Starts writing; `store.wait_until_finished()` before the process ends. A step that exists already stays."""
  import orbax.checkpoint as ocp
  if step in store.all_steps():
    return
  items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
  if not store.save(step, args=items):
    raise RuntimeError(f"Checkpoint {step} was not written under {store.directory}: orbax refused it. Look for a newer "
                       "step there, and move it away or use another --workdir.")


def restore(store, step: int, like: Any) -> tuple[Any, dict]:
  """(state, meta) of a step; `like` has the shapes, dtypes and shardings that the state is restored to."""
  import orbax.checkpoint as ocp
  abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
  items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
  try:
    restored = store.restore(step, args=items)
  except ValueError as error:
    raise ValueError(f"{store.directory}/{step} does not fit this config: {_first_line(error)} A checkpoint goes on "
                     "only with the model and optimizer it was written by; use another --workdir, or "
                     "--config.start=WORKDIR to begin from its parameters.") from error
  return restored["state"], restored["meta"]


def restore_params(workdir: Path, step: int | None, like: dict) -> tuple[dict, int]:
  """(parameters["model"], step) of a checkpoint whatever optimizer and heads it was trained with."""
  import orbax.checkpoint as ocp
  store = manager(workdir)
  try:
    step = store.latest_step() if step is None else step
    if step is None or step not in store.all_steps():
      there = ", ".join(map(str, store.all_steps())) or "none"
      raise ValueError(f"{workdir} has no checkpoint{'' if step is None else f' {step}'}; steps there: {there}.")
    # Restored as it was written, then placed: a subtree of a state cannot be asked for by itself.
    path = Path(store.directory) / str(step) / "state"
    with ocp.StandardCheckpointer() as reader:
      tree = reader.restore(path)
    params = tree["params"]["model"]
    return jax.tree.map(lambda new, old: jax.device_put(_same_shape(new, old), old.sharding), params, like), step
  except (ValueError, KeyError) as error:
    raise ValueError(f"{workdir}: {_first_line(error)}") from error
  finally:
    store.close()


def _same_shape(new, old):
  if new.shape != old.shape:
    raise ValueError(f"a parameter has shape {new.shape} there, but {old.shape} in this model.")
  return new.astype(old.dtype)


def _first_line(error: Exception) -> str:
  return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
