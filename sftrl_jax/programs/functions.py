"""Every jitted function of a run with the arguments it gets, so that all can be compiled where nothing can run.

They are made from the objects that sft.py and rl.py run, in the order in which a run first meets them, from the birth
of the state on. What one returns is an argument of the next, laid out as the compiler chose; therefore `each` is a
generator that is sent the results.
"""

import dataclasses
import functools
from collections.abc import Generator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from sftrl_jax.inputs import Inputs
from sftrl_jax.models import heads, lora
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.programs import adapters, evaluate, learning as learnings, run as runs, workload
from sftrl_jax.programs.setup import Parts
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.episodes import Episode
from sftrl_jax.training import state as states
from sftrl_jax.training.experience import take


@dataclasses.dataclass(frozen=True)
class Function:
  """One jitted function.

  arguments: (role, tree) of each argument in order; leaves are ShapeDtypeStructs with shardings, or small host arrays
  static: keywords that are part of the program
  resident: (role, tree) of what else lies on the devices meanwhile
  calls: how often a step of the run calls it, if no conversation ends early; 0: at the start or at evaluations
  trips: of a loop whose end depends on data, at most
  tokens: positions computed by one call
  """

  name: str
  jitted: Any
  arguments: tuple[tuple[str, Any], ...]
  static: dict = dataclasses.field(default_factory=dict)
  resident: tuple[tuple[str, Any], ...] = ()
  calls: float = 0.0
  trips: int = 1
  tokens: int = 0


def each(parts: Parts, verb: str) -> Generator[Function, Any, None]:
  """The functions of a run of this verb. Send it what a function returns: abstract, with shardings."""
  learning = learnings.of_rl(parts) if verb == "rl" else learnings.of_sft(parts)
  model, whole = start_of(parts), adapters.whole(parts)
  trained, frozen = _trained(parts, model, learning.value_head)
  where = states.shardings(trained, learning.optimizer, parts.mesh)
  birth = states.birth(learning.optimizer, where)
  yield Function("state", birth, (("parameters", trained),))
  state = described(jax.eval_shape(birth, trained), where)
  judged, averaged = trained, ()
  if states.is_averaged(state):
    judged = yield Function("average", jax.jit(states.evaluated), (("state", state),),
                            resident=_kept(parts, model, frozen))
    averaged = (("parameters", judged),)
  judged = whole(judged, frozen)
  held = (*averaged, *_kept(parts, model, frozen))
  stepping = functools.partial(_train, learning, where, state, frozen)
  if verb == "rl":
    batch = yield from _scored(parts, learning, judged, state, model, held)
    yield stepping(batch=batch, resident=held)
  else:
    yield stepping(batch=workload.unpadded(learning.rows, learning.length, parts.model.config.vocab)[0], resident=held)
  if verb == "rl" or parts.settings["evals"].variants:
    decoding = yield from _played(parts, verb, judged["model"], (("state", state), *held))
  evals = parts.settings["evals"]
  if evals.variants and evals.kl and 1.0 in evals.temperatures:
    rows = collect.rows(_blank(parts.actor.rollout.rows), evaluate.row_length(parts), [()] * parts.actor.rollout.rows)
    yield Function("kl of an evaluation", evaluate.kl_rows(parts.model), (
        ("parameters", judged["model"]), ("reference", model), ("batch", rows.inputs), ("batch", rows.mask_BT)),
        resident=(("optimizer", state.opt_state), ("decoding", decoding)))


def described(tree, shardings):
  """Shapes with shardings."""
  return jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree, shardings)


def replicated(tree, mesh):
  return described(tree, jax.tree.map(lambda _: meshes.replicated(mesh), tree))


def placed(function: Function, mesh) -> tuple:
  """The arguments, host arrays of a batch as `meshes.place` puts them, rows split."""
  rows = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=meshes.by_rows(mesh)) if np.ndim(x) else x
  put = lambda x: x if isinstance(x, jax.ShapeDtypeStruct) else rows(x)
  return tuple(jax.tree.map(put, tree) if role == "batch" else tree for role, tree in function.arguments)


def returned(function: Function, mesh):
  """Shapes of what a function returns, nothing compiled."""
  with jax.set_mesh(mesh), nn.logical_axis_rules(rules.activation_rules()):
    return function.jitted.eval_shape(*placed(function, mesh), **function.static)


def guessed(tree, mesh):
  """What a function returns that does not compile: laid out as it was said, else rows split where they divide."""
  rows = meshes.rows(mesh)

  def where(x):
    if getattr(x, "sharding", None) is not None:
      return x.sharding
    return meshes.by_rows(mesh) if x.ndim and x.shape[0] and x.shape[0] % rows == 0 else meshes.replicated(mesh)

  return described(tree, jax.tree.map(where, tree))


def _key(mesh):
  return replicated(jax.eval_shape(lambda: jax.random.key(0)), mesh)


def start_of(parts: Parts) -> dict:
  """params["model"] where `starts.load` puts them."""
  shapes = {"model": adapters.abstract(parts.model)}
  return described(shapes, rules.shardings(shapes, parts.mesh))["model"]


