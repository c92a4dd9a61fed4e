"""Who may look at whom, where tokens stand, and a hand-written gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from sftrl_jax.inputs import Inputs, right_pad, share_prompts
from sftrl_jax.models import DecoderConfig, attention, build, lora
from sftrl_jax.models.vision.tiny import TinyVisionConfig
from sftrl_jax.parallel import mesh as meshes, rules


def normal(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_a_token_sees_its_own_segment_up_to_itself():
  random = np.random.default_rng(0)
  q_positions, k_positions = random.integers(0, 6, (3, 5)), random.integers(0, 6, (3, 7))
  q_segments, k_segments = random.integers(0, 3, (3, 5)), random.integers(0, 3, (3, 7))
  allowed = attention.may_attend(*map(jnp.asarray, (q_positions, k_positions, q_segments, k_segments)))
  for b, t, s in np.ndindex(3, 5, 7):
    want = k_positions[b, s] <= q_positions[b, t] and k_segments[b, s] == q_segments[b, t] and k_segments[b, s] > 0
    assert allowed[b, t, s] == want


def test_a_window_is_how_many_tokens_a_query_looks_back_over_with_itself():
  positions, segments = jnp.asarray([[3, 4, 5, 0, 1, 2, 6]]), jnp.asarray([[1, 1, 1, 2, 2, 2, 1]])
  everything = attention.may_attend(positions, positions, segments, segments)
  for window in (1, 2, 3, 100):
    allowed = attention.may_attend(positions, positions, segments, segments, window)
    for t, s in np.ndindex(7, 7):
      assert allowed[0, t, s] == (everything[0, t, s] and positions[0, t] - positions[0, s] < window)


def test_arrays_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match="k_segments_BS"):
    attention.may_attend(*(jnp.zeros((2, n), jnp.int32) for n in (3, 5, 3, 4)))


@pytest.mark.parametrize("shift", [1, 37, 500])
def test_scores_depend_on_how_far_apart_tokens_are(shift):
  q, k = normal(0, 1, 1, 6, 8), normal(1, 1, 1, 6, 8)

  def scores(positions):
    tables = attention.rotary_tables(positions, 1024, 8, 10_000.0)
    return jnp.einsum("bhtc,bhsc->ts", attention.rotate(q, tables), attention.rotate(k, tables))

  positions = jnp.asarray([[0, 1, 2, 5, 9, 30]])
  np.testing.assert_allclose(scores(positions + shift), scores(positions), atol=2e-4)
  assert np.abs(scores(positions * 2) - scores(positions)).max() > 0.1


def test_position_zero_is_not_rotated_and_no_length_changes():
  x = normal(0, 2, 3, 4, 8)
  positions = jnp.asarray([[0, 1, 2, 3], [0, 50, 60, 70]])
  turned = attention.rotate(x, attention.rotary_tables(positions, 128, 8, 10_000.0))
  np.testing.assert_array_equal(turned[:, :, 0], x[:, :, 0])
  np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5)
  pairs = lambda a: jnp.hypot(a[..., :4], a[..., 4:])  # channel i turns with channel i + C/2
  np.testing.assert_allclose(pairs(turned), pairs(x), rtol=1e-5)
  assert attention.rotate(x.astype(jnp.bfloat16), attention.rotary_tables(positions, 128, 8, 1e4)).dtype == jnp.bfloat16


@pytest.mark.parametrize("theta", [100.0, 10_000.0, 500_000.0])
def test_tables_looked_up_and_tables_computed_agree(theta):
  positions = jnp.asarray([[0, 1, 2, 100], [1000, 4095, 8190, 8191]])
  looked_up = attention.rotary_tables(positions, attention.CONSTANT, 16, theta)
  computed = jax.jit(lambda p: attention.rotary_tables(p, attention.CONSTANT + 1, 16, theta))(positions)
  for left, right in zip(looked_up, computed, strict=True):
    assert left.shape == right.shape == (2, 1, 4, 8) and left.dtype == right.dtype == jnp.float32
    # An angle of 8191 has an f32 spacing of 2^-11: frequencies rounded apart by one bit move it by about 1e-3.
    np.testing.assert_allclose(left[0], right[0], atol=2e-5)
    np.testing.assert_allclose(left[1], right[1], atol=2e-3)


@pytest.mark.parametrize("scaling", ["linear", "llama3"])
def test_slow_frequencies_are_stretched(scaling):
  config = DecoderConfig(rope_scaling=scaling, rope_factor=8.0, rope_low=1.0, rope_high=4.0, rope_context=64)
  turns = np.asarray([100.0, 4.001, 3.0, 2.5, 1.5, 0.999, 0.01])   # of a frequency within the context
  frequencies = (turns * 2 * np.pi / 64).astype(np.float32)
  factor = attention.stretched(config, frequencies) / frequencies
  kept = [1, 1, 2 / 3, 1 / 2, 1 / 6, 0, 0] if scaling == "llama3" else [0] * 7
  np.testing.assert_allclose(factor, [share + (1 - share) / 8 for share in kept], rtol=1e-5)


def test_a_stretch_reaches_the_tables():
  positions = jnp.asarray([[0, 8, 80, 800]])
  halved = attention.rotary_tables(positions, 1024, 8, 100.0, lambda frequencies: frequencies / 8)
  plain = attention.rotary_tables(positions // 8, 1024, 8, 100.0)
  for left, right in zip(halved, plain, strict=True):
    np.testing.assert_allclose(left, right, atol=1e-5)


def plain(q_BHTC, k_BKSC, v_BKSC, allowed_BTS):
  """Attention as it is written on paper, for JAX to differentiate."""
  groups = q_BHTC.shape[1] // k_BKSC.shape[1]
  k, v = jnp.repeat(k_BKSC, groups, axis=1), jnp.repeat(v_BKSC, groups, axis=1)
  scores = jnp.einsum("bhtc,bhsc->bhts", q_BHTC, k) / q_BHTC.shape[-1] ** 0.5
  scores = jnp.where(allowed_BTS[:, None], scores, -jnp.inf)
  return jnp.einsum("bhts,bhsc->bhtc", jax.nn.softmax(scores, axis=-1), v)


def some_keys(rows, queries, keys):
  """A random mask that leaves every query something to look at."""
  allowed = np.random.default_rng(9).random((rows, queries, keys)) < 0.5
  allowed[:, :, 0] = True
  return jnp.asarray(allowed)


@pytest.mark.parametrize("heads,kv_heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("queries", [1, 5])
def test_attention_and_its_gradient_are_those_of_a_plain_softmax(heads, kv_heads, queries):
  arrays = normal(0, 2, heads, queries, 8), normal(1, 2, kv_heads, 7, 8), normal(2, 2, kv_heads, 7, 8)
  allowed, weights = some_keys(2, queries, 7), normal(3, 2, heads, queries, 8)
  worth = lambda function: jax.jit(jax.value_and_grad(
      lambda arrays: (jnp.sum(function(*arrays, allowed) * weights)), argnums=0))
  ours, theirs = worth(attention.attend)(arrays), worth(plain)(arrays)
  for left, right in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=2e-6)


def test_queries_may_have_another_scale():
  q, k, v = normal(0, 1, 2, 3, 16), normal(1, 1, 2, 5, 16), normal(2, 1, 2, 5, 16)
  allowed = some_keys(1, 3, 5)
  scaled, by_hand = attention.attend(q, k, v, allowed, 0.1), attention.attend(0.4 * q, k, v, allowed)
  np.testing.assert_allclose(scaled, by_hand, atol=1e-6)


def test_keys_that_may_not_be_seen_have_no_weight_and_no_gradient():
  q, k, v = normal(0, 1, 2, 3, 4), normal(1, 1, 1, 5, 4), normal(2, 1, 1, 5, 4)
  allowed = jnp.ones((1, 3, 5), bool).at[:, :, 3].set(False)
  out = attention.attend(q, k, v, allowed)
  moved = attention.attend(q, k.at[:, :, 3].set(50.0), v.at[:, :, 3].set(-50.0), allowed)
  np.testing.assert_array_equal(out, moved)
  for gradient in jax.grad(lambda k, v: jnp.sum(attention.attend(q, k, v, allowed) ** 2), argnums=(0, 1))(k, v):
    assert (gradient[:, :, 3] == 0).all() and (gradient[:, :, 2] != 0).any()


def test_a_query_that_sees_nothing_stays_finite():
  q, k, v = normal(0, 1, 2, 3, 4), normal(1, 1, 2, 5, 4), normal(2, 1, 2, 5, 4)
  nothing = jnp.zeros((1, 3, 5), bool)
  np.testing.assert_allclose(attention.attend(q, k, v, nothing), jnp.broadcast_to(v.mean(2, keepdims=True), q.shape),
                             rtol=1e-5, atol=1e-6)
  gradients = jax.grad(lambda *arrays: jnp.sum(attention.attend(*arrays, nothing)), argnums=(0, 1, 2))(q, k, v)
  assert all(jnp.isfinite(gradient).all() for gradient in gradients)


def test_softmax_stays_in_f32_in_half_precision():
  q, k, v = (normal(seed, 1, 2, 6, 8).astype(jnp.bfloat16) for seed in range(3))
  allowed = some_keys(1, 6, 6)
  out = attention.attend(q, k, v, allowed)
  exact = plain(*(x.astype(jnp.float32) for x in (q, k, v)), allowed)
  assert out.dtype == jnp.bfloat16
  np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.03)


@pytest.mark.parametrize("window, softcap", [(0, 0.0), (3, 0.7)])
@pytest.mark.parametrize("queries", [1, 4, 6, 11, 99])
def test_chunks_of_queries_are_all_queries_at_once(queries, window, softcap):
  q, k, v = normal(1, 3, 4, 11, 6), normal(2, 3, 2, 11, 6), normal(3, 3, 2, 11, 6)
  lengths = jnp.asarray([11, 4, 7])[:, None]
  positions = jnp.maximum(jnp.arange(11)[None] - (11 - lengths), 0)   # padded on the left
  segments = (jnp.arange(11)[None] >= 11 - lengths).astype(jnp.int32)
  allowed = attention.may_attend(positions, positions, segments, segments, window)
  whole = attention.attend(q, k, v, allowed, 0.3, softcap)
  chunked = attention.attend_in_chunks(q, k, v, Inputs(segments, positions, segments), window, 0.3, softcap, queries)
  real = np.asarray(segments, bool)
  np.testing.assert_allclose(*(np.asarray(x).swapaxes(1, 2)[real] for x in (chunked, whole)), atol=1e-6)


def largest(jaxpr):
  """Numbers in the largest array that a program makes."""
  return max([variable.aval.size for eqn in jaxpr.eqns for variable in eqn.outvars] + [
      largest(sub) for eqn in jaxpr.eqns for sub in jaxprs_in_params(eqn.params)])


def test_chunks_of_queries_never_hold_the_scores_of_all():
  q, k = (jax.ShapeDtypeStruct((2, heads, 512, 4), jnp.float32) for heads in (4, 2))
  ints = jax.ShapeDtypeStruct((2, 512), jnp.int32)
  jaxpr = jax.make_jaxpr(attention.attend_in_chunks)(q, k, k, Inputs(ints, ints, ints))
  assert largest(jaxpr.jaxpr) == 2 * 4 * attention.QUERIES * 512   # and not 2 * 4 * 512 * 512


@pytest.mark.parametrize("queries", [3, 16, 99])
def test_chunks_under_any_mask_have_the_results_and_gradients_of_all_at_once(queries):
  q, k, v, weights = normal(1, 2, 4, 37, 6), normal(2, 2, 2, 9, 6), normal(3, 2, 2, 9, 6), normal(4, 2, 4, 37, 6)
  allowed = some_keys(2, 37, 9)

  def both(attend):
    loss = lambda arrays: jnp.sum(attend(*arrays, allowed) * weights)
    return jax.jit(jax.value_and_grad(loss))((q, k, v))

  chunked = lambda *arrays: attention.attend_by_chunks(*arrays, queries)
  for ours, whole in zip(jax.tree.leaves(both(chunked)), jax.tree.leaves(both(attention.attend)), strict=True):
    np.testing.assert_allclose(ours, whole, atol=2e-5)


def test_chunks_under_any_mask_never_hold_the_scores_of_all_also_backwards():
  q, k = (jax.ShapeDtypeStruct((2, heads, size, 4), jnp.float32) for heads, size in ((4, 512), (2, 64)))
  loss = lambda q, k, v, allowed: attention.attend_by_chunks(q, k, v, allowed, 128).sum()
  jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(q, k, k, jax.ShapeDtypeStruct((2, 512, 64), bool))
  assert largest(jaxpr.jaxpr) == 2 * 4 * 128 * 64   # and not 2 * 4 * 512 * 64


GROUP, PROMPT, LENGTH = 4, 7, 14
SMALL = dict(vocab=30, width=16, layers=2, heads=4, kv_heads=2, remat="none")


def groups(seed=0, count=2):
  """(whole rows, the lengths of their prompts without the last token): prompts of all lengths, and one row is blank."""
  random, rows, lengths = np.random.default_rng(seed), [], []
  for number in range(count):
    prompt = random.integers(1, 30, 1 + (number * PROMPT) // max(1, count - 1)).tolist()
    for _ in range(GROUP):
      rows.append([*prompt, *random.integers(1, 30, random.integers(1, LENGTH - PROMPT)).tolist()])
      lengths.append(len(prompt) - 1)
  rows[GROUP], lengths[GROUP] = [], 0   # the first of its group
  return right_pad(rows, LENGTH), np.asarray(lengths, np.int32)


def after(x_BTD, inputs):
  """Of whole rows the columns that rows without prompts have."""
  columns_BT = inputs.prompts.lengths_B[:, None] + np.arange(inputs.tokens_BT.shape[1])
  return jnp.take_along_axis(x_BTD, columns_BT[..., None], axis=1)


@pytest.mark.parametrize("own", [
    {}, {"attention": "blocks"}, {"attention": "splash"}, {"remat": "full", "qk_norm": True},
    {"window": 3, "pattern": ("local", "global"), "attention_softcap": 5.0}], ids=[
        "masked", "blocks", "splash", "recomputed", "windows"])
def test_a_prompt_that_is_computed_once_a_group_gives_what_whole_rows_give(own):
  whole, lengths_B = groups()
  shared, model = share_prompts(whole, lengths_B, PROMPT, GROUP), build(DecoderConfig(**{**SMALL, **own}))
  params = model.init(jax.random.key(0))
  wanted_BTD = normal(1, *shared.tokens_BT.shape, 16) * (shared.segments_BT > 0)[..., None]
  of_shared = lambda params: jnp.sum(model.hidden(params, shared) * wanted_BTD)
  of_whole = lambda params: jnp.sum(after(model.hidden(params, whole), shared) * wanted_BTD)
  (once, once_grads), (each, each_grads) = (jax.jit(jax.value_and_grad(total))(params)
                                            for total in (of_shared, of_whole))
  np.testing.assert_allclose(once, each, rtol=1e-5, atol=1e-4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max() + 1)),
               once_grads, each_grads)


def refuse_different(model, params, whole, shared):
  """Hidden states of rows with shared prompts are those of whole rows, also where a mesh splits them."""
  live_BT1, alone = (shared.segments_BT > 0)[..., None], after(model.hidden(params, whole), shared)
  mesh = meshes.make(meshes.MeshConfig(data=2, fsdp=4))
  with jax.set_mesh(mesh), rules.applied():
    split = jax.jit(model.hidden)(params, meshes.shard_rows(mesh, shared))
  for hidden_BTD in (model.hidden(params, shared), split):
    np.testing.assert_allclose(np.asarray(hidden_BTD) * live_BT1, np.asarray(alone) * live_BT1, atol=1e-4)


def test_adapters_read_shared_prompts_alike():
  whole, lengths_B = groups(count=8)
  shared, model = share_prompts(whole, lengths_B, PROMPT, GROUP), build(DecoderConfig(**SMALL))
  base, settings = model.init(jax.random.key(0)), lora.LoraConfig(rank=2)
  adapters = jax.tree.map(lambda x: x + 0.1, lora.init(settings, base, jax.random.key(1)))
  refuse_different(model, lora.attach(base, adapters, settings), whole, shared)


def test_the_pictures_of_a_prompt_are_read_once_a_group():
  config = TinyVisionConfig(**SMALL, image_id=29)   # 3 features a picture
  model, (whole, lengths_B) = build(config), groups(count=8)
  for row in range(len(lengths_B)):
    if lengths_B[row] >= config.image_tokens:
      whole.tokens_BT[row, :3] = config.image_id
    whole.tokens_BT[row, 3:] %= config.image_id
  images = np.random.default_rng(2).integers(0, 256, (8, 1, 32, 96, 3)).repeat(GROUP, axis=0)
  images[GROUP] = 0   # the blank row has none
  whole = whole.replace(images_BIYXC=images.astype(np.uint8))
  read = []
  shared, features = share_prompts(whole, lengths_B, PROMPT, GROUP), type(model).features
  refuse_different(model, model.init(jax.random.key(0)), whole, shared)
  counting = type("Counting", (type(model),), {"features": lambda self, params, images_BIYXC: (
      read.append(images_BIYXC.shape[0]), features(self, params, images_BIYXC))[1]})
  jax.eval_shape(counting(config).hidden, model.shapes, shared)
  assert read == [8]
