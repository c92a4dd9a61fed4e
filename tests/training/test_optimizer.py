"""Six optimizers, one meaning of learning rate, clip and decay; schedules by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sftrl_jax import trees
from sftrl_jax.metrics import Mean
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.training import state as states
from sftrl_jax.training.optimizer import (
  DEFAULTS,
  FACTORIES,
  LEARNING_RATES,
  Optimizer,
  Schedule,
  decays,
  make_optimizer,
  make_schedule,
  muon_dimensions,
  swap,
)
from sftrl_jax.training.step import make_train_step

NAMES = tuple(FACTORIES)
MATRICES = {"model/embed", "model/unembed", *(f"model/layers/block/{part}/kernel" for part in (
    "attn/q", "attn/k", "attn/v", "attn/o", "mlp/gate", "mlp/up", "mlp/down"))}
BLOCKS = dict(zip(
    sorted(MATRICES - {"model/embed", "model/unembed"}),
    (((1,), (2, 3)), ((1, 2), (3,)), ((1,), (2, 3)), ((1,), (2, 3)), ((1,), (2,)), ((1,), (2,)), ((1,), (2,))),
    strict=True))   # k, o, q, v, down, gate, up


def tiny():
  """Zeros by the paths of a model: an embedding, a matrix of the blocks, a norm and a value head."""
  block = {"attn": {"q": {"kernel": (2, 4, 2, 3)}}, "attn_norm": {"scale": (2, 4)}}
  shapes = {"model": {"embed": (5, 4), "layers": {"block": block}}, "value": {"bias": ()}}
  return jax.tree.map(jnp.zeros, shapes, is_leaf=lambda x: isinstance(x, tuple))


def test_the_six_are_known_everywhere():
  assert set(NAMES) == {"adamw", "adam", "lion", "adafactor", "muon", "sgd"}
  assert LEARNING_RATES.keys() == DEFAULTS.keys() == FACTORIES.keys()


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_lowers_the_loss(name):
  start = tiny()
  goal = jax.tree.map(lambda x: x + jnp.cos(3.0 * jnp.arange(float(x.size))).reshape(x.shape), start)

  def loss(params, _):   # ill-conditioned squares, one a leaf
    errors = jax.tree.map(lambda p, g: jnp.sum(jnp.square(p - g)), params, goal)
    return Mean(sum(n * error for n, error in enumerate(jax.tree.leaves(errors), 1)), jnp.float32(1.0)), {}

  section, _ = swap({"name": "adamw", "learning_rate": 1.0, "weight_decay": 0.01, "clip": 1.0, "args": {}}, name)
  chosen = Optimizer(**section)
  schedule = make_schedule(Schedule(warmup=2), chosen.learning_rate, 0)
  optimizer = make_optimizer(chosen, schedule)
  step = jax.jit(make_train_step(loss, optimizer, schedule))
  state, losses = states.create(start, optimizer), []
  for _ in range(10):
    state, metrics = step(state, jnp.zeros(1))
    losses.append(float(metrics["loss"].value()))
  assert losses[-1] < losses[0]
  assert all(np.any(leaf) for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_states_are_split_like_their_parameters(params, name):
  mesh = meshes.make(meshes.MeshConfig())
  optimizer = make_optimizer(Optimizer(name, weight_decay=0.1), make_schedule(Schedule(), 1e-3, 1))
  slots = trees.leaves(jax.eval_shape(optimizer.init, params))
  placed = trees.leaves(states.shardings(params, optimizer, mesh).opt_state)
  where, shapes = trees.leaves(rules.shardings(params, mesh)), {p: x.shape for p, x in trees.leaves(params).items()}
  assert placed.keys() == slots.keys()
  split = 0
  for path, slot in slots.items():
    name_of = next((p for p in where if path.endswith("/" + p)), None)
    if name_of and slot.shape == shapes[name_of]:
      assert placed[path] == where[name_of], path
      split += "fsdp" in where[name_of].spec
  assert split >= 8   # one slot at least for every matrix that is split


@pytest.mark.parametrize("name, schedule", [*((name, Schedule()) for name in NAMES), ("adamw", Schedule(warmup=4))])
def test_without_a_gradient_matrices_shrink_by_lr_times_decay_and_nothing_else_moves(name, schedule):
  params = jax.tree.map(lambda x: x + 1.0 + jnp.arange(float(x.size)).reshape(x.shape), tiny())
  rate, decay = 0.1, 0.2
  schedule = make_schedule(schedule, rate, 10)
  optimizer = make_optimizer(Optimizer(name, learning_rate=rate, weight_decay=decay), schedule)
  state, now, update = optimizer.init(params), params, jax.jit(optimizer.update)
  factor = 1.0
  for number in range(2):
    updates, state = update(jax.tree.map(jnp.zeros_like, params), state, now)
    now = optax.apply_updates(now, updates)
    factor *= 1 - float(schedule(number)) * decay
  for path, leaf in trees.leaves(now).items():
    want = trees.leaves(params)[path] * (factor if path in MATRICES else 1.0)
    np.testing.assert_allclose(leaf, want, rtol=1e-5, atol=1e-8, err_msg=path)


def test_matrices_decay_and_norms_and_heads_do_not(params):
  assert {path for path in trees.leaves(params) if decays(path)} == MATRICES


def test_muon_orthogonalises_exactly_the_matrices_of_the_blocks(params):
  is_axes = lambda x: x is None or isinstance(x, optax.contrib.MuonDimensionNumbers)
  found = jax.tree_util.tree_flatten_with_path(muon_dimensions(params), is_leaf=is_axes)[0]
  found = {trees.path_of(keys): axes for keys, axes in found}
  assert found.keys() == trees.leaves(params).keys()
  for path, axes in found.items():
    if path in BLOCKS:
      assert (tuple(axes.reduction_axis), tuple(axes.output_axis)) == BLOCKS[path], path
    else:
      assert axes is None, path
  scales = {"model/final_norm/scale", "model/layers/block/attn_norm/scale", "model/layers/block/mlp_norm/scale"}
  assert found.keys() - BLOCKS.keys() == {"model/embed", "model/unembed", "value/kernel", "value/bias", *scales}


def test_the_gradient_is_clipped_by_its_global_norm():
  params = {"model": {"w": jnp.ones(4)}}
  grads = {"model": {"w": jnp.full(4, 50.0)}}
  step = lambda clip: make_optimizer(Optimizer("sgd", 1.0, clip=clip, args={"momentum": 0.0}), lambda n: 1.0)
  size = lambda opt: float(trees.norm(opt.update(grads, opt.init(params), params)[0]))
  assert size(step(0.0)) == pytest.approx(100.0) and size(step(2.0)) == pytest.approx(2.0)


def test_args_reach_the_optimizer():
  params = {"model": {"w": jnp.ones(2)}}
  two = []
  for momentum in (0.0, 0.5):
    optimizer = make_optimizer(Optimizer("sgd", 1.0, clip=0.0, args={"momentum": momentum}), lambda n: 1.0)
    state = optimizer.init(params)
    for _ in range(2):
      updates, state = optimizer.update(params, state, params)
    two.append(float(updates["model"]["w"][0]))
  assert two == [-1.0, -1.5]


def test_schedules_by_hand():
  at = lambda schedule, numbers, updates=10: [float(make_schedule(schedule, 2.0, updates)(n)) for n in numbers]
  assert at(Schedule(), (0, 5, 99)) == [2.0, 2.0, 2.0]
  assert at(Schedule(warmup=4), range(6)) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]   # the first update already learns
  assert at(Schedule("linear", end=0.5), (0, 5, 10, 20)) == pytest.approx([2.0, 1.5, 1.0, 1.0])
  assert at(Schedule("linear", warmup=2), (0, 1, 2, 6, 10)) == pytest.approx([1.0, 2.0, 2.0, 1.0, 0.0])
  cosine = lambda share: 2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share)))
  assert at(Schedule("cosine", end=0.1), (0, 5, 10, 30)) == pytest.approx([cosine(0), cosine(0.5), 0.2, 0.2])
  assert at(Schedule("cosine", warmup=2, updates=6), (0, 2, 4, 6), 100) == pytest.approx([1.0, 2.0, 1.0, 0.0], abs=1e-6)
  assert at(Schedule("inverse_sqrt", warmup=4), (0, 3, 4, 12, 32)) == pytest.approx(
      [0.5, 2.0, 2.0, 2.0 * math.sqrt(4 / 12), 2.0 * math.sqrt(4 / 32)])


def test_swapping_brings_defaults_and_rate_and_says_so():
  old = {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.1, "clip": 0.5, "args": {"b1": 0.8}}
  new, message = swap(old, "lion")
  assert new == {"name": "lion", "learning_rate": 3e-5, "weight_decay": 0.1, "clip": 0.5, "args": DEFAULTS["lion"]}
  assert old["args"] == {"b1": 0.8} and new["args"] is not DEFAULTS["lion"]
  assert "adamw -> lion" in message and "0.001 -> 3e-05" in message
  for name in NAMES:
    Optimizer(**swap(old, name)[0])


@pytest.mark.parametrize("make, message", [
    (lambda: Optimizer("addamw"), "name is 'addamw'; did you mean 'adamw'"),
    (lambda: swap({}, "muom"), "did you mean 'muon'"),
    (lambda: Optimizer(args={"momentum": 0.9}), "args.momentum is no argument of adamw"),
    (lambda: Optimizer(args={"weight_decay": 0.9}), "args.weight_decay is no argument"),
    (lambda: Optimizer(learning_rate=0.0), "learning_rate is 0.0"),
    (lambda: Optimizer(weight_decay=-1.0), "weight_decay is -1.0"), (lambda: Optimizer(clip=-1.0), "clip is -1.0"),
    (lambda: Schedule("step"), "name is 'step'"), (lambda: Schedule(warmup=-1), "warmup is -1"),
    (lambda: Schedule(updates=-1), "updates is -1"), (lambda: Schedule(end=2.0), "end is 2.0")])
def test_wrong_settings_name_their_key(make, message):
  with pytest.raises(ValueError, match=message):
    make()