def _trained(parts: Parts, model: dict, value_head: bool) -> tuple[dict, dict]:
  """(the parameters that are trained, what is frozen), as `adapters.begin` and `run.begin` make them."""
  settings, mesh = parts.settings["lora"], parts.mesh
  trained, frozen = {"model": model}, {}
  if settings.rank:
    shapes = {"lora": jax.eval_shape(lambda key: lora.init(settings, model, key), jax.random.key(0))}
    trained, frozen = described(shapes, rules.shardings(shapes, mesh)), {"model": model}
  if value_head:
    trained = {**trained, "value": replicated(jax.eval_shape(lambda: heads.init(parts.model.config.width)), mesh)}
  return trained, frozen


def _kept(parts: Parts, model: dict, frozen: dict) -> tuple:
  """The parameters of the start, where a run keeps them; frozen ones are an argument anyhow."""
  return () if frozen or not runs.reads_start(parts) else (("reference", model),)


def _blank(count: int) -> list[Episode]:
  return [Episode(0, (), (), False)] * count


def _train(learning, where, state, frozen, batch, resident) -> Function:
  return Function("train step", runs.jitted_step(learning.train_step, where),
                  (("state", state), ("batch", batch), ("parameters", frozen)), resident=resident,
                  calls=learning.updates, tokens=learning.minibatch * learning.length)


def _scored(parts: Parts, learning, judged: dict, state, model: dict, held):
  """Scoring a batch of episodes and taking a minibatch, which it returns."""
  reference = {"model": model} if learning.section.kl_coef else None
  arrays = learning.method.arrays(parts, learning.section, _blank(learning.rows), learning.length)
  others = tuple(pair for pair in held if not (reference and pair[0] == "reference"))
  batch, _ = yield Function(
      "score", learning.prepare, (("parameters", judged), ("reference", reference), *(("batch", x) for x in arrays)),
      resident=(("optimizer", state.opt_state), *others), calls=1, tokens=learning.rows * learning.length)
  order = np.zeros(learning.minibatch, np.int32)
  minibatch = yield Function("minibatch", take, (("batch", batch), ("other", order)),
                             resident=(("state", state), *held), calls=learning.updates)
  return minibatch


def _played(parts: Parts, verb: str, model: dict, held):
  """The weight move and every shape of a rollout; returns decoding parameters."""
  actor, mesh = parts.actor, parts.mesh
  turn, regroup, move = actor.compiled
  batches = -(-parts.config["batch"] // actor.rollout.rows) if verb == "rl" else 0
  decoding = yield Function("weight move", move, (("parameters", model),), resident=_less(held, model),
                            calls=float(bool(batches)))
  made, later = [], batches * (actor.turns - 1)
  for number, rows, group in actor.shapes():
    first = number == 0
    own = group == actor.group if first else rows == actor.sizes[0]   # what training plays while nothing ends early
    calls = (batches if first else later) * own
    cache, room = None, actor.room(number)
    if not first and actor.rollout.carry:
      largest = max(made, key=_bytes)
      cache = yield Function(f"regroup {rows}", regroup,
                             (("cache", largest), ("other", np.zeros(rows, np.int32))), {"room": room},
                             resident=(*held, ("decoding", decoding), *_caches(made, largest)),
                             calls=calls / max(1, actor.turns - 1))
    read = _texts(rows // group, actor.reads(number))
    flags = (np.zeros(rows, np.int32), np.ones(rows, bool), np.zeros(rows, np.uint32))
    scalars = (_key(mesh), np.int32(number), np.float32(actor.rollout.temperature))
    arguments = (("decoding", decoding), ("cache", cache), ("batch", read), *(("batch", x) for x in flags),
                 *(("other", x) for x in scalars))
    name = f"turn {'1' if first else '2 on'}, {rows} rows{f' in groups of {group}' if group > 1 else ''}"
    before = made
    if not first and actor.turns > 2 and _bytes(cache) > sum(map(_bytes, before)):
      before = [cache]   # of the turn before, still in the policy's memory
    out, _ = yield Function(name, turn, arguments, {"room": room, "group": group},
                            resident=(*held, *_caches(before)), calls=calls, trips=actor.rollout.max_new_tokens - 1,
                            tokens=rows // group * actor.reads(number) + rows * actor.rollout.max_new_tokens)
    made = [out] if first else [*made, out]
    if not first and actor.rollout.carry and actor.turns > 2:
      yield Function(f"regroup {rows} again", regroup, (("cache", out), ("other", np.zeros(rows, np.int32))),
                     {"room": room}, resident=(*held, ("decoding", decoding), *_caches(made, out)),
                     calls=calls * (actor.turns - 2) / (actor.turns - 1))
  return decoding


def _texts(rows: int, length: int) -> Inputs:
  """Rows without padding."""
  shape = (rows, length)
  positions = np.broadcast_to(np.arange(length, dtype=np.int32), shape).copy()
  return Inputs(np.zeros(shape, np.int32), positions, np.ones(shape, np.int32))


def _less(held, model: dict):
  """What is held besides the parameters that are an argument."""
  less = []
  for role, tree in held:
    less.append(("optimizer", tree.opt_state) if role == "state" else (role, tree))
  return tuple(less)


def _caches(made, but=None) -> tuple:
  return tuple(("cache", cache) for cache in made if cache is not but and cache is not None)


def _bytes(tree) -> int:
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
