"""Every jitted function of a run with its arguments, so that all can be compiled where nothing can run.

They are the functions of loop/jitted.py, in the order in which a run first calls them.
"""

import dataclasses
from collections.abc import Callable, Generator, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, Sharding

from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.programs.bench import workloads
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.experiment.learner import Learner
from sftrl_jax.programs.loop import evaluator, expert_accuracy
from sftrl_jax.programs.loop.jitted import JittedFunctions, blank_rollout, jit_functions, reference_params
from sftrl_jax.programs.start import trainable
from sftrl_jax.programs.start.initial_params import abstract_with
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.episodes import blank_episodes
from sftrl_jax.rollout.sample import TurnInputs
from sftrl_jax.training.advantages import NOT_SCORED
from sftrl_jax.training.state import TrainState, is_averaged

Pairs = tuple[tuple[str, Any], ...]   # (role, tree); roles are those of compilation.ROLES, or "state"


@dataclasses.dataclass(frozen=True)
class PlannedFunction:
  """One jitted function.

  arguments: (role, tree) of each argument in order; leaves are ShapeDtypeStructs with shardings, or small host arrays
  static: keyword arguments that are part of the program
  resident: (role, tree) of other arrays that occupy the devices during the call
  calls: how often a step of the run calls it, if no conversation ends early; 0: at the start or in evaluations only
  trips: the largest trip count of a loop that ends depending on data
  tokens: positions that one call computes
  """

  name: str
  jitted: Any
  arguments: Pairs
  static: dict = dataclasses.field(default_factory=dict)
  resident: Pairs = ()
  calls: float = 0.0
  trips: int = 1
  tokens: int = 0


Source = Generator[PlannedFunction, Any, Any]   # is sent the abstract results of the function that it has yielded


def for_each(experiment: Experiment, handle: Callable[[PlannedFunction], tuple[Any, Any]]) -> Iterator[Any]:
  """Calls handle(function) -> (value, abstract results with shardings) on every function; yields the values."""
  source, returned = planned_functions(experiment), None
  while True:
    try:
      function = source.send(returned)
    except StopIteration:
      return
    value, returned = handle(function)
    yield value


def planned_functions(experiment: Experiment) -> Source:
  """The functions of a run; after each, the generator has to be sent what that function returns: see `for_each`.

  It is sent results, because the next function is compiled for arguments in the layout in which the one before returns
  them, and only the compiler knows that layout.
  """
  kind = KINDS[experiment.verb]
  learner = kind.make_learner(experiment)
  model, trained, frozen = trainable.abstract_trainable(experiment)
  jitted = jit_functions(experiment, learner, trained)
  yield PlannedFunction("state", jitted.init_state, (("parameters", trained),))
  state = abstract_with(jax.eval_shape(jitted.init_state, trained), jitted.shardings)
  # Where nothing is frozen, a run keeps the parameters at the start beside those that it trains, if it reads them.
  start = () if frozen or not trainable.reads_start(experiment) else (("reference", model),)
  eval_params, averaged = trained, ()
  if is_averaged(state):
    eval_params = yield PlannedFunction("average", jitted.average, (("state", state),), resident=start)
    averaged = (("parameters", eval_params),)
  eval_params = trainable.full_params_fn(experiment)(eval_params, frozen)
  kept = (*averaged, *start)
  if kind.plays_episodes:
    batch = yield from _scoring(experiment, learner, jitted, eval_params, state, model, kept)
  else:
    batch = workloads.unpadded(learner.rows, learner.length, experiment.model.config.vocab)[0]
  yield PlannedFunction("train step", jitted.train_step, (("state", state), ("batch", batch), ("parameters", frozen)),
                        resident=kept, calls=learner.updates, tokens=learner.minibatch * learner.length)
  evals, actor = experiment.evals, experiment.actor
  if kind.plays_episodes or evals.variants:
    decoding = yield from _rollout(experiment, kind.plays_episodes, eval_params["model"], state, kept)
  if evals.variants and evals.kl and 1.0 in evals.temperatures:
    count = evaluator.kl_batch(experiment)
    batch = collect.rows(blank_episodes(count), actor.row_len(), [()] * count)
    yield PlannedFunction("kl of an evaluation", evaluator.kl_rows(experiment.model, experiment.compute.logit_chunk), (
        ("parameters", eval_params["model"]), ("reference", model), ("batch", batch.inputs), ("batch", batch.mask_BT)),
        resident=(("optimizer", state.opt_state), ("decoding", decoding)))


def with_row_shardings(function: PlannedFunction, mesh: Mesh) -> tuple:
  """The arguments of a function; host arrays of a batch become abstract, sharded by rows as mesh.shard_rows does it."""
  by_rows = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=meshes.by_rows(mesh)) if np.ndim(x) else x
  shard = lambda x: x if isinstance(x, jax.ShapeDtypeStruct) else by_rows(x)
  return tuple(jax.tree.map(shard, tree) if role == "batch" else tree for role, tree in function.arguments)


def with_guessed_shardings(tree: Any, mesh: Mesh) -> Any:
  """Results of a function that is not compiled: a known sharding stays; else rows are split where the mesh divides."""
  shards = meshes.rows(mesh)

  def guess(x: jax.ShapeDtypeStruct) -> Sharding:
    if getattr(x, "sharding", None) is not None:
      return x.sharding
    return meshes.by_rows(mesh) if x.ndim and x.shape[0] and x.shape[0] % shards == 0 else meshes.replicated(mesh)

  return abstract_with(tree, jax.tree.map(guess, tree))


