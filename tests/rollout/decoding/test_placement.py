"""Where weights and cache lie while decoding changes no token, and no matrix travels for one."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from sftrl_jax import trees
from sftrl_jax.inputs import Inputs
from sftrl_jax.models import DecoderConfig, build, cache as caches
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.rollout.decoding import placement
from sftrl_jax.rollout.episodes import play
from sftrl_jax.rollout.policy import policy

# All kernels are matrices, large beside activations; with tensor=4 there are fewer kv heads than devices.
CONFIG = DecoderConfig(vocab=512, width=256, layers=2, heads=4, kv_heads=2, head_dim=128, mlp_dim=512, remat="none")
ROWS, ROOM = 8, 32
LAYOUTS = {"8x1x1": ((8, 1, 1), False), "1x8x1, gathered": ((1, 8, 1), True), "2x2x2": ((2, 2, 2), False)}


def mesh_of(*shape):
  return meshes.make(meshes.MeshConfig(*shape))


def axes_of(tree):
  return {path: {name for place in leaf.spec if place for name in ((place,) if isinstance(place, str) else place)}
          for path, leaf in trees.leaves(tree).items()}


def test_matrices_are_split_over_all_that_the_rules_say_or_gathered_over_fsdp():
  model, mesh = build(CONFIG), mesh_of(2, 2, 2)
  split, gathered = (axes_of(placement.param_shardings(model, mesh, gather)) for gather in (False, True))
  assert split.keys() == gathered.keys()
  for path, names in split.items():
    assert gathered[path] == names - {"fsdp"}
    assert names == (set() if path.endswith("scale") else {"fsdp", "tensor"}), path


def test_the_cache_is_split_over_rows_and_over_kv_heads_if_there_are_enough():
  of = lambda tensor: placement.cache_shardings(CONFIG, mesh_of(1, 8 // tensor, tensor)).keys_BKSC.spec
  assert of(2) == PartitionSpec(("data", "fsdp"), "tensor") and of(4) == PartitionSpec(("data", "fsdp"))


def lies(shapes, places):
  return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places)


@pytest.mark.parametrize("shape, gather", [((2, 2, 2), False), ((1, 2, 4), False), ((1, 2, 4), True)], ids=str)
def test_what_travels_for_a_token_is_no_larger_than_activations(shape, gather):
  model, mesh = build(CONFIG), mesh_of(*shape)
  weights = jax.eval_shape(lambda key: model.decoding(model.init(key)), jax.random.key(0))
  split = placement.cache_shardings(CONFIG, mesh)
  each = dataclasses.replace(split, keys_BKSC=(split.keys_BKSC,) * 2, values_BKSC=(split.values_BKSC,) * 2)
  cache = jax.eval_shape(functools.partial(caches.empty, CONFIG, ROWS, ROOM))
  token = jax.ShapeDtypeStruct((ROWS, 1), jnp.int32, sharding=meshes.by_rows(mesh))

  def step(weights, cache, *token):
    hidden_BTD, cache = model.extend(weights, cache, Inputs(*token))
    return model.unembed(weights, hidden_BTD[:, 0]), cache

  with jax.set_mesh(mesh):
    stepping = jax.jit(placement.with_decoding_rules(step, gather), out_shardings=(None, split))
    placed = lies(weights, placement.param_shardings(model, mesh, gather))
    lowered = stepping.lower(placed, lies(cache, each), *[token] * 3)
  text = lowered.compile().as_text()
  moved = collectives(text)
  assert moved and max(moved) <= ROWS * CONFIG.mlp_dim < CONFIG.width * CONFIG.kv_heads * CONFIG.head_dim // 8
  sums = [size for size in collectives(text, "all-reduce") if size >= ROWS // shape[0] * CONFIG.width]
  if not gather:   # two a layer and one of embeddings, each of the channels of the rows of a copy of the model
    assert sums == [ROWS // shape[0] * CONFIG.width] * (2 * CONFIG.layers + 1)
  if gather:   # nothing over fsdp but who may attend: sums over tensor, of the rows a device has
    assert max(moved) == ROWS // 2 * CONFIG.width


@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)], ids=str)
def test_rows_leave_a_cache_without_any_device_holding_it_whole(shape):
  mesh, random = mesh_of(*shape), np.random.default_rng(0)
  split = placement.cache_shardings(CONFIG, mesh)
  shapes = jax.eval_shape(functools.partial(caches.empty, CONFIG, 32, ROOM))
  cache = jax.tree.map(lambda x: random.integers(0, 99, x.shape).astype(x.dtype), shapes)
  each = dataclasses.replace(split, keys_BKSC=(split.keys_BKSC,) * 2, values_BKSC=(split.values_BKSC,) * 2)
  rows = random.permutation(32)[:16]
  with jax.set_mesh(mesh):
    taking = jax.jit(placement.with_decoding_rules(caches.take), out_shardings=split)
    taking = taking.lower(lies(cache, each), rows).compile()
    taken = taking(jax.device_put(cache, each), rows)
  jax.tree.map(lambda new, old: np.testing.assert_array_equal(new, old[rows] if old.ndim else old), taken, cache)
  assert max(collectives(taking.as_text())) <= 32 // 8 * CONFIG.kv_heads * ROOM * CONFIG.head_dim


def collectives(program: str, kinds="all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute") -> list[int]:
  """How many numbers every collective of a compiled program gives a device."""
  shapes = re.findall(rf"= \(?\w+\[([\d,]*)\][^=]*? (?:{kinds})(?:-start)?\(", program)
  return [int(np.prod([int(size) for size in shape.split(",") if size])) for shape in shapes]


def said(guess, actor, params, temperature):
  with jax.set_mesh(actor.mesh), rules.applied():
    weights = actor.compiled.to_decoding(jax.device_put(
        {"model": params}, rules.shardings({"model": params}, actor.mesh))["model"])
    episodes, _ = play(guess(attempts=1), policy(actor, weights, jax.random.key(5), temperature, range(16)), range(16))
  replies = [turn.response for episode in episodes for turn in episode.turns]
  return [reply.tokens for reply in replies], np.concatenate([reply.logprobs for reply in replies])


@pytest.fixture(scope="module")
def alone(guess, make_actor, params):
  return {temperature: said(guess, make_actor(turns=1, shrink=()), params, temperature) for temperature in (0.0, 0.7)}


@pytest.mark.parametrize("shape, gather", LAYOUTS.values(), ids=LAYOUTS)
def test_a_rollout_is_the_same_on_every_mesh(guess, make_actor, params, alone, shape, gather):
  actor = make_actor(turns=1, shrink=())
  actor = dataclasses.replace(actor, mesh=mesh_of(*shape), rollout=dataclasses.replace(actor.rollout, gather=gather))
  for temperature, (tokens, logprobs) in alone.items():
    found, theirs = said(guess, actor, params, temperature)
    assert found == tokens
    np.testing.assert_allclose(theirs, logprobs, atol=1e-5)


def test_decoding_may_have_a_dtype_of_its_own(make_actor, params):
  actor = make_actor(dtype="bfloat16")
  assert actor.decoder.config == dataclasses.replace(actor.model.config, dtype="bfloat16")
  shapes = jax.eval_shape(actor.compiled.to_decoding, params)
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("bfloat16")}
  assert make_actor().decoder == make_actor().model
