"""One step: how a batch is cut up and over what it is spread changes nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sftrl_jax.inputs import Inputs
from sftrl_jax.metrics import Mean, floats
from sftrl_jax.models import DecoderConfig, build, heads, lora
from sftrl_jax.models.vision.tiny import TinyVisionConfig
from sftrl_jax.objectives.batches import GroupBatch, TokenBatch
from sftrl_jax.objectives.grpo import GRPOConfig, grpo_loss
from sftrl_jax.objectives.imitation.distill import distill_loss
from sftrl_jax.objectives.ppo import PPOConfig, ppo_loss
from sftrl_jax.objectives.rloo import RLOOConfig, rloo_loss
from sftrl_jax.objectives.sft import sft_loss
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.training import state as states
from sftrl_jax.training.optimizers.optimizer import OptimizerConfig, make_optimizer
from sftrl_jax.training.score import make_score, make_teacher_score
from sftrl_jax.training.step import accumulate, make_train_step

SCHEDULE = optax.constant_schedule(0.5)
LAYOUTS = {"1 device, 8 microbatches": (1, 8, {}), "1 device, 4 microbatches": (1, 4, {}),
           "8x1x1": (8, 1, dict(data=8, fsdp=1)), "1x8x1": (8, 1, {}), "2x2x2": (8, 1, dict(data=2, tensor=2))}


def behind_itself(model):
  """A score by a teacher with half of the policy's parameters, which reads a prefix."""
  score = make_teacher_score(model, model)
  half = lambda params: {"teacher": jax.tree.map(lambda x: jax.lax.stop_gradient(0.5 * x), params["model"])}
  return lambda params, *rows: score({**params, **half(params)}, *rows)


@pytest.fixture(scope="module")
def losses(model):
  score = make_score(model)
  return {"sft": functools.partial(sft_loss, score=score),
          **{level: functools.partial(ppo_loss,
                                      ppo=PPOConfig(level=level, entropy_coef=0.01, value_clip=0.2, value_coef=0.5),
                                      score=score, turns=2) for level in ("token", "turn")},
          "distill": functools.partial(distill_loss, score=behind_itself(model)),
          # Four episodes of two rows each: row s * 4 + e is of episode e, and no microbatch tears one apart.
          "grpo of 2 rows": functools.partial(grpo_loss, grpo=GRPOConfig(mean="sequence"), score=score, longest=9,
                                              rows=2),
          "rloo of 2 rows": functools.partial(rloo_loss, rloo=RLOOConfig(clip=0.5), score=score, rows=2)}


@pytest.fixture(scope="module")
def group_batch(policy_batch):
  """Two rows an episode, each with the episode's advantage."""
  old_BT = policy_batch.old_logprobs_BT
  return GroupBatch(policy_batch.inputs, policy_batch.targets_BT, policy_batch.mask_BT, old_BT, None,
                    np.tile(np.asarray([1.0, -0.5, 0.25, -2.0], np.float32), 2))


@pytest.fixture(scope="module")
def stepped(losses, params, token_batch, policy_batch, group_batch, prefixed):
  """stepped(kind, devices, microbatches, mesh) -> (params, metrics) after one step, fetched."""

  @functools.cache
  def run(kind, devices=1, microbatches=1, axes=(), layers=()):
    mesh = meshes.make(meshes.MeshConfig(**dict(axes)), jax.devices()[:devices])
    batch = {"sft": token_batch, "distill": prefixed}.get(kind, group_batch if "rows" in kind else policy_batch)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(SCHEDULE, momentum=0.9))
    with jax.set_mesh(mesh), rules.applied():
      value = heads.init(16, layers)
      value = {"value": {**value, "kernel": value["kernel"] + 0.1}} if layers else {}
      state = states.create_sharded({**params, **value}, optimizer, mesh)
      step = jax.jit(make_train_step(losses[kind], optimizer, SCHEDULE, microbatches))
      after, metrics = step(state, meshes.shard_rows(mesh, batch))
      return jax.device_get(after.params), floats(metrics)

  return run


