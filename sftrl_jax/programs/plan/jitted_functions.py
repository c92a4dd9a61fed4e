"""Every jitted function of a run with its arguments, so that all can be compiled where nothing can run.

They are the functions of loop/jitted.py, in the order in which a run first calls them.
"""

import collections
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
from sftrl_jax.programs.experiment.learner import Learner, ResponseScoring
from sftrl_jax.programs.loop import evaluator, expert_accuracy, sft_data
from sftrl_jax.programs.loop.jitted import JittedFunctions, blank_rollout, jit_functions, reference_params
from sftrl_jax.programs.start import trainable
from sftrl_jax.programs.start.initial_params import abstract_with
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.actor import Actor, Shape
from sftrl_jax.rollout.collect import ResponseRows
from sftrl_jax.rollout.episodes import blank_episodes
from sftrl_jax.rollout.sample import SegmentInputs, TurnInputs
from sftrl_jax.rollout.segments import blank_inputs
from sftrl_jax.training.advantages import NOT_SCORED
from sftrl_jax.training.state import TrainState, is_averaged
from sftrl_jax.training.updates import kl_control

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
  # Without adapters a run keeps the parameters at the start beside those that it trains, if it reads them.
  start = () if experiment.lora.rank or not trainable.reads_start(experiment) else (("reference", model),)
  eval_params, averaged = trained, ()
  if is_averaged(state):
    eval_params = yield PlannedFunction("average", jitted.average, (("state", state),), resident=start)
    averaged = (("parameters", eval_params),)
  eval_params = trainable.full_params_fn(experiment)(eval_params, frozen)
  kept = (*averaged, *start)
  if experiment.reward_model is not None:
    reward = ("reward model", experiment.reward_model.abstract(experiment.mesh))
    yield _rewards(learner.responses, reward, (("state", state), *kept))
    kept = (*kept, reward)
  if kind.plays_episodes:
    batch = yield from _scoring(experiment, learner, jitted, eval_params, state, model, kept)
  elif learner.blank_batch:
    if learner.score_rows:
      rows = learner.blank_batch(sft_data.rows_at_once(experiment), False)
      # Where nothing is trained beside the start, its parameters are those that are scored with.
      yield PlannedFunction("reference", jitted.score_rows, (("reference", {"model": model}), ("batch", rows)),
                            resident=(("state", state),), calls=0, tokens=rows.targets_BT.size)
    batch = learner.blank_batch(learner.rows, bool(learner.score_rows))
  else:
    batch = workloads.unpadded(learner.rows, learner.length, experiment.model.config.vocab,
                               experiment.tokenizer.reader)[0]
    if learner.score_rows:
      old_BT = yield PlannedFunction(
          "score", jitted.score_rows, (("parameters", eval_params), ("batch", batch)), calls=1,
          resident=(("optimizer", state.opt_state), *kept), tokens=learner.rows * learner.length)
      order = np.zeros(learner.minibatch, np.int32)
      batch = yield PlannedFunction("minibatch", jitted.take, (
          ("batch", batch.replace(old_logprobs_BT=old_BT)), ("other", order)), resident=(("state", state), *kept),
          calls=learner.updates)
  yield PlannedFunction("train step", jitted.train_step, (("state", state), ("batch", batch), ("parameters", frozen)),
                        resident=kept, calls=learner.updates, tokens=learner.minibatch * learner.length)
  evals = experiment.evals
  if kind.plays_episodes or evals.variants:
    decoding = yield from _rollout(experiment, kind.plays_episodes, eval_params["model"], state, kept)
  for actor in evaluator.actors(experiment) if trainable.measures_kl(experiment) else ():
    count = evaluator.kl_batch(experiment, actor)
    batch = collect.rows(blank_episodes(count), actor.row_len(), [()] * count, reader=experiment.tokenizer.reader)
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
  rows = rows.replace(inputs=workloads.without_padding(rows.inputs))   # for rows cost what they have
  reference = reference_params(experiment, model)
  besides = tuple(pair for pair in kept if not (reference and pair[0] == "reference"))
  order = tuple(("other", order_B) for order_B in learner.score_order(np.zeros(learner.rows, np.int32)))
  scored = NOT_SCORED
  if jitted.score_rows:
    scored = yield PlannedFunction(
        "score", jitted.score_rows, (("parameters", eval_params), ("reference", reference), ("batch", rows), *order),
        resident=(("optimizer", state.opt_state), *besides), calls=1, tokens=learner.rows * learner.length)
  kept = (("state", state), *kept)
  coef = (("other", np.float32(0)),) if kl_control.is_adaptive(experiment.algorithm_config) else ()
  batch, _ = yield PlannedFunction(
      "advantages", jitted.advantages, (("batch", scored), ("batch", rows), ("batch", outcomes), *coef), resident=kept,
      calls=1)
  order = np.zeros(learner.minibatch, np.int32)
  return (yield PlannedFunction("minibatch", jitted.take, (("batch", batch), ("other", order)), resident=kept,
                                calls=learner.updates))


