"""One model, many layouts: packed, padded, cached, scanned and unrolled decoders say the same."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import inputs, models, trees
from sftrl_jax.models import cache
from sftrl_jax.models.decoder import unstack
from sftrl_jax.parallel import mesh as meshes, rules

STEPS = 3


def fields(batch):
  return tuple(jnp.asarray(x) for x in (batch.tokens_BT, batch.positions_BT, batch.segments_BT))


def full(decoder, rows, length):
  """logits_BTV of right-padded rows by the training graph."""
  return np.asarray(decoder.logits(decoder.params, *fields(inputs.right_pad(rows, length))))


def continued(ragged):
  """The rows with STEPS more tokens each."""
  random = np.random.default_rng(5)
  return [row + random.integers(0, 24, STEPS).tolist() for row in ragged]


def decoded(decoder, ragged, longer):
  """(rows, places, logits) by prefill of left-padded prompts, then a token at a time; a row leaves, the cache grows."""
  model, extend = decoder.model, decoder.extend
  entries = []
  hidden, past = extend(cache.empty(model.config, len(ragged), 7), inputs.left_pad(ragged, 7))
  for row, prompt in enumerate(ragged):
    entries += [(row, place, np.asarray(hidden)[row, 7 - len(prompt) + place]) for place in range(len(prompt))]
  keep, past = [3, 0, 1], cache.grow(cache.take(past, jnp.asarray([3, 0, 1])), 7 + STEPS)
  for step in range(STEPS):
    positions = np.asarray([[len(ragged[row]) + step] for row in keep])
    tokens = np.asarray([[longer[row][len(ragged[row]) + step]] for row in keep])
    hidden, past = extend(past, inputs.Inputs(tokens, positions, np.ones((3, 1), np.int32)))
    entries += [(row, positions[index, 0], np.asarray(hidden)[index, 0]) for index, row in enumerate(keep)]
  rows, places, states = zip(*entries, strict=True)
  return rows, places, model.unembed(decoder.params, jnp.asarray(np.stack(states)))


def test_decoding_over_a_cache_is_the_full_forward_pass(decoder, ragged, same):
  longer = continued(ragged)
  rows, places, logits = decoded(decoder, ragged, longer)
  same(logits, full(decoder, longer, 12)[rows, places])


def test_large_kernels_are_matrices_in_decoding_and_say_the_same(born_of, kinds, ragged, same, monkeypatch):
  """Which kernels are large is a number here: for this test, all that read or write more than one kv head."""
  monkeypatch.setattr("sftrl_jax.models.decoder.LARGE", 600)
  decoder = born_of(**{**dataclasses.asdict(kinds["everything"]), "norm_eps": 1e-5})
  decoding = jax.eval_shape(decoder.model.decoding, decoder.params)["layers"][2]
  shapes = {path: leaf.shape for path, leaf in trees.leaves(decoding).items()}
  assert shapes["attn/q/matrix"] == (32, 32) and shapes["mlp/gate/matrix"] == (48, 32)
  assert shapes["mlp/down/matrix"] == (32, 48) and shapes["attn/k/kernel"] == (32, 2, 8)
  longer = continued(ragged)
  rows, places, logits = decoded(decoder, ragged, longer)
  same(logits, full(decoder, longer, 12)[rows, places])


def test_decoding_in_half_precision_stays_close(half, ragged, same):
  longer = continued(ragged)
  rows, places, logits = decoded(half, ragged, longer)
  assert logits.dtype == jnp.float32
  same(logits, full(half, longer, 12)[rows, places], 0.03)


def test_several_tokens_at_once_are_as_good_as_one_after_another(grouped, ragged, same):
  """A verifier's message is read in one piece, with padding in the gap before it."""
  model, extend = grouped.model, grouped.extend
  more = [[1, 2], [3], [4, 5, 6], []]
  past = extend(cache.empty(model.config, 4, 10), inputs.left_pad(ragged, 7))[1]
  tail = inputs.left_pad(more, 3)
  starts = np.asarray([[len(row)] for row in ragged])
  tail.positions_BT[:] += starts * tail.segments_BT
  hidden, _ = extend(past, tail)
  want = full(grouped, [a + b for a, b in zip(ragged, more, strict=True)], 12)
  got = np.asarray(model.unembed(grouped.params, hidden))
  for row, (before, after) in enumerate(zip(ragged, more, strict=True)):
    for place in range(len(after)):
      same(got[row, 3 - len(after) + place], want[row, len(before) + place])