@pytest.mark.parametrize("kind, layout", [
    *((kind, "1 device, 8 microbatches") for kind in ("sft", "token", "turn", "distill")),
    *((kind, "1 device, 4 microbatches") for kind in ("grpo of 2 rows", "rloo of 2 rows")),
    *((kind, layout) for kind in ("sft", "token", "rloo of 2 rows", "distill")
      for layout in ("8x1x1", "1x8x1", "2x2x2"))])
def test_microbatches_and_devices_change_nothing(stepped, kind, layout):
  devices, microbatches, axes = LAYOUTS[layout]
  (whole, metrics), (cut, others) = stepped(kind), stepped(kind, devices, microbatches, tuple(axes.items()))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), whole, cut)
  assert metrics.keys() == others.keys()
  for name, value in metrics.items():
    assert others[name] == pytest.approx(value, abs=1e-5), name


@pytest.mark.parametrize("devices, axes", [(8, dict(data=2, tensor=2)), (8, {})], ids=["2x2x2", "1x8x1"])
def test_devices_change_nothing_of_a_value_head_with_layers(stepped, devices, axes):
  whole, cut = stepped("token", layers=(8, 16)), stepped("token", devices, 1, tuple(axes.items()), (8, 16))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), whole[0], cut[0])
  before = heads.init(16, (8, 16))["hidden"]["0"]["kernel"]
  assert (whole[0]["value"]["hidden"]["0"]["kernel"] != before).any()


@pytest.fixture(scope="module")
def seen(token_batch):
  """(model, parameters, batch in half of whose rows the first token is a picture)."""
  config = TinyVisionConfig(vocab=12, width=16, layers=1, heads=2, remat="none", init_std=0.3, image_id=11,
                            image_height=32, image_width=32, channels=(2, 3, 4), connector=8, connector_std=0.3)
  inputs = token_batch.inputs
  tokens_BT, rows_B = inputs.tokens_BT.copy(), np.flatnonzero(inputs.segments_BT[:, 0])[::2]
  tokens_BT[rows_B, 0] = config.image_id
  images = np.random.default_rng(4).integers(0, 256, (len(tokens_BT), 1, 32, 32, 3)).astype(np.uint8)
  batch = token_batch.replace(inputs=inputs.replace(tokens_BT=tokens_BT, images_BIYXC=images))
  model = build(config)
  return model, {"model": jax.jit(model.init)(jax.random.key(0))}, batch


def test_devices_change_nothing_of_a_model_that_reads_pictures(seen):
  """Rows of text and of pictures, with labels of unequal number, are split over devices and microbatches alike; the
  tower is trained, and a frozen connector stays."""
  model, params, batch = seen

  def stepped(devices, axes, microbatches):
    mesh = meshes.make(meshes.MeshConfig(**axes), jax.devices()[:devices])
    optimizer = make_optimizer(OptimizerConfig("sgd", 0.5, freeze=("model/vision/connector/*",)), SCHEDULE)
    with jax.set_mesh(mesh), rules.applied():
      state = states.create_sharded(params, optimizer, mesh)
      loss = functools.partial(sft_loss, score=make_score(model))
      step = jax.jit(make_train_step(loss, optimizer, SCHEDULE, microbatches))
      return jax.device_get(step(state, meshes.shard_rows(mesh, batch))[0].params)

  assert len(set(batch.weights_BT.sum(axis=1).tolist())) > 1
  whole, cut = stepped(1, {}, 1), stepped(8, dict(data=2, tensor=2), 2)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), whole, cut)
  before, after = (tree["model"]["vision"] for tree in (params, whole))
  jax.tree.map(np.testing.assert_array_equal, before["connector"], after["connector"])
  tower = zip(*(jax.tree.leaves(tree["tower"]) for tree in (before, after)), strict=True)
  assert all((leaf != new).any() for leaf, new in tower)


