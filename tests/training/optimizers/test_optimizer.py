"""Any optimizer by name swaps in, learns, resumes bit for bit and can be stored; the other keys mean one thing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sftrl_jax import trees
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.training import state as states
from sftrl_jax.training.optimizers.catalogue import catalogue
from sftrl_jax.training.optimizers.optimizer import OptimizerConfig, kind_of, make_optimizer, swap
from sftrl_jax.training.optimizers.schedule import ScheduleConfig, make_schedule

NAMES = tuple(catalogue().entries)
FILE = {"name": "adamw", "learning_rate": 1.0, "weight_decay": 0.01, "clip": 1.0, "args": {"b1": 0.8}}


STACK, EMBED = "model/layers/block/mlp/up/kernel", "model/embed"


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_swaps_in_for_adamw_learns_and_resumes_bit_for_bit(name, tiny):
  chosen = OptimizerConfig(**swap(FILE, name)[0])
  optimizer = make_optimizer(chosen, make_schedule(ScheduleConfig(), chosen.learning_rate, 0))
  goal = lambda shape: np.cos(3.0 * np.arange(np.prod(shape)), dtype=np.float32).reshape(shape)
  errors = lambda params: jax.tree.map(lambda p: p - goal(p.shape), params)

  @jax.jit
  def step(state):
    grads = errors(state.params)
    updates, slots = optimizer.update(grads, state.opt_state, state.params)
    return states.TrainState(state.step + 1, optax.apply_updates(state.params, updates), slots), trees.norm(grads)

  state, kept, losses = states.create(tiny(STACK), optimizer), [], []
  for _ in range(8):
    kept.append(jax.tree.map(np.array, state))
    state, loss = step(state)
    losses.append(float(loss))
  assert losses[-1] < losses[0] and np.isfinite(losses).all(), losses
  again, _ = step(jax.tree.map(jnp.asarray, kept[2]))
  jax.tree.map(np.testing.assert_array_equal, again, kept[3])
  shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), state) for state in kept]
  assert all(shape == shapes[0] for shape in shapes)   # a compiled step takes its own state back
  assert all(x.size for x in jax.tree.leaves(kept[0]))   # orbax keeps no empty arrays, checksums no typed keys


def test_what_is_random_follows_from_the_seed_argument(tiny):
  key = lambda seed: trees.leaves(make_optimizer(OptimizerConfig("noisy_sgd", args={"key": seed}),
                                                 float).init(tiny(EMBED)))
  first, same, second = key(1), key(1), key(2)
  jax.tree.map(np.testing.assert_array_equal, first, same)
  assert sum(leaf.dtype == jnp.uint32 and np.any(leaf != second[path]) for path, leaf in first.items()) == 1


def test_the_states_of_all_optimizers_are_stored_and_read_as_they_are(tiny, tmp_path):
  import orbax.checkpoint as ocp
  kept, params = {}, tiny(STACK, EMBED)
  for name in NAMES:
    init = make_optimizer(OptimizerConfig(name, weight_decay=0.1, freeze=(EMBED,)), float).init
    kept[name] = jax.tree.map(lambda x: jnp.asarray(np.full(x.shape, 3), x.dtype), jax.eval_shape(init, params))
  with ocp.StandardCheckpointer() as store:
    store.save(tmp_path / "states", kept)
    store.wait_until_finished()
    read = store.restore(tmp_path / "states", jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), kept))
  assert jax.tree.structure(read) == jax.tree.structure(kept)
  jax.tree.map(np.testing.assert_array_equal, read, kept)


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_states_are_split_like_their_parameters(params, name):
  mesh = meshes.make(meshes.MeshConfig())
  where, shapes = trees.leaves(rules.shardings(params, mesh)), {p: x.shape for p, x in trees.leaves(params).items()}
  state = jax.eval_shape(make_optimizer(OptimizerConfig(name, weight_decay=0.1), float).init, params)
  placed, split = trees.leaves(rules.like_parameters(state, rules.shardings(params, mesh), mesh)), 0
  for path, slot in trees.leaves(state).items():
    name_of = next((p for p in where if path.endswith("/" + p)), None)
    if name_of and slot.shape == shapes[name_of]:
      assert placed[path] == where[name_of], path
      split += "fsdp" in where[name_of].spec
  # One slot at least for every matrix that is split; GaLore's are of another shape, and some have none.
  assert split >= {"galore": 1, "sign_sgd": 0, "fromage": 0, "noisy_sgd": 0}.get(name, 8)


def test_the_gradient_is_clipped_by_its_global_norm_of_which_frozen_parameters_are_no_part():
  params = {"model": {"w": jnp.ones(4), "v": jnp.ones(4)}}
  grads = {"model": {"w": jnp.full(4, 50.0), "v": jnp.full(4, 1000.0)}}

  def size(clip, freeze=()):
    section = OptimizerConfig("sgd", 1.0, clip=clip, freeze=freeze, args={"momentum": 0.0})
    optimizer = make_optimizer(section, lambda n: 1.0)
    return trees.norm(optimizer.update(grads, optimizer.init(params), params)[0])

  assert float(size(2.0)) == pytest.approx(2.0)
  assert float(size(2.0, ("model/v",))) == pytest.approx(2.0) and float(size(0.0, ("*/v",))) == pytest.approx(100.0)


@pytest.mark.parametrize("name", ["muon", "prodigy"])
def test_training_with_frozen_parameters_is_training_without_them(name, tiny):
  whole, part = tiny(), tiny(STACK, EMBED)
  frozen = dict(freeze=("*/scale", "*/attn/*"), factors={"value/*": 0.0})
  optimizers = [make_optimizer(OptimizerConfig(name, weight_decay=0.1, **keys), lambda n: 0.1) for keys in (frozen, {})]

  def after(params, optimizer):
    grads = jax.tree.map(lambda x: 1.0 + x, params)
    updates, state = optimizer.update(grads, optimizer.init(params), params)
    return optax.apply_updates(params, updates), state

  (whole, slots), (part, fewer) = jax.jit(lambda *both: [*map(after, both, optimizers)])(whole, part)
  for path, leaf in trees.leaves(whole).items():
    trained = path in (STACK, EMBED)
    np.testing.assert_array_equal(leaf, trees.leaves(part)[path] if trained else trees.leaves(tiny())[path], path)
    assert np.any(leaf != trees.leaves(tiny())[path]) == trained
  assert [x.shape for x in jax.tree.leaves(slots)] == [x.shape for x in jax.tree.leaves(fewer)]


def test_args_reach_the_optimizer():
  params = {"model": {"w": jnp.ones(2)}}
  two = []
  for momentum in (0.0, 0.5):
    optimizer = make_optimizer(OptimizerConfig("sgd", 1.0, clip=0.0, args={"momentum": momentum}), lambda n: 1.0)
    state = optimizer.init(params)
    for _ in range(2):
      updates, state = optimizer.update(params, state, params)
    two.append(float(updates["model"]["w"][0]))
  assert two == [-1.0, -1.5]


def test_swapping_brings_defaults_and_rate_and_says_so():
  new, message = swap(FILE, "lion")
  assert new == {**FILE, "name": "lion", "learning_rate": 1e-4, "args": {"b1": 0.9, "b2": 0.99}}
  assert FILE["args"] == {"b1": 0.8}
  assert message == "optimizer.name adamw -> lion: learning_rate 1 -> 0.0001; without b1=0.8; with b1=0.9, b2=0.99"
  message = swap(FILE, "lion", {"learning_rate", "args.b1"})[1]
  assert message == "optimizer.name adamw -> lion: without b1=0.8; with b2=0.99"
  assert swap({**FILE, "args": {}}, "sign_sgd", {"learning_rate"})[1] == "optimizer.name adamw -> sign_sgd"


def test_the_type_of_an_argument_is_that_of_its_default():
  kinds = {"adamw b1": float, "adamw nesterov": bool, "adamw mu_dtype": str, "galore rank": int,
           "rmsprop momentum": float, "prodigy betas": tuple[float, float], "dog init_step": tuple[str, float],
           "adafactor dtype_momentum": str, "noisy_sgd key": int, "muon ns_coeffs": str | tuple}
  assert {words: kind_of({"name": words.split()[0]}, words.split()[1]) for words in kinds} == kinds
  assert kind_of({"name": "unheard"}, "x") is object   # its name is told by whoever builds it


@pytest.mark.parametrize("make, message", [
    (lambda: OptimizerConfig("addamw"), "name is 'addamw'; did you mean 'adamw'"),
    (lambda: swap({}, "muom"), "did you mean 'muon'"),
    (lambda: OptimizerConfig("lbfgs"), "'lbfgs', which is refused: its line search"),
    (lambda: OptimizerConfig("partition"), "'partition', which is a wrapper and no optimizer"),
    (lambda: OptimizerConfig("scale_by_adam"), "part of optimizers, no optimizer by itself; did you mean 'adam'"),
    (lambda: OptimizerConfig(args={"momentum": 0.9}), r"^args.momentum is no argument of adamw\. It takes b1, b2"),
    (lambda: OptimizerConfig(args={"bb1": 0.9}), r"args.bb1 is no argument of adamw: did you mean b1\?"),
    (lambda: OptimizerConfig(args={"weight_decay": 0.9}),
     "args.weight_decay is no .* is config.optimizer.weight_decay"),
    (lambda: OptimizerConfig("galore", args={"rank": 0}),
     r"^args.rank is 0; it must be at least 1\."),
    (lambda: OptimizerConfig("mechanize", args={"base_optimizer": "prodigy"}),
     "base_optimizer is 'prodigy', which finds"),
    (lambda: OptimizerConfig("schedule_free", args={"base_optimizer": "adm"}),
     "args.base_optimizer: name is 'adm'; did you"),
    (lambda: OptimizerConfig(learning_rate=0.0), "learning_rate is 0.0"),
    (lambda: OptimizerConfig(freeze="*"), "list of globs"),
    (lambda: OptimizerConfig(weight_decay=-1.0), "weight_decay is -1.0"),
    (lambda: OptimizerConfig(clip=-1.0), "clip is -1.0"),
    (lambda: OptimizerConfig(factors={"*": -1.0}), "factors.* is -1.0; it must be 0")])
def test_wrong_settings_name_their_key(make, message):
  with pytest.raises(ValueError, match=message):
    make()
