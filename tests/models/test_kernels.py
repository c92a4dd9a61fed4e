"""An accelerator's own kernels say what `attend` says, to the rounding of what they compute in."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import inputs, trees
from sftrl_jax.models import DecoderConfig, Model, attention, build, cache, kernels
from sftrl_jax.parallel import mesh as meshes, rules

LENGTH, HEADS, KV_HEADS, CHANNELS = 140, 4, 2, 16   # neither a multiple of what a kernel's blocks hold


def rows():
  """Every layout that rows have: packed, padded on the left, padded on the right, all padding."""
  packed = inputs.pack([[1] * 60, [1] * 70], [inputs.Slot(0, 0, 1), inputs.Slot(0, 60, 2)], 1, LENGTH)
  return jax.tree.map(lambda *parts: np.concatenate(parts), packed, inputs.left_pad([[1] * 90], LENGTH),
                      inputs.right_pad([[1] * 133, []], LENGTH))


def everything(look, batch, dtype):
  """[output, gradients of q, k and v] at real tokens, of a loss that looks at real tokens only."""
  random, real_BT = np.random.default_rng(0), batch.segments_BT > 0
  arrays = [jnp.asarray(random.normal(size=(len(real_BT), heads, LENGTH, CHANNELS)), dtype)
            for heads in (HEADS, KV_HEADS, KV_HEADS)]
  weights = jnp.asarray(random.normal(size=arrays[0].shape) * real_BT[:, None, :, None], jnp.float32)

  def loss(q, k, v):
    mixed = look(q, k, v).astype(jnp.float32)
    return jnp.sum(mixed * weights), mixed

  (_, mixed), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)
  return [np.asarray(x, np.float32).swapaxes(1, 2)[real_BT] for x in (mixed, *grads)]


@pytest.mark.parametrize("kernel, dtype, window, softcap", [
    ("splash", "bfloat16", 17, 0.7), ("cudnn", "float32", 17, 0.0), ("cudnn", "bfloat16", 0, 0.0)])
def test_a_kernel_says_what_attend_says(kernel, dtype, window, softcap):
  batch, scale = rows(), 0.3
  fields = batch.positions_BT, batch.positions_BT, batch.segments_BT, batch.segments_BT
  allowed = attention.may_attend(*map(jnp.asarray, fields), window)
  look = {"splash": lambda *qkv: kernels.splash(*qkv, jnp.asarray(batch.segments_BT), window, scale, softcap),
          # cuDNN's call on what can compute it here.
          "cudnn": lambda *qkv: kernels.cudnn(*qkv, allowed, scale, implementation="xla")}[kernel]
  ours = everything(lambda *qkv: attention.attend(*qkv, allowed, scale, softcap), batch, dtype)
  of_kernel = everything(look, batch, dtype)
  # Outputs are about 1, where bfloat16 has steps of 2^-8; JAX 0.12 rounds half of one more often than 0.10.
  assert np.abs(of_kernel[0] - ours[0]).mean() <= (1e-6 if dtype == "float32" else 2**-9)
  for mine, theirs in zip(of_kernel, ours, strict=True):   # bfloat16 rounds at 2^-9, and in other places
    assert np.linalg.norm(mine - theirs) <= (1e-6 if dtype == "float32" else 2e-2) * np.linalg.norm(theirs)


@pytest.mark.parametrize("channels", [16, 80])
def test_the_kernel_of_a_tower_refuses_padding_to_padding_alone(channels):
  """Outputs and gradients of `attend` under that mask, where padding is read and where it reads."""
  random, shape = np.random.default_rng(0), (3, 2, LENGTH, channels)
  padding_BT = jnp.arange(LENGTH)[None] >= jnp.asarray([LENGTH, 90, 5])[:, None]   # none, some, most
  *qkv, weights = (jnp.asarray(random.normal(size=shape), jnp.float32) for _ in range(4))
  allowed_BTT = ~(padding_BT[:, :, None] & padding_BT[:, None, :])

  def everything(look):
    loss = lambda *qkv: (lambda mixed: (jnp.sum(mixed * weights), mixed))(look(*qkv))
    (_, mixed), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*qkv)
    return mixed, *grads

  ours = everything(lambda *qkv: attention.attend(*qkv, allowed_BTT))
  of_kernel = everything(lambda *qkv: kernels.splash_of_tower(*qkv, padding_BT))
  refusing_none = everything(lambda *qkv: attention.attend(*qkv, jnp.ones_like(allowed_BTT)))
  for mine, theirs, without in zip(of_kernel, ours, refusing_none, strict=True):
    assert mine.shape == shape
    # splash computes its products in bfloat16
    assert np.linalg.norm(mine - theirs) <= 2e-2 * np.linalg.norm(theirs) < np.linalg.norm(without - theirs)


@pytest.mark.parametrize("kernel", ["splash", "blocks"])
def test_a_decoder_of_both_kinds_of_layers_is_the_same_on_a_mesh(kernel):
  """Kernels under shard_map, over more devices in tensor than there are kv heads, within remat and the scan."""
  config = DecoderConfig(vocab=24, width=16, layers=2, heads=4, kv_heads=1, window=5, pattern=("local", "global"),
                         attention="xla", init_std=0.5)
  shapes, random = jax.eval_shape(build(config).init, jax.random.key(0)), np.random.default_rng(0)
  params = trees.map_with_path(lambda path, x: random.normal(size=x.shape).astype(np.float32) * 0.3, shapes)
  batch = inputs.left_pad([[*range(1, 20)], [5] * 9, [3, 4], [7] * 24], 24)
  batch = batch.replace(tokens_BT=random.integers(0, 24, (4, 24)))
  real = batch.segments_BT > 0

  def squares(config):
    model = build(config)
    loss = lambda params: jnp.sum(jnp.square(model.hidden(params, batch)) * real[..., None])
    return jax.jit(jax.value_and_grad(loss))

  want = squares(config)(params)
  mesh = meshes.make(meshes.MeshConfig(2, 2, 2))
  with jax.set_mesh(mesh), rules.applied():
    got = squares(dataclasses.replace(config, attention=kernel))(
        jax.device_put({"model": params}, rules.shardings({"model": params}, mesh))["model"])
  for (path, mine), theirs in zip(trees.leaves(got).items(), jax.tree.leaves(want), strict=True):
    assert np.linalg.norm(mine - np.asarray(theirs)) <= 2e-5 * np.linalg.norm(theirs), path


def test_auto_takes_what_the_devices_have_and_the_model_can():
  half, plain = DecoderConfig(dtype="bfloat16"), DecoderConfig()
  assert [kernels.chosen(half, platform) for platform in ("tpu", "gpu", "cpu")] == ["splash", "cudnn", "xla"]
  assert [kernels.chosen(plain, platform) for platform in ("tpu", "gpu", "cpu")] == ["splash", "xla", "xla"]
  for tokens, kernel in ((320, "xla"), (321, "blocks")):   # of rows on a CPU
    assert [kernels.chosen(half, platform, tokens) for platform in ("tpu", "gpu", "cpu")] == [
        "splash", "cudnn", kernel]
  capped = DecoderConfig(dtype="bfloat16", attention_softcap=50.0)
  assert [kernels.chosen(capped, platform) for platform in ("tpu", "gpu")] == ["splash", "xla"]
  with pytest.raises(ValueError, match="attention is 'cudnn', but it has no soft cap, and attention_softcap is 50"):
    kernels.chosen(dataclasses.replace(capped, attention="cudnn"), "gpu")
  wide = DecoderConfig(dtype="bfloat16", width=512, heads=2)
  assert kernels.chosen(wide, "gpu") == "xla" and kernels.chosen(wide, "tpu") == "splash"


@pytest.mark.parametrize("version, capability, recent", [
    ("cuda 12090", "9.0", True), ("cuda 12090", "12.0", True), ("cuda 12090", "7.5", False),
    ("rocm 6", "gfx90a", False)])
def test_flash_attention_wants_a_recent_gpu(version, capability, recent):
  device = types.SimpleNamespace(client=types.SimpleNamespace(platform_version=version), compute_capability=capability)
  assert kernels._is_recent(device) == recent


@pytest.mark.parametrize("change, platform, message", [
    (dict(dtype="bfloat16"), "cpu", "the devices are of kind cpu"), ({}, "gpu", "dtype is 'float32'"),
    (dict(dtype="bfloat16", width=512, heads=2), "gpu", "head_dim is 256"),
    (dict(dtype="bfloat16", head_dim=12), "gpu", "head_dim is 12")])
def test_a_kernel_that_cannot_be_had_is_refused_by_name(change, platform, message):
  with pytest.raises(ValueError, match=f"^attention is 'cudnn', but .*{message}: use auto"):
    kernels.chosen(DecoderConfig(attention="cudnn", **change), platform)


@pytest.mark.parametrize("kind", ["xla", "splash"])
def test_a_long_prompt_that_attends_over_itself_is_read_as_over_its_cache(kind, monkeypatch):
  """Both kinds of layers, ragged prompts; every prompt counts as a long one."""
  config = DecoderConfig(vocab=24, width=16, layers=2, heads=4, kv_heads=2, window=5, pattern=("local", "global"),
                         attention=kind, attention_softcap=2.0, init_std=0.5)
  model = build(config)
  params = model.decoding(model.init(jax.random.key(0)))
  prompt = inputs.left_pad([[1, 2, 3], [4] * 9, [5, 6] * 6, []], 14)
  past = cache.empty(config, 4, 40)
  over_cache = jax.jit(model.extend)(params, past, prompt)
  assert not kernels.reads_itself(14, 40) and kernels.reads_itself(1024, 1024)
  short = jax.jit(model.prefill)(params, past, prompt)
  monkeypatch.setattr(kernels, "SHORT", 0)
  long = jax.jit(lambda *arguments: model.prefill(*arguments))(params, past, prompt)
  real = prompt.segments_BT > 0
  for left, right in zip(*(jax.tree.leaves(pair) for pair in (short, over_cache)), strict=True):
    np.testing.assert_array_equal(left, right)   # the same program
  tolerance = 2e-2 if kind == "splash" else 1e-5   # splash computes its products in bfloat16
  np.testing.assert_allclose(long[0][real], over_cache[0][real], atol=tolerance)
  np.testing.assert_array_equal(long[1].segments_BS, over_cache[1].segments_BS)
  written = long[1].keys_BKSC[1].swapaxes(1, 2)[:, :14][real], over_cache[1].keys_BKSC[1].swapaxes(1, 2)[:, :14][real]
  np.testing.assert_allclose(*written, atol=tolerance)


def test_a_family_that_extends_in_its_own_way_prefills_in_it_too():
  class Own(Model):

    def extend(self, decoding_params, past, inputs):
      return "own", past

  assert Own(DecoderConfig(vocab=24)).prefill({}, None, None) == ("own", None)