def _rewards(scoring: ResponseScoring, reward: tuple[str, Any], resident: Pairs) -> PlannedFunction:
  """The scores of a reward model on the responses of an iteration, as one round plays them."""
  rows = np.ones((scoring.rows, scoring.length), np.int32)
  rows = ResponseRows(workloads.unpadded_inputs(rows), np.zeros((scoring.rows, scoring.turns), np.int32))
  order = tuple(("other", order_B) for order_B in scoring.order(np.zeros(scoring.rows, np.int32)))
  return PlannedFunction("reward model", jax.jit(scoring.score), (reward, ("batch", rows), *order), resident=resident,
                         calls=1, tokens=scoring.rows * scoring.length)


def _rollout(experiment: Experiment, trains: bool, model: dict, state: TrainState, kept: Pairs) -> Source:
  """The weight move and the programs of a rollout, as `compile_all` of rollout/segments.py meets them.

  trains: training plays episodes too. Returns the decoding parameters.
  """
  actor = experiment.actor
  batches = -(-experiment.batch // actor.rollout.rows) if trains else 0
  decoding = yield PlannedFunction("weight move", actor.compiled.to_decoding, (("parameters", model),),
                                   resident=(("optimizer", state.opt_state), *kept), calls=float(bool(batches)))
  kept = (("state", state), *kept)
  yield from _sampling(actor, decoding, kept, batches, "turn {}")
  for more in evaluator.actors(experiment)[1:]:
    yield from _sampling(more, decoding, kept, 0, "turn {} of probes")
  for more in expert_accuracy.actors(experiment):
    yield from _sampling(more, decoding, kept, 0, "turn at the expert's states")
  return decoding


def _sampling(actor: Actor, decoding: dict, kept: Pairs, batches: int, name: str) -> Source:
  """The programs of an actor. In segments, those with all rows alone: with fewer rows they are the same but smaller.

  batches: how often all rows are played in a step. name: of a turn, with a place for its number, where it has one
  """
  if actor.rollout.refill:
    yield from _refilled(actor, decoding, kept, batches, name)
    return
  calls, everyone, config = _calls(actor), actor.rollout.rows, actor.decoder.config
  for shape in actor.shapes():
    turn, rows, group, cache_len, begins = shape
    if actor.in_segments and rows < everyone:
      continue
    empty = begins and actor.begins_empty(turn)
    of_cache = f", cache {cache_len}" if actor.in_segments else ""
    groups = f" in groups of {group}" if group > 1 else ""
    beginning = name.format("2 on" if turn else "1") if begins else name.partition(" {}")[0].replace("turn", "segment")
    inputs = _unpadded_inputs(actor, shape)
    cache = None if empty else actor.blank_cache(rows, cache_len)
    # While no conversation ends early, training plays its first turn in groups, and later turns with all rows.
    sampled = 1 if begins and actor.in_segments else actor.segment
    trained = (group == actor.group or not empty or turn > 0) and rows == everyone
    yield PlannedFunction(
        f"{beginning}, {rows} rows{groups}{of_cache}", actor.compiled.turn if begins else actor.compiled.segment,
        (("decoding", decoding), ("cache", cache), ("batch", inputs)),
        {"cache_len": cache_len, "group": group} if begins else {}, resident=kept,
        calls=batches * calls[turn if begins else "later", cache_len] * trained,
        trips=max(1, sampled - begins), tokens=rows * sampled + (rows // group * actor.read_len(turn) if begins else 0))
  for move in actor.moves():
    rows, cache_len, to_rows, to_len, takes, *_ = move
    if actor.in_segments and (move.back or move.rows < everyone or move.to_rows < everyone):
      continue
    larger = max((actor.blank_cache(rows, cache_len), actor.blank_cache(to_rows, to_len)), key=_bytes)
    taken = np.zeros(to_rows, np.int32) if takes else None
    again = " again" if cache_len == to_len else ""
    names = f"regroup {rows} to {to_rows}{again}" if again and rows > to_rows else f"regroup {to_rows}{again}"
    yield PlannedFunction(
        f"{names}, cache {cache_len} to {to_len}" if actor.in_segments else names, actor.compiled.regroup,
        (("cache", actor.blank_cache(rows, cache_len, 1)), ("other", taken)), {"cache_len": to_len},
        resident=(*kept, ("decoding", decoding), ("cache", larger)),   # one layer at a time, and freed
        calls=batches * config.layers * calls[cache_len, to_len] * (to_rows == everyone))


def _refilled(actor: Actor, decoding: dict, kept: Pairs, batches: int, name: str) -> Source:
  """`_sampling` where slots are refilled: newcomers are read, and rows move, while all rings are there."""
  turns, longest, kept = batches * actor.turns, actor.rollout.max_new_tokens, (*kept, ("decoding", decoding))
  rounds = batches * -(-actor.rollout.rows // actor.newcomers)   # in which all conversations of a turn enter a ring
  caches = {ring: ("cache", actor.blank_cache(ring.sizes[0], ring.cache_len)) for ring in actor.rings}
  others = lambda ring: tuple(cache for each, cache in caches.items() if each != ring)
  ring_of = {(ring.sizes[0], ring.cache_len): ring for ring in actor.rings}
  for ring in actor.rings:
    rows, cache_len = ring.sizes[0], ring.cache_len
    yield PlannedFunction(f"ring, {rows} rows, cache {cache_len}", actor.compiled.ring, (), {
        "rows": rows, "cache_len": cache_len}, resident=kept, calls=bool(batches))
  for shape in actor.shapes():
    turn, rows, group, cache_len, begins = shape
    ring, arguments = ring_of.get((rows, cache_len)), ("batch", _unpadded_inputs(actor, shape))
    if begins:
      groups = f" in groups of {group}" if group > 1 else ""
      yield PlannedFunction(
          f"{name.format('2 on' if turn else '1')}, {rows} rows{groups}, cache {cache_len}", actor.compiled.turn,
          (("decoding", decoding), ("cache", None), arguments), {"cache_len": cache_len, "group": group},
          resident=(*kept[:-1], *caches.values()), tokens=rows + rows // group * cache_len,
          calls=rounds * (actor.turns - 1 if turn else group == actor.group))
    elif ring is not None:
      tokens = ring.tokens - (1 if ring == actor.rings[0] else actor.rings[0].tokens)
      yield PlannedFunction(
          f"{name.partition(' {}')[0].replace('turn', 'segment')}, {rows} rows, cache {cache_len}",
          actor.compiled.segment, (("decoding", decoding), caches[ring], arguments),
          resident=(*kept[:-1], *others(ring)), trips=actor.segment, tokens=rows * actor.segment,
          calls=turns * -(-actor.rollout.rows // rows) * -(-tokens // actor.segment))
  for move in actor.moves():
    rows, cache_len, to_rows, to_len, *_ = move
    source, target = ring_of.get((rows, cache_len)), ring_of.get((to_rows, to_len))
    if move.enters and target is not None:
      of_turn = actor.turns if target != actor.rings[0] else cache_len == actor.read_len(0) or actor.turns - 1
      yield PlannedFunction(
          f"admit, {rows} rows to {to_rows}, cache {cache_len} to {to_len}", actor.compiled.admit,
          (caches[target], ("batch", np.zeros(rows, np.int32)), ("cache", actor.blank_cache(rows, cache_len))),
          resident=(*kept, *others(target)), calls=rounds * of_turn)
    elif source is not None and to_rows == actor.newcomers:   # of long responses; layer by layer, and none is freed
      yield PlannedFunction(
          f"regroup {rows} to {to_rows}, cache {cache_len} to {to_len}", actor.compiled.regroup,
          (("cache", actor.blank_cache(rows, cache_len, 1)), ("other", np.zeros(to_rows, np.int32))),
          {"cache_len": to_len}, resident=(*kept, *caches.values(), ("cache", actor.blank_cache(to_rows, to_len))),
          calls=rounds * actor.turns * actor.decoder.config.layers * (longest > source.tokens))


def _unpadded_inputs(actor: Actor, shape: Shape) -> TurnInputs | SegmentInputs:
  """What a program that samples is called with besides parameters and cache, all of whose rows live."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=meshes.replicated(actor.mesh))
  inputs = blank_inputs(actor, shape, key)
  inputs = inputs.replace(live_B=np.ones(shape.rows, bool), temperature=np.float32(actor.rollout.temperature))
  return inputs.replace(inputs=workloads.without_padding(inputs.inputs)) if shape.begins else inputs


def _calls(actor: Actor) -> collections.Counter:
  """How often every program is called while no conversation ends early, by (turn or "later", cache_len) where it
  samples, and by both lengths of the cache where it moves rows."""
  calls, columns, before = collections.Counter(), 0, None
  for turn in range(actor.turns):
    columns = 0 if actor.begins_empty(turn) else columns
    before = None if actor.begins_empty(turn) else before
    for first, end in zip((0, *actor.ends), actor.ends, strict=False):
      most = end - first
      needed = actor.read_len(turn) + actor.segment - 1 if not first else most
      cache_len = actor.cache_len_for(turn, columns + needed)
      passed = [length for length in actor.cache_lens(turn) if before and before <= length <= cache_len]
      if actor.in_segments:
        calls.update(zip(passed, passed[1:], strict=False))
      elif before:
        calls[before, cache_len] += 1
      calls["later" if first else min(turn, 1), cache_len] += 1
      columns, before = columns + (actor.read_len(turn) + most - 1 if not first else most), cache_len
  return calls


def _bytes(tree: Any) -> int:
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