def test_packed_rows_say_what_separate_rows_say(decoder, ragged, packed, same):
  batch, slots = packed
  together, apart = np.asarray(decoder.logits(decoder.params, *fields(batch))), full(decoder, ragged, 12)
  for index, (row, slot) in enumerate(zip(ragged, slots, strict=True)):
    same(together[slot.row, slot.start: slot.start + len(row)], apart[index, : len(row)])


def test_segments_alone_make_packed_rows_equal_to_separate_ones(decoder, ragged, packed, same):
  """Positions begin at 0 in every segment, also where padding interrupts a segment."""
  batch, slots = packed
  by_segments = np.asarray(decoder.logits(decoder.params, batch.tokens_BT, segments=batch.segments_BT))
  apart = full(decoder, ragged, 12)
  for index, (row, slot) in enumerate(zip(ragged, slots, strict=True)):
    same(by_segments[slot.row, slot.start: slot.start + len(row)], apart[index, : len(row)])
  real = batch.segments_BT > 0
  by_both = np.asarray(decoder.logits(decoder.params, *fields(batch)))
  np.testing.assert_array_equal(by_segments[real], by_both[real])   # the same positions, bit for bit
  places = [0, 1, 4, 5, 6]   # of the five tokens of a row that padding interrupts
  tokens, segments = np.zeros((2, 1, 12), np.int32)
  tokens[0, places], segments[0, places] = ragged[3], 1
  same(np.asarray(decoder.logits(decoder.params, tokens, segments=segments))[0, places], apart[3, :5])


