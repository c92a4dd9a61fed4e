"""Checkpoints of a run: orbax, the newest few steps, written while training goes on, and believed only after a check.

A step holds `state` (the train state), `meta` (JSON: where the run stands, and the shape, dtype and checksum of every
array) and, where a run is judged by other parameters than it trains, `evaluated`. A step whose bits are not those that
were saved is put aside as <step>.corrupt, and the one before it is taken. Orbax is imported where it is used: a config
is checked without it.
"""

import dataclasses
import logging
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
  keep: how many are kept, the newest
  export_every: steps between models written to exports/STEP, as transformers opens them, and one at the end (0: none)
  grace_seconds: after SIGTERM or Ctrl-C, how long the step may go on before it is dropped, to be redone
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
      raise ValueError(f"grace_seconds is {self.grace_seconds}; it must be 0 (drop at once) or some seconds.")


class Damaged(ValueError):
  """A checkpoint that cannot be read, or whose bits are not those that were saved."""


class Mismatch(ValueError):
  """A sound checkpoint of another model or optimizer."""


def manager(workdir: Path, keep: int = 1, writes: bool = True):
  """orbax's manager of workdir/checkpoints. A writer clears the half-written steps of a killed run away; a reader
  (writes=False) leaves them alone, for they may be another process's."""
  import orbax.checkpoint as ocp
  # Orbax logs the traceback of every thread that saw an error; here each becomes one message.
  logging.getLogger("absl").setLevel(logging.CRITICAL)
  options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True) if writes else (
      ocp.CheckpointManagerOptions(read_only=True))
  return ocp.CheckpointManager(paths.absolute(workdir / "checkpoints"), options=options)


def save(store, step: int, state: Any, meta: dict, evaluated: Any = None) -> None:
  """Starts writing; `finish` before the process ends. A step that exists already stays.

  evaluated: parameters that the run is judged by, where these are not the state's.
  """
  import orbax.checkpoint as ocp
  if step in store.all_steps():
    return
  arrays = {"state": state} if evaluated is None else {"state": state, "evaluated": evaluated}
  told = {**meta, "arrays": described(arrays)}
  items = {name: ocp.args.StandardSave(tree) for name, tree in arrays.items()}
  items["meta"] = ocp.args.JsonSave({**told, "sha256": sha256(told)})
  if not _told(store, lambda: store.save(step, args=ocp.args.Composite(**items))):
    raise RuntimeError(f"Checkpoint {step} was not written under {store.directory}: orbax refused it. Look for a newer "
                       "step there, and move it away or use another --workdir.")


def finish(store) -> None:
  """Waits until what was begun is on disk."""
  _told(store, store.wait_until_finished)


def restore(store, step: int, like: Any) -> tuple[Any, dict]:
  """(state, meta) of a step; `like` has the shapes, dtypes and shardings that the state is restored to.

  Raises Mismatch for a checkpoint of another model or optimizer, Damaged for one that is not what was saved.
  """
  import orbax.checkpoint as ocp
  meta = _meta(store, step)
  _refuse_another(f"{store.directory}/{step}", meta["arrays"], {"state": like})
  state = _read(lambda: ocp.args.StandardRestore(_abstract(like)), store, step, "state")
  _verify(f"{store.directory}/{step}", meta["arrays"], {"state": state})
  return state, {name: value for name, value in meta.items() if name not in ("arrays", "sha256")}


def restore_newest(store, like: Any, say: Callable[[str], None]) -> tuple[Any, dict, int] | None:
  """(state, meta, step) of the newest sound step, None where there has been none. Damaged ones are put aside and named.

  Raises Damaged when there are steps and none is sound: nothing is thrown away, and a person decides.
  """
  refused = []
  for step in sorted(store.all_steps(), reverse=True):
    found, told = _restored(store, step, like)
    if found is not None:
      return *found, step
    aside = hosts.led_by_first(lambda step=step: _put_aside(paths.as_path(str(store.directory)) / str(step)).name)
    store.reload()
    refused.append(str(step))
    say(f"{told} It is put aside as {aside}, and the step before it is taken.")
  aside = sorted(path.name for path in store.directory.glob("*.corrupt*"))
  if aside:
    raise Damaged(f"{store.directory} has no sound checkpoint left ({', '.join(aside)} put aside): restore one from "
                  "elsewhere, remove the directory to train from the start, or give another --workdir.")
  return None


def _restored(store, step: int, like: Any) -> tuple[tuple[Any, dict] | None, str]:
  """((state, meta), "") as of `restore`, or (None, what is damaged).

  A bucket that did not answer is asked again, for what is damaged is so a second time.
  """
  told = ""
  for _ in range(1 if paths.is_here(paths.as_path(str(store.directory))) else 2):
    found, told = _together(lambda: restore(store, step, like))
    if not told:
      break
  return found, told


def _together(read: Callable[[], Any]) -> tuple[Any, str]:
  """(what is read, "") or (None, what is damaged). Of several processes each reads its part, and what one cannot read
  is damaged for all."""
  found, told = None, ""
  try:
    found = read()
  except Damaged as error:
    told = str(error)
  told = next(filter(None, hosts.gathered(told)), "")
  return (None, told) if told else (found, "")