def temporary(layout, constrained=True):
  """Bytes a device that a step needs beside its arguments, as compiled: nothing is run."""
  mesh, rows, optimizer = meshes.make(layout), (64, 32), optax.sgd(1e-3)
  model = build(DecoderConfig(vocab=256, width=128, layers=2, heads=4, mlp_dim=256, remat="none"))
  params = {"model": jax.eval_shape(model.init, jax.random.key(0))}
  where = states.shardings(params, optimizer, mesh)
  state = jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
                       jax.eval_shape(lambda p: states.create(p, optimizer), params), where)
  row = lambda dtype: jax.ShapeDtypeStruct(rows, dtype, sharding=meshes.by_rows(mesh))
  batch = TokenBatch(Inputs(row("int32"), row("int32"), row("int32")), row("int32"), row("float32"))
  step = make_train_step(functools.partial(sft_loss, score=make_score(model, chunk=16)), optimizer, SCHEDULE)
  with jax.set_mesh(mesh), rules.applied(rules.MESH_AXES if constrained else {}):
    compiled = jax.jit(step, donate_argnums=0, out_shardings=(where, None)).lower(state, batch).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def test_activations_are_split_because_they_are_told_to_be():
  """What `with mesh:` silently costs (tests/parallel/test_mesh.py bans it): there constraints are left out."""
  split, free = (temporary(meshes.MeshConfig(), constrained) for constrained in (True, False))
  assert split < 0.4 * free


def test_a_step_moves_every_parameter(stepped, params):
  after, metrics = stepped("token")
  moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), after, jax.device_get(params))
  assert all(jax.tree.leaves(moved))
  assert metrics["learning_rate"] == 0.5 and metrics["nonfinite_steps"] == 0 and metrics["grad_norm"] > 0


def test_the_gradient_is_that_of_the_mean_over_the_whole_batch(losses, params, token_batch):
  def mean(params):
    value, _ = losses["sft"](params, token_batch)
    return value.total / value.weight

  grads, value, _ = jax.jit(lambda p, b: accumulate(losses["sft"], p, b, 4))(params, token_batch)
  want = jax.jit(jax.grad(mean))(params)
  jax.tree.map(lambda g, w: np.testing.assert_allclose(g / value.weight, w, atol=1e-6), grads, want)


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted():
  loss = lambda params, x: (Mean(jnp.sum(params["w"][None] * x), jnp.float32(2.0)), {})
  optimizer = optax.adam(0.1)
  step = jax.jit(make_train_step(loss, optimizer, SCHEDULE, 2))
  state, _ = step(states.create({"w": jnp.ones(3)}, optimizer), jnp.ones((2, 3)))
  for bad in (np.nan, np.inf):
    x = np.ones((2, 3), np.float32)
    x[1, 1] = bad
    after, metrics = step(state, x)
    assert metrics["nonfinite_steps"] == 1 and after.step == state.step + 1
    jax.tree.map(np.testing.assert_array_equal, (after.params, after.opt_state), (state.params, state.opt_state))
  after, metrics = step(after, jnp.ones((2, 3)))
  assert metrics["nonfinite_steps"] == 0 and np.isfinite(after.params["w"]).all()
  assert (after.params["w"] < state.params["w"]).all()


@pytest.mark.parametrize("name", ("adamw", "schedule_free_adamw", "muon", "prodigy", "adafactor", "noisy_sgd"))
def test_an_update_that_is_not_finite_changes_nothing_and_is_counted(name):
  """The gradient is finite and the update is not, here by its rate: parameters, their average and all slots stay."""
  rate = lambda n: jnp.where(n == 1, jnp.nan, 1e-3)
  loss = lambda params, x: (Mean(sum(jnp.sum(p) for p in jax.tree.leaves(params)) * x[0], jnp.float32(2.0)), {})
  optimizer = make_optimizer(OptimizerConfig(name), rate)
  params = {"model": {"layers": {"block": {"mlp": {"up": {"kernel": jnp.ones((1, 4, 2))}}}}, "embed": jnp.ones((3, 4))}}
  step = jax.jit(make_train_step(loss, optimizer, SCHEDULE))
  first, _ = step(states.create(params, optimizer), jnp.ones(1))
  after, metrics = step(first, jnp.ones(1))
  assert metrics["nonfinite_steps"] == 1 and np.isfinite(metrics["grad_norm"])
  jax.tree.map(np.testing.assert_array_equal, (after.params, after.opt_state), (first.params, first.opt_state))
  for leaf in jax.tree.leaves(states.evaluated(after)):
    assert np.isfinite(leaf).all()


