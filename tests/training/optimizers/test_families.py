"""Decay and factors mean the same under every family of optimizers, and no family's own law breaks under them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from sftrl_jax import trees
from sftrl_jax.training import state as states
from sftrl_jax.training.optimizers.optimizer import OptimizerConfig, make_optimizer
from sftrl_jax.training.optimizers.schedule import ScheduleConfig, make_schedule

UP, SCALE = "model/layers/block/mlp/up/kernel", "model/layers/block/attn_norm/scale"
LARGE = {"estim_lr0": 0.1}   # a first rate at which steps are seen


def walk(optimizer, params, gradient, steps):
  """Parameters and states after every step, the start included. gradient: function of the parameters."""
  state, path = optimizer.init(params), []
  for _ in range(steps):
    path.append((params, state))
    updates, state = optimizer.update(gradient(params), state, params)
    params = optax.apply_updates(params, updates)
  return [*path, (params, state)]


def ramp(params):
  return jax.tree.map(lambda x: jnp.asarray(0.1 + 0.01 * np.arange(x.size).reshape(x.shape), jnp.float32), params)


@pytest.mark.parametrize("name, schedule", [
    ("adamw", ScheduleConfig(warmup=4)),
    *((name, ScheduleConfig()) for name in ("adafactor", "muon", "madgrad", "cocob"))])
def test_without_a_gradient_matrices_shrink_by_lr_times_decay_and_nothing_else_moves(name, schedule, tiny):
  params, rate, decay, factor = tiny("model/embed", UP, SCALE), 0.1, 0.2, 1.0
  schedule = make_schedule(schedule, rate, 10)
  optimizer = make_optimizer(OptimizerConfig(name, learning_rate=rate, weight_decay=decay), schedule)
  state, now, update = optimizer.init(params), params, jax.jit(optimizer.update)
  for number in range(2):
    updates, state = update(jax.tree.map(jnp.zeros_like, params), state, now)
    now = optax.apply_updates(now, updates)
    factor *= 1 - float(schedule(number)) * decay
  for path, leaf in trees.leaves(now).items():
    want = trees.leaves(params)[path] * (1.0 if path == SCALE else factor)
    np.testing.assert_allclose(leaf, want, rtol=1e-5, atol=1e-7, err_msg=path)


@pytest.mark.parametrize("name", ["madgrad", "cocob"])
def test_decay_stays_where_every_step_is_counted_from_the_start(name, tiny):
  decay, section = 0.2, dict(learning_rate=0.1, clip=0.0)
  optimizers = (make_optimizer(OptimizerConfig(name, weight_decay=value, **section), lambda n: 0.1)
                for value in (0.0, decay))
  plain, decayed = (walk(optimizer, tiny(UP), ramp, 4) for optimizer in optimizers)
  drift = np.zeros(())
  for (free, _), (pulled, _) in zip(plain, decayed, strict=True):
    free, pulled = trees.leaves(free)[UP], trees.leaves(pulled)[UP]
    np.testing.assert_allclose(pulled, free + drift, rtol=1e-5)
    drift = drift - 0.1 * decay * pulled
  assert np.abs(drift).max() > 0.01


@pytest.mark.parametrize("name, args", [
    ("prodigy", LARGE), ("dadapt_adamw", LARGE), ("dog", {"init_step": ("distance", 0.5)}), ("cocob", {}),
    ("madgrad", {}), ("mechanize", {"s_init": 0.1}), ("schedule_free_sgd", {})])
def test_a_factor_makes_steps_that_much_longer_than_those_of_others(name, args):
  params = {"model": {path: jnp.asarray(np.arange(6.0).reshape(2, 3) / 10) for path in ("embed", "unembed")}}
  optimizer = make_optimizer(OptimizerConfig(name, clip=0.0, factors={"*/unembed": 0.25}, args=args), lambda n: 1.0)
  grads = jax.tree.map(lambda x: jnp.asarray(np.full(x.shape, 0.3, np.float32)), params)
  end, _ = walk(optimizer, params, lambda _: grads, 3)[-1]
  moved = jax.tree.map(lambda now, start: np.asarray(now - start), end, params)["model"]
  assert (moved["embed"] < -1e-3).all()
  np.testing.assert_allclose(moved["unembed"] / moved["embed"], 0.25, rtol=1e-3)


@pytest.mark.parametrize("name", ["prodigy", "dog", "dowg"])
def test_decay_goes_by_the_rate_that_an_optimizer_finds_itself(name, tiny):
  params = tiny(UP, SCALE)
  args = LARGE if name == "prodigy" else {}
  free, pulled = (walk(make_optimizer(OptimizerConfig(name, weight_decay=decay, clip=0.0, args=args), lambda n: 0.5),
                       params,
                       ramp, 1)[-1][0] for decay in (0.0, 0.2))
  if args:
    rate = 0.5 * 0.1
  else:   # plain descent: what it moved over the gradient
    rate = float(jnp.max((params["model"]["layers"]["block"]["attn_norm"]["scale"] - trees.leaves(free)[SCALE])
                         / trees.leaves(ramp(params))[SCALE]))
  by_decay = jax.tree.map(jnp.subtract, pulled, free)
  np.testing.assert_allclose(trees.leaves(by_decay)[UP], -rate * 0.2 * trees.leaves(params)[UP], rtol=0.05, atol=2e-7)
  np.testing.assert_array_equal(trees.leaves(by_decay)[SCALE], 0.0)


@pytest.mark.parametrize("name", ["prodigy", "dadapt_adamw"])
def test_a_gradient_of_zeros_is_no_end(name, tiny):
  optimizer = make_optimizer(OptimizerConfig(name, args=LARGE), lambda n: 1.0)
  start, zeros = tiny(UP), lambda p: jax.tree.map(jnp.zeros_like, p)
  (_, before), (params, state) = walk(optimizer, start, zeros, 1)
  jax.tree.map(np.testing.assert_array_equal, (params, state), (start, before))
  updates, _ = optimizer.update(ramp(params), state, params)
  assert np.isfinite(trees.leaves(updates)[UP]).all() and np.all(trees.leaves(updates)[UP] < 0)


def test_schedule_free_averages_steps_with_decay_and_factors_as_by_hand(tiny):
  params = tiny("model/embed", UP, SCALE)
  peak, decay, beta = 0.5, 0.2, 0.9
  schedule = make_schedule(ScheduleConfig(warmup=3), peak, 0)
  section = OptimizerConfig("schedule_free_sgd", peak, decay, clip=0.0, freeze=("model/embed",),
                            factors={"*/mlp/*": 0.5})
  path = walk(make_optimizer(section, schedule), params, ramp, 5)
  for name, factor, decays in ((UP, 0.5, decay), (SCALE, 1.0, 0.0)):
    gradient = np.asarray(trees.leaves(ramp(params))[name], np.float64)
    y = x = z = np.asarray(trees.leaves(params)[name], np.float64)
    weights = 0.0
    for number, (now, slots) in enumerate(path):
      np.testing.assert_allclose(trees.leaves(now)[name], y, rtol=1e-5)
      judged = states.evaluated(states.TrainState(number, now, slots))
      np.testing.assert_allclose(trees.leaves(judged)[name], x, rtol=1e-5)
      np.testing.assert_array_equal(judged["model"]["embed"], params["model"]["embed"])
      rate = float(schedule(number))
      z = z - rate * factor * (gradient + decays * y)
      weights += rate**2
      x = x + rate**2 / weights * (z - x)
      y = (1 - beta) * z + beta * x
  assert np.abs(x - y).max() > 1e-3


def test_schedule_free_is_optax_s_own_where_nothing_is_added(tiny):
  params = tiny(UP, SCALE)
  walks = {}
  for name, base in (("schedule_free_adamw", "adam"), ("schedule_free_sgd", "sgd")):
    theirs = getattr(contrib, name)(0.1)
    ours = make_optimizer(OptimizerConfig(name, 0.1, clip=0.0), lambda n: 0.1)
    around = make_optimizer(OptimizerConfig("schedule_free", 0.1, clip=0.0, args={
        "base_optimizer": base}), lambda n: 0.1)   # its momentum is off
    walks[name] = [walk(optimizer, params, ramp, 3)[-1][0] for optimizer in (theirs, ours, around)]
  for theirs, ours, around in walks.values():
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), theirs, ours)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3), ours, around)   # adam's b2 is another


def test_mechanize_scales_the_sum_of_its_base_s_steps_decay_included(tiny):
  params, rate, decay = tiny(UP), 0.5, 0.2
  section = OptimizerConfig("mechanize", rate, decay, clip=0.0, args={"base_optimizer": "sgd", "s_init": 0.1})
  path = walk(make_optimizer(section, lambda n: rate), params, ramp, 3)
  gradient = np.asarray(trees.leaves(ramp(params))[UP], np.float64)
  momentum = total = 0.0
  for now, _ in path[:-1]:
    momentum = gradient + 0.9 * momentum
    total = total - rate * (momentum + decay * np.asarray(trees.leaves(now)[UP]))
  end, slots = path[-1]
  tuned = [x for x in jax.tree.leaves(slots, is_leaf=lambda x: isinstance(x, contrib.MechanicState))
           if isinstance(x, contrib.MechanicState)]
  scale = float(jnp.sum(tuned[0].s))
  np.testing.assert_allclose(trees.leaves(end)[UP] - trees.leaves(params)[UP], scale * total, rtol=1e-4)
