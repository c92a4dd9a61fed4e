"""Checkpoints of a run by orbax: the newest few steps, written asynchronously, and verified by checksums when restored.

A step holds `state` (the train state), `meta` (JSON: the position of the run, and shape, dtype and checksum of every
array) and, if the run evaluates other parameters than it trains, `evaluated`. A step that fails its checksums is
renamed to <step>.corrupt, and the step before it is used. Orbax is imported inside functions, because a config is
checked without it.
"""

import dataclasses
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from sftrl_jax import paths, trees
from sftrl_jax.checkpoints.checksum import checksums, described, sha256
from sftrl_jax.parallel import hosts


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When the state is saved.

  every: steps between checkpoints (0: only at the end)
  keep: the number of checkpoints that are kept, the newest
  export_every: steps between models written to exports/STEP for transformers, and one at the end (0: none)
  grace_seconds: after SIGTERM or Ctrl-C, how long the current step may take before it is abandoned, to be repeated
  """

  every: int = 0
  keep: int = 2
  export_every: int = 0
  grace_seconds: float = 25.0

  def __post_init__(self):
    if self.every < 0:
      raise ValueError(f"every is {self.every}; it must be 0 (only at the end) or a number of steps.")
    if self.export_every < 0:
      raise ValueError(f"export_every is {self.export_every}; it must be 0 (no exports) or a number of steps.")
    if self.keep < 1:
      raise ValueError(f"keep is {self.keep}; it must be at least 1.")
    if not 0 <= self.grace_seconds < 1e6:
      raise ValueError(f"grace_seconds is {self.grace_seconds}; it must be 0 (abandon at once) or some seconds.")


class Damaged(ValueError):
  """A checkpoint that cannot be read, or that fails its checksums."""


class Mismatch(ValueError):
  """An intact checkpoint of another model or optimizer."""


class SaveFailed(RuntimeError):
  """A checkpoint that could not be written."""


def manager(workdir: Path, keep: int = 1, writes: bool = True) -> Any:
  """orbax's CheckpointManager of workdir/checkpoints, the `store` of the functions here. A writer removes half-written
  steps of a killed run; a reader (writes=False) does not, because another process may be writing them."""
  import orbax.checkpoint as ocp
  # Orbax logs the traceback of every thread that sees an error; the functions here make one message of each.
  logging.getLogger("absl").setLevel(logging.CRITICAL)
  if not isinstance(sys.unraisablehook, _Quiet):
    sys.unraisablehook = _Quiet(sys.unraisablehook)
  # Where a thread of orbax fails to make a directory, others wait for it for 300 s and keep the process alive.
  own_thread = ocp.AsyncOptions(create_directories_asynchronously=False)
  options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, cleanup_tmp_directories=True, async_options=own_thread) if writes else (
      ocp.CheckpointManagerOptions(read_only=True))
  directory = paths.absolute(workdir / "checkpoints")
  make = lambda: ocp.CheckpointManager(directory, options=options)
  return _write(directory, make) if writes else make()


@dataclasses.dataclass(frozen=True)
class _Quiet:
  """sys.unraisablehook, but for the errors of writes that end after orbax has given them up, because another failed."""

  hook: Callable

  def __call__(self, unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
      self.hook(unraisable)


def save(store: Any, step: int, state: Any, meta: dict, evaluated: Any = None) -> None:
  """Starts writing a step, unless it exists. Call `finish` before the process ends.

  meta: the position of the run, for JSON. evaluated: the parameters that the run evaluates, if not the state's.
  """
  import orbax.checkpoint as ocp
  if step in store.all_steps():
    return
  arrays = {"state": state} if evaluated is None else {"state": state, "evaluated": evaluated}
  content = {**meta, "arrays": described(arrays)}
  items = {name: ocp.args.StandardSave(tree) for name, tree in arrays.items()}
  items["meta"] = ocp.args.JsonSave({**content, "sha256": sha256(content)})
  if not _write(store.directory, lambda: store.save(step, args=ocp.args.Composite(**items))):
    raise SaveFailed(f"Checkpoint {step} was not written under {store.directory}: orbax refused it. Look for a newer "
                       "step there, and move it away or use another --workdir.")


def finish(store: Any) -> None:
  """Blocks until `save` is complete on disk."""
  _write(store.directory, store.wait_until_finished)


def check(store: Any) -> None:
  """Raises SaveFailed if a save in the background has failed; does not wait for one that still goes on."""
  if not store.is_saving_in_progress():
    finish(store)


def restore(store: Any, step: int, like: Any) -> tuple[Any, dict]:
  """(state, meta) of a step.

  like: a state with the shapes, dtypes and shardings to restore to. Raises Mismatch for a checkpoint of another model
  or optimizer, Damaged for one that differs from what was saved.
  """
  import orbax.checkpoint as ocp
  meta = _meta(store, step)
  _refuse_mismatch(f"{store.directory}/{step}", meta["arrays"], {"state": like})
  target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
  state = _read(lambda: ocp.args.StandardRestore(target), store, step, "state")
  _verify(f"{store.directory}/{step}", meta["arrays"], {"state": state})
  return state, {name: value for name, value in meta.items() if name not in ("arrays", "sha256")}


def restore_newest(store: Any, like: Any, say: Callable[[str], None]) -> tuple[Any, dict, int] | None:
  """(state, meta, step) of the newest intact step; None if there never was a step. Renames damaged ones and says so.

  Raises Damaged if there are steps and none is intact: nothing is deleted, and a person must decide.
  """
  for step in sorted(store.all_steps(), reverse=True):
    restored, damage = _restored(store, step, like)
    if restored is not None:
      return *restored, step
    directory = paths.as_path(str(store.directory))
    renamed = hosts.led_by_first(lambda path=directory / str(step): _rename_corrupt(path).name)
    store.reload()
    say(f"{damage} It is renamed to {renamed}, and the step before it is used.")
  corrupt = sorted(path.name for path in store.directory.glob("*.corrupt*"))
  if corrupt:
    raise Damaged(f"{store.directory} has no intact checkpoint ({', '.join(corrupt)} are damaged): restore one from "
                  "a copy, remove the directory to train from the start, or give another --workdir.")
  return None


def _restored(store: Any, step: int, like: Any) -> tuple[tuple[Any, dict] | None, str]:
  """((state, meta), "") of `restore`, or (None, the damage).

  A bucket is read a second time, because its errors may be transient; damage is there both times.
  """
  for _ in range(1 if paths.is_here(paths.as_path(str(store.directory))) else 2):
    restored, damage = _in_all_processes(lambda: restore(store, step, like))
    if not damage:
      break
  return restored, damage


def _in_all_processes(read: Callable[[], Any]) -> tuple[Any, str]:
  """(result, "") or (None, the damage). Each process reads its part; damage in one is damage in all. A collective call,
  so that all processes go on with the same step."""
  result, damage = None, ""
  try:
    result = read()
  except Damaged as error:
    damage = str(error)
  damage = next(filter(None, hosts.gathered(damage)), "")
  return (None, damage) if damage else (result, "")


def restore_params(workdir: Path, step: int | None, like: dict, root: str = "model", ema: bool = False
                   ) -> tuple[dict, int]:
  """(parameters of the model for evaluation, step) of a checkpoint, whatever optimizer and heads it was trained with.

  step: None for the newest intact one. like: parameters with the shapes, dtypes and shardings to restore to.
  root: "model", or "lora" if only adapters were trained. ema: the average that the optimizer's state holds. Changes
  nothing in the workdir.
  """
  store = manager(workdir, writes=False)
  try:
    steps = _listed(store)
    while True:
      candidates = steps if step is None else [step]
      if not steps or candidates[0] not in steps:
        listed = ", ".join(map(str, reversed(steps))) or "none"
        raise ValueError(f"{workdir} has no checkpoint{'' if step is None else f' {step}'}; steps there: {listed}.")
      for candidate in candidates:
        params, damage = _in_all_processes(lambda candidate=candidate: _params(store, candidate, like, root, ema))
        if not damage:
          return params, candidate
        before, steps = steps, _listed(store)
        if steps != before:
          break   # not damaged: the run is training, and has deleted what was read here for a newer step
        if candidate == candidates[-1]:
          raise Damaged(damage)
        if hosts.is_first_process():
          print(f"{damage} The step before it is used.", flush=True)
  finally:
    store.close()


def _listed(store: Any) -> list[int]:
  """The steps there are now, the newest first. Process 0 lists them for all, because the run may be writing new."""
  store.reload()
  return hosts.led_by_first(lambda: sorted(store.all_steps(), reverse=True))


def _params(store: Any, step: int, like: dict, root: str, ema: bool) -> dict:
  """The parameters under `root` of a step, in the dtypes of `like`."""
  import orbax.checkpoint as ocp
  where, arrays = f"{store.directory}/{step}", _meta(store, step)["arrays"]
  averaged = not ema and any(path.startswith("evaluated/") for path in arrays)
  names = ("evaluated",) if averaged else ("state", "opt_state", "ema") if ema else ("state", "params")
  item, nested = names[0], {root: like}
  for name in reversed(names):
    nested = {name: nested}
  prefix = f"{'/'.join((*names, root))}/"
  recorded = {path: description for path, description in arrays.items() if path.startswith(prefix)}
  _refuse_mismatch(where, recorded, nested, dtypes=False)
  # Arrays are read in the dtype that they were saved in, as the checksums are of its bits, and cast afterwards.
  target = trees.map_with_path(lambda path, leaf: jax.ShapeDtypeStruct(
      leaf.shape, recorded[path][1], sharding=leaf.sharding), nested)[item]
  arguments = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, dtype=x.dtype), target)
  tree = _read(lambda: ocp.args.PyTreeRestore(target, arguments, partial_restore=True), store, step, item)
  _verify(where, recorded, {item: tree})
  for name in (*names[1:], root):
    tree = tree[name]
  return jax.tree.map(lambda new, old: new.astype(old.dtype), tree, like)


def _meta(store: Any, step: int) -> dict:
  """The JSON of a step; Damaged unless its checksum is right."""
  import orbax.checkpoint as ocp
  meta = _read(ocp.args.JsonRestore, store, step, "meta")
  if not isinstance(meta, dict) or meta.get("sha256") != sha256({k: v for k, v in meta.items() if k != "sha256"}):
    raise Damaged(f"{store.directory}/{step} is damaged: its meta is not what was written.")
  return meta


def _read(arguments: Callable[[], Any], store: Any, step: int, item: str) -> Any:
  """One item of a step; Damaged for any error in reading it. arguments: makes orbax's arguments of the item."""
  import orbax.checkpoint as ocp
  try:
    return store.restore(step, args=ocp.args.Composite(**{item: arguments()}))[item]
  except (MemoryError, PermissionError):
    raise
  except Exception as error:  # orbax raises anything, bare Exception included, for a truncated or missing file
    raise Damaged(f"{store.directory}/{step} is damaged: {item} cannot be read ({_first_line(error)}).") from error