@functools.cache
def gradients(model):
  """Of a loss that sees real positions only: sum log p of the token itself, whatever the layout."""

  def loss(params, tokens, positions, segments):
    logprobs = jax.nn.log_softmax(model.logits(params, tokens, positions, segments))
    chosen = jnp.take_along_axis(logprobs, tokens[..., None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(segments > 0, chosen, 0.0))

  return jax.jit(jax.value_and_grad(loss))


def close(left, right, tolerance=1e-5):
  """Losses and every gradient agree, relative to the size of the gradient."""
  np.testing.assert_allclose(left[0], right[0], rtol=tolerance)
  for (path, mine), theirs in zip(trees.leaves(left[1]).items(), jax.tree.leaves(right[1]), strict=True):
    assert np.linalg.norm(np.asarray(mine - theirs)) <= tolerance * np.linalg.norm(np.asarray(theirs)), path


def test_packing_and_padding_change_no_gradient(grouped, ragged, packed):
  of = gradients(grouped.model)
  apart = of(grouped.params, *fields(inputs.right_pad(ragged, 12)))
  close(of(grouped.params, *fields(packed[0])), apart)
  close(of(grouped.params, *fields(inputs.left_pad(ragged, 12))), apart)


def test_no_gradient_comes_from_later_tokens_or_other_segments(decoder):
  """Every place has a token of its own, so a row of the embedding table stands for a place."""
  tokens = jnp.arange(10, dtype=jnp.int32)[None]
  positions = jnp.asarray([[0, 1, 2, 3, 4, 0, 1, 2, 0, 0]], jnp.int32)
  segments = jnp.asarray([[1, 1, 1, 1, 1, 2, 2, 2, 0, 0]], jnp.int32)

  def read(embed):
    hidden = decoder.model.hidden({**decoder.params, "embed": embed}, inputs.Inputs(tokens, positions, segments))
    return jnp.einsum("btd,d->t", hidden, jnp.arange(1.0, hidden.shape[-1] + 1))

  touched = np.asarray(jnp.any(jax.jit(jax.jacrev(read))(decoder.params["embed"]) != 0, axis=-1))[:8, :10]
  seen = np.tril(np.ones((10, 10), bool)) & (segments[0][:, None] == segments[0][None, :])
  np.testing.assert_array_equal(touched, np.asarray(seen)[:8])


def test_later_tokens_change_no_bit(decoder, ragged):
  tokens, positions, segments = fields(inputs.right_pad(ragged, 12))
  before = np.asarray(decoder.logits(decoder.params, tokens, positions, segments))
  after = np.asarray(decoder.logits(decoder.params, jnp.where(positions == 2, 11, tokens), positions, segments))
  real, late = np.asarray(segments) > 0, np.asarray(positions) >= 2
  np.testing.assert_array_equal(before[real & ~late], after[real & ~late])
  assert (before[real & late] != after[real & late]).any()


def test_what_stands_in_padding_changes_no_bit(decoder, ragged):
  batch = inputs.left_pad(ragged, 12)
  padding, random = batch.segments_BT == 0, np.random.default_rng(3)
  dirty = batch.replace(tokens_BT=np.where(padding, random.integers(0, 24, padding.shape), batch.tokens_BT),
                        positions_BT=np.where(padding, random.integers(0, 12, padding.shape), batch.positions_BT))
  clean, changed = (decoder.logits(decoder.params, *fields(b)) for b in (batch, dirty))
  np.testing.assert_array_equal(np.asarray(clean)[~padding], np.asarray(changed)[~padding])
  assert np.isfinite(np.asarray(changed)).all()


def test_where_rows_are_padded_does_not_matter(decoder, ragged, same):
  batch = inputs.left_pad(ragged, 12)
  left, right = np.asarray(decoder.logits(decoder.params, *fields(batch))), full(decoder, ragged, 12)
  for index, row in enumerate(ragged):
    same(left[index, 12 - len(row):], right[index, : len(row)])


def test_a_mesh_changes_neither_gradients_nor_decoding(born_of, kinds, packed, same):
  """Norms over all heads, biases of what is summed over devices, and caps of scores that are split by heads."""
  decoder = born_of(**dataclasses.asdict(kinds["capped"]))
  alone = gradients(decoder.model)(decoder.params, *fields(packed[0]))
  mesh = meshes.make(meshes.MeshConfig(2, 2, 2))
  with jax.set_mesh(mesh), rules.applied():
    params = jax.device_put({"model": decoder.params}, rules.shardings({"model": decoder.params}, mesh))["model"]
    close(gradients.__wrapped__(decoder.model)(params, *fields(packed[0])), alone, 2e-5)
  with jax.set_mesh(mesh), rules.applied(rules.STATIONARY_AXES):
    extend = jax.jit(functools.partial(decoder.model.extend, jax.jit(decoder.model.decoding)(params)))
    said, past = [], cache.empty(decoder.model.config, 4, 3)
    for place in range(3):   # a token of each row at a time, with matrices that stay where they are
      token = inputs.Inputs(jnp.full((4, 1), place + 5), jnp.full((4, 1), place), jnp.ones((4, 1), jnp.int32))
      hidden, past = extend(past, token)
      said.append(np.asarray(hidden)[:, 0])
  same(decoder.model.unembed(decoder.params, jnp.asarray(np.stack(said, 1))),
       full(decoder, [[5, 6, 7]] * 4, 12)[:, :3])


def test_rows_are_alone_by_default(grouped, ragged, same):
  row = ragged[1]
  same(grouped.model.logits(grouped.params, jnp.asarray([row]))[0], full(grouped, ragged, 12)[1, : len(row)])


@pytest.mark.parametrize("change", [{"remat": "none"}, {"remat": "light"}, {"remat": "offload"},
                                    {"unroll": 7}, {"remat": "none", "unroll": 2}, {"flatten": True},
                                    {"flatten": False}], ids=str)
def test_remat_and_unrolling_change_nothing(grouped, born_of, ragged, change):
  batch, changed = fields(inputs.right_pad(ragged, 12)), born_of(**change)
  close(gradients(changed.model)(grouped.params, *batch), gradients(grouped.model)(grouped.params, *batch))


def test_a_model_is_not_made_where_remat_is_left_to_a_run(born_of):
  with pytest.raises(ValueError, match="which only a run replaces"):
    born_of(remat="auto")


def test_layers_apart_are_the_stacked_ones(grouped):
  apart, stacked = unstack(jax.device_get(grouped.params), 2), grouped.params["layers"]["block"]
  for index, layer in enumerate(apart["layers"]):
    for path, leaf in trees.leaves(layer).items():
      np.testing.assert_array_equal(leaf, np.asarray(trees.leaves(stacked)[path])[index])
  assert set(apart) == set(grouped.params) and len(apart["layers"]) == 2


def test_decoding_parameters_have_the_dtype_of_the_activations(half):
  decoding = jax.eval_shape(half.model.decoding, half.params)
  assert {leaf.dtype for leaf in jax.tree.leaves(decoding)} == {jnp.dtype(jnp.bfloat16)}
  ones = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  assert jax.eval_shape(half.model.hidden, half.params, inputs.Inputs(ones, ones, ones)).dtype == jnp.bfloat16


def test_a_tied_model_has_one_table(born_of):
  tied, untied = born_of(kv_heads=1, head_dim=6, activation="gelu", tie_embeddings=True, unroll=2), born_of()
  assert "unembed" not in tied.params and "unembed" in untied.params
  np.testing.assert_array_equal(tied.model.unembedding(tied.params), tied.params["embed"].T)


def depends_on(decoder, length):
  """[t, s]: whether the hidden state at t changes with the token at s, of one row."""
  row = np.arange(1, length + 1, dtype=np.int32)
  rows = jnp.asarray(np.concatenate([row[None], row[None] - np.eye(length, dtype=np.int32)]))
  logits = np.asarray(decoder.logits(decoder.params, rows, jnp.broadcast_to(jnp.arange(length), rows.shape),
                                     jnp.ones_like(rows)))
  return (np.abs(logits[1:] - logits[:1]).max(-1) > 0).T


def test_a_local_layer_looks_back_over_its_window(born_of):
  """Two local layers see 2 * (window - 1) tokens behind themselves; the third kind of the pattern has no layer."""
  seen = depends_on(born_of(layers=2, pattern=("local", "local", "global"), window=3), 9)
  behind = np.arange(9)[:, None] - np.arange(9)[None, :]
  np.testing.assert_array_equal(seen, (behind >= 0) & (behind <= 4))


def test_one_global_layer_sees_what_local_ones_do_not(born_of):
  seen = depends_on(born_of(layers=2, pattern=("local", "global"), window=3), 9)
  np.testing.assert_array_equal(seen, np.tril(np.ones((9, 9), bool)))


def test_a_window_that_holds_everything_is_no_window(grouped, born_of, ragged, same):
  wide = born_of(pattern=("local", "global"), window=12)
  same(full(wide, ragged, 12), full(grouped, ragged, 12), 1e-6)


def test_what_newer_families_add_is_not_there_by_default(grouped, kinds):
  added = {"attn/q/bias", "attn/k/bias", "attn/v/bias", "attn/q_norm/scale", "attn/k_norm/scale",
           "attn_post_norm/scale", "mlp_post_norm/scale"}
  of = lambda config: set(trees.leaves(jax.eval_shape(models.build(config).init, jax.random.key(0))["layers"]["block"]))
  assert of(kinds["everything"]) - of(kinds["grouped"]) == added


def test_an_unrotated_layer_knows_the_order_of_tokens_by_the_mask_alone(born_of):
  """The last token sees a set of tokens; where layers are rotated, their order as well."""
  rows, of = jnp.asarray([[1, 2, 3, 4], [3, 2, 1, 4]], jnp.int32), lambda pattern: born_of(layers=1, pattern=pattern)
  last = lambda decoder: np.asarray(decoder.model.logits(decoder.params, rows))[:, -1]
  bare, rotated = last(of(("unrotated",))), last(of(("global",)))
  np.testing.assert_allclose(bare[0], bare[1], atol=1e-5)
  assert np.abs(rotated[0] - rotated[1]).max() > 1e-2


def test_capped_logits_stay_within_the_cap(born_of, ragged):
  capped, plain = (full(born_of(**change), ragged, 12) for change in ({"logits_softcap": 0.5}, {}))
  assert np.abs(plain).max() > 1 and np.abs(capped).max() < 0.5
  np.testing.assert_allclose(capped, 0.5 * np.tanh(plain / 0.5), atol=1e-6)


def test_a_newborn_model_knows_nothing_and_its_layers_differ():
  model = models.build(models.DecoderConfig(vocab=24, width=32, layers=2, heads=4))
  params = jax.jit(model.init)(jax.random.key(0))
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
  for path, leaf in trees.leaves(params["layers"]["block"]).items():
    assert leaf.shape[0] == 2
    assert path.endswith("scale") or (np.asarray(leaf)[0] != np.asarray(leaf)[1]).any(), path
  logprobs = jax.nn.log_softmax(jax.jit(model.logits)(params, jnp.arange(20, dtype=jnp.int32)[None]))
  assert jnp.abs(logprobs + jnp.log(24.0)).max() < 1


def test_the_kinds_these_laws_hold_for_cover_every_choice(kinds):
  names = ("mlp", "activation", "tie_embeddings", "remat")
  values = {name: {getattr(config, name) for config in kinds.values()} for name in names}
  assert values == {"mlp": {"gated", "plain"}, "activation": {"silu", "relu", "gelu"}, "tie_embeddings": {True, False},
                    "remat": {"full", "none"}}
  assert {config.heads // config.kv_heads for config in kinds.values()} == {1, 2, 4}