def guess_results(function: PlannedFunction, mesh: Mesh) -> Any:
  """What a function returns, by tracing alone: abstract, with guessed shardings."""
  with jax.set_mesh(mesh), rules.applied():
    returned = function.jitted.eval_shape(*with_row_shardings(function, mesh), **function.static)
  return with_guessed_shardings(returned, mesh)


def _scoring(experiment: Experiment, learner: Learner, jitted: JittedFunctions, eval_params: dict, state: TrainState,
             model: dict, kept: Pairs) -> Source:
  """Scores of a batch of episodes, their advantages, and a minibatch, which it returns."""
  rows, outcomes = blank_rollout(experiment, learner)
  rows = rows.replace(inputs=workloads.unpadded_inputs(rows.inputs.tokens_BT))   # for rows cost what they have
  reference = reference_params(experiment, model)
  besides = tuple(pair for pair in kept if not (reference and pair[0] == "reference"))
  order = tuple(("other", order_B) for order_B in learner.score_order(np.zeros(learner.rows, np.int32)))
  scored = NOT_SCORED
  if jitted.score_rows:
    scored = yield PlannedFunction(
        "score", jitted.score_rows, (("parameters", eval_params), ("reference", reference), ("batch", rows), *order),
        resident=(("optimizer", state.opt_state), *besides), calls=1, tokens=learner.rows * learner.length)
  kept = (("state", state), *kept)
  batch, _ = yield PlannedFunction(
      "advantages", jitted.advantages, (("batch", scored), ("batch", rows), ("batch", outcomes)), resident=kept,
      calls=1)
  order = np.zeros(learner.minibatch, np.int32)
  return (yield PlannedFunction("minibatch", jitted.take, (("batch", batch), ("other", order)), resident=kept,
                                calls=learner.updates))


def _rollout(experiment: Experiment, trains: bool, model: dict, state: TrainState, kept: Pairs) -> Source:
  """The weight move and every shape of a rollout, as `compile_all` of rollout/policy.py meets them.

  trains: training plays episodes too. Returns the decoding parameters.
  """
  actor = experiment.actor
  batches = -(-experiment.batch // actor.rollout.rows) if trains else 0
  decoding = yield PlannedFunction("weight move", actor.compiled.to_decoding, (("parameters", model),),
                                   resident=(("optimizer", state.opt_state), *kept), calls=float(bool(batches)))
  kept = (("state", state), *kept)
  caches, later = [], batches * (actor.turns - 1)   # caches: of the turns so far, all of which may be alive
  for number, rows, group in actor.shapes():
    first, carried = number == 0, number > 0 and actor.carries
    # While no conversation ends early, training plays its first turn in groups, and later turns with all rows.
    trained = group == actor.group if first else rows == actor.sizes[0]
    calls = (batches if first else later) * trained
    order, static = ("other", np.zeros(rows, np.int32)), {"cache_len": actor.cache_len(number)}
    cache, alive = None, caches
    if carried:
      largest = max(caches, key=_bytes)
      cache = yield PlannedFunction(f"regroup {rows}", actor.compiled.regroup, (("cache", largest), order), static,
                                    resident=(*kept, ("decoding", decoding), *_besides(caches, largest)),
                                    calls=calls / max(1, actor.turns - 1))
    if not first and actor.turns > 2 and _bytes(cache) > sum(map(_bytes, caches)):
      alive = [cache]   # of the turn before, which the policy still refers to
    name = f"turn {'1' if first else '2 on'}, {rows} rows{f' in groups of {group}' if group > 1 else ''}"
    steps, reads = actor.rollout.max_new_tokens, rows // group * actor.read_len(number)
    returned, _ = yield PlannedFunction(
        name, actor.compiled.turn, _turn_arguments(experiment, decoding, cache, number, rows, group),
        {**static, "group": group}, resident=(*kept, *_besides(alive)), calls=calls, trips=steps - 1,
        tokens=reads + rows * steps)
    caches = [returned] if first else [*caches, returned]
    if carried and actor.turns > 2:
      yield PlannedFunction(f"regroup {rows} again", actor.compiled.regroup, (("cache", returned), order), static,
                            resident=(*kept, ("decoding", decoding), *_besides(caches, returned)),
                            calls=calls * (actor.turns - 2) / (actor.turns - 1))
  for actor in expert_accuracy.actors(experiment):
    rows, static = actor.rollout.rows, {"cache_len": actor.cache_len(0), "group": 1}
    arguments = _turn_arguments(dataclasses.replace(experiment, actor=actor), decoding, None, 0, rows, 1)
    yield PlannedFunction(f"turn at the expert's states, {rows} rows", actor.compiled.turn, arguments, static,
                          resident=kept, trips=actor.rollout.max_new_tokens - 1)
  return decoding


def _turn_arguments(experiment: Experiment, decoding: dict, cache: Any, number: int, rows: int, group: int) -> Pairs:
  """Of actor.compiled.turn, in its order; no row has padding."""
  inputs = workloads.unpadded_inputs(np.zeros((rows // group, experiment.actor.read_len(number)), np.int32))
  by_row = (np.zeros(rows, np.int32), np.ones(rows, bool), np.zeros(rows, np.uint32))
  key = jax.eval_shape(lambda: jax.random.key(0))
  key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=meshes.replicated(experiment.mesh))
  turn_inputs = TurnInputs(inputs, *by_row, key, np.int32(number), np.float32(experiment.actor.rollout.temperature))
  return ("decoding", decoding), ("cache", cache), ("batch", turn_inputs)


def _besides(caches: list, argument: Any = None) -> Pairs:
  """The caches that are resident besides the one that is an argument."""
  return tuple(("cache", cache) for cache in caches if cache is not argument and cache is not None)


def _bytes(tree: Any) -> int:
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
