"""Runs that train adapters: what of a run is trained and what is frozen, and whose base a workdir of adapters needs.

Such a run checkpoints its adapters alone. WORKDIR/base.json says which start they were trained on, the step in numbers,
with a fingerprint of what is stored there: on another base adapters mean nothing.
"""

import functools
import json
from pathlib import Path

import jax

from sftrl_jax import places
from sftrl_jax.checkpoints import store as stores
from sftrl_jax.checkpoints.checksum import checksums, sha256
from sftrl_jax.models import Model, lora as adapting
from sftrl_jax.models.lora import Lora
from sftrl_jax.parallel import rules
from sftrl_jax.programs import origin as origins, start as starts
from sftrl_jax.programs.mistakes import ConfigError, recorded
from sftrl_jax.programs.settings import build
from sftrl_jax.training.log import write_json

RECORD = "base.json"


def of(home: Path) -> Lora | None:
  """The adapters that the run in a workdir trains; None where it trains the model, and for what is no workdir."""
  try:
    section = recorded(home).get("lora", {}) if origins.is_workdir(home) else {}
  except (OSError, ConfigError):
    return None  # a checkpoint can be begun from even if its config is lost
  return build(Lora, section, "config.lora") if section.get("rank") else None


def abstract(model: Model):
  """The shapes of a model's parameters."""
  return jax.eval_shape(model.init, jax.random.key(0))


def whole(parts):
  """(params, frozen) -> what an objective reads; see models/lora.py."""
  return functools.partial(adapting.whole, lora=parts.settings["lora"])


def count(parts) -> int:
  """Numbers in a run's adapters, for its FLOPs; 0 where the model itself is trained."""
  lora = parts.settings["lora"]
  return adapting.count(lora, abstract(parts.model)) if lora.rank else 0


def begin(parts, workdir: Path) -> tuple[dict, dict, dict]:
  """(the model at the start, the parameters that are trained, what is frozen) of a run, new or continued."""
  lora, start, seed = parts.settings["lora"], parts.config["start"], parts.config["seed"]
  if not lora.rank:
    params = starts.load(start, parts.model, seed, parts.mesh)
    return params, {"model": params}, {}
  if (workdir / RECORD).is_file() or any((workdir / "checkpoints").glob("[0-9]*")):
    params, _ = based(workdir, start, parts.model, seed, parts.mesh)
  else:
    pinned = _pinned(start)
    params, fingerprint = _read(pinned, parts.model, seed, parts.mesh)
    if jax.process_index() == 0:
      write_json(workdir / RECORD, {"start": pinned, "fingerprint": fingerprint})
  make = lambda key: {"lora": adapting.init(lora, abstract(parts.model), key)}
  where = rules.shardings(jax.eval_shape(make, jax.random.key(0)), parts.mesh)
  return params, jax.jit(make, out_shardings=where)(jax.random.key(seed)), {"model": params}


def based(home: Path, start: str, model: Model, seed: int, mesh) -> tuple[dict, str]:
  """(the parameters that the adapters in a workdir are trained on, their fingerprint).

  start: config.start; where it was overridden, the base is looked for there alone. ConfigError for a base that is gone,
  and for one that has changed.
  """
  told, source = _record(home), check(home, start)
  params, now = _read(source, model, seed, mesh)
  if now != told["fingerprint"]:
    raise ConfigError(f"{home} holds adapters alone, trained on {told['start']}; {source} holds other numbers now, on "
                      "which they mean nothing: put the base back as it was, or begin another --workdir.")
  return params, now


def check(home: Path, start: str = "") -> str:
  """Where the base of a workdir of adapters is: where it was, or where config.start finds it now. ConfigError for one
  that is gone."""
  pinned, own = _record(home)["start"], recorded(home).get("start")
  for source in (pinned, own) if start in ("", own) else (start,):
    try:
      starts.check(source)
      return source
    except ConfigError as error:
      refused = error
  raise ConfigError(f"{home} holds adapters alone, and their base is gone: {refused} Put it back, or say where it is: "
                    "`sftrl evaluate` takes --config.start=FROM.")


def load(home: Path, step: int | None, model: Model, mesh, lora: Lora, start: str = "") -> tuple[dict, int, str]:
  """(parameters of `model`, step, fingerprint) of a workdir of adapters: its base with the adapters merged into it.

  lora: what was trained, perhaps at another strength; with rank 0 the adapters are left off.
  """
  params, fingerprint = based(home, start, model, recorded(home)["seed"], mesh)
  if not lora.rank:
    return params, origins.steps_of(home, repr(str(home)))[-1] if step is None else step, fingerprint
  shapes = {"lora": jax.eval_shape(lambda key: adapting.init(lora, abstract(model), key), jax.random.key(0))}
  like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes,
                      rules.shardings(shapes, mesh))
  found, step = stores.restore_params(home, step, like["lora"], root="lora")
  join = lambda params, found: adapting.merge(adapting.attach(params, found, lora))
  where = jax.tree.map(lambda x: x.sharding, params)
  merged = jax.jit(join, donate_argnums=0, out_shardings=where)(params, found)
  return merged, step, sha256([fingerprint, checksums(found)])


def _read(start: str, model: Model, seed: int, mesh) -> tuple[dict, str]:
  """(parameters, fingerprint) of a start. The fingerprint is of what is stored: bits of a merge differ by machine."""
  home = origins.home_of(start)
  lora = of(home) if start != "scratch" else None
  if lora is None:
    params = starts.load(start, model, seed, mesh)
    return params, sha256(checksums(params))
  params, _, fingerprint = load(home, origins.parse(start, origins.said(start)).step, model, mesh, lora)
  return params, fingerprint


def _pinned(start: str) -> str:
  """config.start as it can be found again: a directory from the root, a workdir with its step in numbers."""
  home = origins.home_of(start)
  if start in ("", "scratch") or not home.exists():
    return start
  if not origins.is_workdir(home):
    return str(Path(start).absolute())
  step = origins.parse(start, origins.said(start)).step
  return f"{places.absolute(home)}@{origins.steps_of(home, origins.said(start))[-1] if step is None else step}"


def _record(home: Path) -> dict:
  path = home / RECORD
  try:
    told = json.loads(path.read_text())
    return {name: str(told[name]) for name in ("start", "fingerprint")}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ConfigError(f"{home} holds adapters alone, but {path}, which says on which base, is missing or torn: restore "
                      "it, or begin another --workdir.") from error