def test_bfloat16_takes_a_step_where_the_embedding_unembeds_too():
  """XLA's CPU backend lacks the product of its gradient in bfloat16 with a result in f32."""
  for chunk in (0, 4):
    model = build(DecoderConfig(vocab=11, width=32, layers=1, heads=2, dtype="bfloat16", tie_embeddings=True))
    ids = jnp.ones((2, 8), jnp.int32)
    batch = TokenBatch(Inputs(ids, jnp.tile(jnp.arange(8), (2, 1)), ids), ids, jnp.ones((2, 8)))
    optimizer = optax.adam(1e-6)
    loss = functools.partial(sft_loss, score=make_score(model, chunk=chunk))
    step = jax.jit(make_train_step(loss, optimizer, SCHEDULE))
    before = states.create({"model": jax.jit(model.init)(jax.random.key(0))}, optimizer)
    after, metrics = step(before, batch)
    assert metrics["nonfinite_steps"] == 0
    assert np.mean(after.params["model"]["embed"] != before.params["model"]["embed"]) > 0.99


def test_a_slot_that_begins_infinite_may_stay_so():
  """A user's optimizer may hold the least loss so far; it counts as finite as long as nothing else is lost."""
  sgd = optax.sgd(0.1)
  optimizer = optax.GradientTransformation(lambda p: (jnp.float32(jnp.inf), sgd.init(p)), lambda g, s, p=None: (
      sgd.update(g, s[1], p)[0], s))
  loss = lambda params, x: (Mean(jnp.sum(params["w"]) * x[0], jnp.float32(1.0)), {})
  after, metrics = make_train_step(loss, optimizer, SCHEDULE)(states.create({"w": jnp.ones(2)}, optimizer), jnp.ones(1))
  assert metrics["nonfinite_steps"] == 0 and after.params["w"][0] < 1



def test_adapters_alone_are_trained_by_the_gradient_of_the_kernel_beside_them(losses, params, token_batch):
  """Where b is 0: da = 0 and db = scale * a^T dW, by the chain rule."""
  settings, optimizer = lora.LoraConfig(rank=2, alpha=3.0), optax.sgd(1.0)
  base = {"model": jax.tree.map(jnp.copy, params["model"])}
  adapters = {"lora": lora.init(settings, base["model"], jax.random.key(3)),
              "value": jax.tree.map(jnp.copy, params["value"])}
  whole = functools.partial(lora.whole, lora=settings)
  step = jax.jit(make_train_step(losses["sft"], optimizer, SCHEDULE, 2, whole), donate_argnums=0)
  a, b = (jax.device_get(adapters["lora"]["layers"]["block"]["attn"]["o"][name]) for name in "ab")
  after, metrics = step(states.create(adapters, optimizer), token_batch, base)
  grads, value, _ = jax.jit(lambda p, x: accumulate(losses["sft"], p, x, 1))(params, token_batch)
  moved = after.params["lora"]["layers"]["block"]["attn"]["o"]
  kernel = np.asarray(grads["model"]["layers"]["block"]["attn"]["o"]["kernel"]) / np.asarray(value.weight)
  np.testing.assert_array_equal(moved["a"], a)
  np.testing.assert_allclose(moved["b"] - b, -1.5 * np.einsum("nhcr,nhcd->nrd", a, kernel), atol=1e-6)
  assert np.abs(moved["b"]).max() > 1e-3 and floats(metrics)["nonfinite_steps"] == 0
  jax.tree.map(np.testing.assert_array_equal, base["model"], params["model"])   # neither moved nor given away


def test_a_batch_without_weight_has_no_gradient(losses, params, token_batch):
  empty = token_batch.replace(weights_BT=np.zeros_like(token_batch.weights_BT))
  optimizer = optax.sgd(1.0)
  after, metrics = jax.jit(make_train_step(losses["sft"], optimizer, SCHEDULE))(states.create(params, optimizer), empty)
  jax.tree.map(np.testing.assert_array_equal, after.params, params)
  assert floats(metrics)["loss"] == 0 and floats(metrics)["nonfinite_steps"] == 0