def _verify(where: str, arrays: dict, restored: Any) -> None:
  wrong = [path for path, value in checksums(restored).items() if arrays[path][2] != value]
  if wrong:
    raise Damaged(f"{where} is damaged: {len(wrong)} of {len(arrays)} arrays are not what was saved ({_few(wrong)}).")


def _refuse_mismatch(where: str, arrays: dict, like: Any, dtypes: bool = True) -> None:
  """Mismatch, with the paths, unless the saved arrays have the paths, shapes and (with `dtypes`) dtypes of `like`."""
  wanted = trees.leaves(like)
  saved = {path: description for path, description in arrays.items() if path.partition("/")[0] in like}
  differences = [f"{problem} {_few(sorted(names))}" for names, problem in (
      (wanted.keys() - saved.keys(), "it lacks"), (saved.keys() - wanted.keys(), "only it has")) if names]
  for path in wanted.keys() & saved.keys():
    (shape, dtype, _), leaf = saved[path], wanted[path]
    if shape != list(leaf.shape):
      differences.append(f"{path} has shape {tuple(shape)} there, but {leaf.shape} here")
    elif dtypes and dtype != str(leaf.dtype):
      differences.append(f"{path} is {dtype} there, but {leaf.dtype} here")
  if differences:
    raise Mismatch(f"{where} does not fit this config: {'; '.join(sorted(differences)[:3])}. A checkpoint can be "
                   "resumed only with the model, vocabulary and optimizer that wrote it; use another --workdir, or "
                   "--config.start=WORKDIR to begin from its parameters.")


def _rename_corrupt(path: Path) -> Path:
  """Renames a step to <step>.corrupt, with a number if that exists."""
  names = (path.with_name(f"{path.name}.corrupt{f'-{count}' if count else ''}") for count in range(10_000))
  renamed = next(name for name in names if not name.exists())
  path.rename(renamed)
  return renamed


def _write(directory: Path, write: Callable[[], Any]) -> Any:
  """write(); an error, such as of a full disk, becomes a SaveFailed that says which step is complete."""
  try:
    return write()
  except Exception as error:
    # Read from disk: orbax's own list has dropped the steps that the failed one was to replace.
    newest = max(paths.steps(paths.as_path(str(directory))), default=None)
    complete = "No step is complete there" if newest is None else f"Step {newest} is complete and untouched"
    raise SaveFailed(f"A checkpoint could not be written under {directory}: {_first_line(error).rstrip('.')}. "
                     f"{complete}; when it can be written again, the same command goes on.") from error


def _few(names: list[str]) -> str:
  return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _first_line(error: Exception) -> str:
  return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