def restore_params(workdir: Path, step: int | None, like: dict, root: str = "model") -> tuple[dict, int]:
  """(parameters of the model to be judged by, step) of a checkpoint, whatever optimizer and heads it was trained with.

  Without a step it is the newest sound one; nothing in the workdir is changed.
  root: what is restored, "lora" where adapters alone were trained.
  """
  store = manager(workdir, writes=False)
  try:
    there = hosts.led_by_first(lambda: sorted(store.all_steps(), reverse=True))   # of a run that may be going on
    wanted = there if step is None else [step]
    if not there or wanted[0] not in there:
      told = ", ".join(map(str, reversed(there))) or "none"
      raise ValueError(f"{workdir} has no checkpoint{'' if step is None else f' {step}'}; steps there: {told}.")
    for number in wanted:
      params, told = _together(lambda number=number: _params(store, number, like, root))
      if not told:
        return params, number
      if number == wanted[-1]:
        raise Damaged(told)
      if hosts.is_first_process():
        print(f"{told} The step before it is taken.", flush=True)
  finally:
    store.close()


def _params(store, step: int, like: dict, root: str) -> dict:
  import orbax.checkpoint as ocp
  where, arrays = f"{store.directory}/{step}", _meta(store, step)["arrays"]
  item = "evaluated" if any(path.startswith("evaluated/") for path in arrays) else "state"
  inside = (lambda tree: {"evaluated": {root: tree}}) if item == "evaluated" else (
      lambda tree: {"state": {"params": {root: tree}}})
  known = {path: told for path, told in arrays.items() if path in _paths_under(inside, arrays)}
  _refuse_another(where, known, inside(like), dtypes=False)
  recorded = trees.map_with_path(lambda path, leaf: jax.ShapeDtypeStruct(
      leaf.shape, known[path][1], sharding=leaf.sharding), inside(like))
  wanted = recorded[item]
  arguments = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, dtype=x.dtype), wanted)
  tree = _read(lambda: ocp.args.PyTreeRestore(wanted, arguments, partial_restore=True), store, step, item)
  _verify(where, known, {item: tree})
  params = tree[root] if item == "evaluated" else tree["params"][root]
  return jax.tree.map(lambda new, old: new.astype(old.dtype), params, like)


def _paths_under(inside, arrays) -> set[str]:
  prefix = next(iter(trees.leaves(inside(0)))) + "/"
  return {path for path in arrays if path.startswith(prefix)}


def _meta(store, step: int) -> dict:
  """The JSON of a step; Damaged unless it is what was written."""
  import orbax.checkpoint as ocp
  meta = _read(ocp.args.JsonRestore, store, step, "meta")
  if not isinstance(meta, dict) or meta.get("sha256") != sha256({k: v for k, v in meta.items() if k != "sha256"}):
    raise Damaged(f"{store.directory}/{step} is damaged: its meta is not what was written.")
  return meta


def _read(make, store, step: int, item: str):
  """One item of a step; whatever goes wrong in reading it is Damaged."""
  import orbax.checkpoint as ocp
  try:
    return store.restore(step, args=ocp.args.Composite(**{item: make()}))[item]
  except (MemoryError, PermissionError):
    raise
  except Exception as error:  # orbax raises anything, bare Exception included, for a file that is cut or gone
    raise Damaged(f"{store.directory}/{step} is damaged: {item} cannot be read ({_first_line(error)}).") from error


def _verify(where: str, arrays: dict, restored: Any) -> None:
  wrong = [path for path, value in checksums(restored).items() if arrays[path][2] != value]
  if wrong:
    raise Damaged(f"{where} is damaged: {len(wrong)} of {len(arrays)} arrays are not what was saved ({_few(wrong)}).")


def _refuse_another(where: str, arrays: dict, like: Any, dtypes: bool = True) -> None:
  """Mismatch, by name, unless the saved arrays are those of `like`; only parameters taken over may change dtype."""
  wanted = trees.leaves(like)
  there = {path: told for path, told in arrays.items() if path.partition("/")[0] in like}
  found = [f"{told} {_few(sorted(names))}" for names, told in (
      (wanted.keys() - there.keys(), "it lacks"), (there.keys() - wanted.keys(), "only it has")) if names]
  for path in wanted.keys() & there.keys():
    (shape, dtype, _), leaf = there[path], wanted[path]
    if shape != list(leaf.shape):
      found.append(f"{path} has shape {tuple(shape)} there, but {leaf.shape} here")
    elif dtypes and dtype != str(leaf.dtype):
      found.append(f"{path} is {dtype} there, but {leaf.dtype} here")
  if found:
    raise Mismatch(f"{where} does not fit this config: {'; '.join(sorted(found)[:3])}. A checkpoint goes on only with "
                   "the model, vocabulary and optimizer it was written by; use another --workdir, or "
                   "--config.start=WORKDIR to begin from its parameters.")


def _abstract(like):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)


def _put_aside(path: Path) -> Path:
  """<step>.corrupt, numbered where that is taken."""
  names = (path.with_name(f"{path.name}.corrupt{f'-{count}' if count else ''}") for count in range(10_000))
  aside = next(name for name in names if not name.exists())
  path.rename(aside)
  return aside


def _told(store, write):
  """write(), where a disk that is full or gone is an error that says which step is safe."""
  try:
    return write()
  except Exception as error:
    # On disk: orbax's own list has lost the steps that the failed one was to replace.
    safe = max(paths.steps(paths.as_path(str(store.directory))), default=None)
    stands = "No step is complete" if safe is None else f"Step {safe} is complete and untouched"
    raise RuntimeError(f"A checkpoint could not be written under {store.directory}: {_first_line(error)} {stands}; "
                       "once there is room, the same command goes on.") from error


def _few(names: list[str]) -> str:
  return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _first_line(error: Exception) -> str:
  return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
