"""Every jitted function of a run with the arguments it gets, so that all can be compiled where nothing can run.

They are those of loop/jitted.py, which a run calls, in the order in which it first calls them. What one returns is an
argument of the next, laid out as the compiler chose; therefore `each` is a generator that is sent the results.
"""

import dataclasses
from collections.abc import Generator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from sftrl_jax.inputs import Inputs
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.programs.bench import workloads
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.experiment.learner import Learner
from sftrl_jax.programs.loop import evaluator, session
from sftrl_jax.programs.loop.jitted import JittedFunctions, jit_functions
from sftrl_jax.programs.start import trainable
from sftrl_jax.programs.start.trainable import abstract_with
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.episodes import blank_episodes
from sftrl_jax.rollout.sample import TurnInputs
from sftrl_jax.training import state as states
from sftrl_jax.training.algorithms import rows_of


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


def each(experiment: Experiment) -> Generator[Function, Any, None]:
  """The functions of a run. Send it what a function returns: abstract, with shardings.

  A generator that is sent results, because only the compiler knows how what one function returns is laid out, and the
  next function is compiled for that layout.
  """
  kind = KINDS[experiment.verb]
  learner = kind.make_learner(experiment)
  model, trained, frozen = trainable.abstract_trainable(experiment)
  jitted = jit_functions(experiment, learner, trained)
  yield Function("state", jitted.init_state, (("parameters", trained),))
  state = abstract_with(jax.eval_shape(jitted.init_state, trained), jitted.shardings)
  eval_params, averaged = trained, ()
  if states.is_averaged(state):
    eval_params = yield Function("average", jitted.average, (("state", state),),
                                 resident=_kept(experiment, model, frozen))
    averaged = (("parameters", eval_params),)
  eval_params = trainable.full_params_fn(experiment)(eval_params, frozen)
  held = (*averaged, *_kept(experiment, model, frozen))
  if kind.plays_episodes:
    batch = yield from _scored(experiment, learner, jitted, eval_params, state, model, held)
  else:
    batch = workloads.unpadded(learner.rows, learner.length, experiment.model.config.vocab)[0]
  yield Function("train step", jitted.train_step, (("state", state), ("batch", batch), ("parameters", frozen)),
                 resident=held, calls=learner.updates, tokens=learner.minibatch * learner.length)
  evals = experiment.evals
  if kind.plays_episodes or evals.variants:
    decoding = yield from _played(experiment, kind.plays_episodes, eval_params["model"], (("state", state), *held))
  if evals.variants and evals.kl and 1.0 in evals.temperatures:
    count, actor = experiment.actor.rollout.rows, experiment.actor
    rows = collect.rows(blank_episodes(count), actor.row_len(), [()] * count)
    yield Function("kl of an evaluation", evaluator.kl_rows(experiment.model), (
        ("parameters", eval_params["model"]), ("reference", model), ("batch", rows.inputs), ("batch", rows.mask_BT)),
        resident=(("optimizer", state.opt_state), ("decoding", decoding)))


def replicated(tree, mesh):
  return abstract_with(tree, jax.tree.map(lambda _: meshes.replicated(mesh), tree))


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

  return abstract_with(tree, jax.tree.map(where, tree))


def _key(mesh):
  return replicated(jax.eval_shape(lambda: jax.random.key(0)), mesh)


def _kept(experiment: Experiment, model: dict, frozen: dict) -> tuple:
  """The parameters of the start, where a run keeps them; frozen ones are an argument anyhow."""
  return () if frozen or not session.reads_start(experiment) else (("reference", model),)


def _scored(experiment: Experiment, learner: Learner, jitted: JittedFunctions, eval_params: dict, state, model: dict,
            held):
  """Scoring a batch of episodes, their advantages, and taking a minibatch, which it returns."""
  section, episodes = experiment.algorithm_config, blank_episodes(learner.rows)
  reference = {"model": model} if section.kl_coef else None
  rows = rows_of(experiment, section, episodes, learner.length)
  outcomes = experiment.algorithm.outcomes(experiment, section, episodes)
  others = tuple(pair for pair in held if not (reference and pair[0] == "reference"))
  scored = yield Function(
      "score", jitted.score_rows, (("parameters", eval_params), ("reference", reference), ("batch", rows)),
      resident=(("optimizer", state.opt_state), *others), calls=1, tokens=learner.rows * learner.length)
  batch, _ = yield Function("advantages", jitted.advantages,
                            (("batch", scored), ("batch", rows), ("batch", outcomes)),
                            resident=(("state", state), *held), calls=1)
  order = np.zeros(learner.minibatch, np.int32)
  minibatch = yield Function("minibatch", jitted.take, (("batch", batch), ("other", order)),
                             resident=(("state", state), *held), calls=learner.updates)
  return minibatch


def _played(experiment: Experiment, trains: bool, model: dict, held):
  """The weight move and every shape of a rollout; returns decoding parameters. trains: training plays episodes too."""
  actor, mesh = experiment.actor, experiment.mesh
  turn, regroup, move = actor.compiled
  batches = -(-experiment.batch // actor.rollout.rows) if trains else 0
  decoding = yield Function("weight move", move, (("parameters", model),), resident=_less(held, model),
                            calls=float(bool(batches)))
  made, later = [], batches * (actor.turns - 1)
  for number, rows, group in actor.shapes():
    first = number == 0
    own = group == actor.group if first else rows == actor.sizes[0]   # what training plays while nothing ends early
    calls = (batches if first else later) * own
    cache, cache_len = None, actor.cache_len(number)
    if not first and actor.rollout.carry:
      largest = max(made, key=_bytes)
      cache = yield Function(f"regroup {rows}", regroup,
                             (("cache", largest), ("other", np.zeros(rows, np.int32))), {"cache_len": cache_len},
                             resident=(*held, ("decoding", decoding), *_caches(made, largest)),
                             calls=calls / max(1, actor.turns - 1))
    flags = (np.zeros(rows, np.int32), np.ones(rows, bool), np.zeros(rows, np.uint32))
    turn_inputs = TurnInputs(_texts(rows // group, actor.read_len(number)), *flags, _key(mesh), np.int32(number),
                             np.float32(actor.rollout.temperature))
    arguments = (("decoding", decoding), ("cache", cache), ("batch", turn_inputs))
    name = f"turn {'1' if first else '2 on'}, {rows} rows{f' in groups of {group}' if group > 1 else ''}"
    before = made
    if not first and actor.turns > 2 and _bytes(cache) > sum(map(_bytes, before)):
      before = [cache]   # of the turn before, still in the policy's memory
    out, _ = yield Function(name, turn, arguments, {"cache_len": cache_len, "group": group},
                            resident=(*held, *_caches(before)), calls=calls, trips=actor.rollout.max_new_tokens - 1,
                            tokens=rows // group * actor.read_len(number) + rows * actor.rollout.max_new_tokens)
    made = [out] if first else [*made, out]
    if not first and actor.rollout.carry and actor.turns > 2:
      yield Function(f"regroup {rows} again", regroup, (("cache", out), ("other", np.zeros(rows, np.int32))),
                     {"cache_len": cache_len}, resident=(*held, ("decoding", decoding), *_caches(made, out)),
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
