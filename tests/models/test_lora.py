"""Adapters: nothing at birth, the same merged or not, and of exactly the projections that were named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import trees
from sftrl_jax.models import lora
from sftrl_jax.models.lora import LoraConfig

RANK = LoraConfig(rank=2, alpha=3.0)
TOKENS = np.random.default_rng(0).integers(0, 24, (2, 7)).astype(np.int32)


def loud(adapters):
  """Adapters that add about as much as the kernels beside them."""
  random = np.random.default_rng(2)
  return jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape) / x.shape[1] ** 0.5, jnp.float32), adapters)


@pytest.fixture
def adapted(decoder):
  """(decoder, base, newborn adapters, trained ones)."""
  born = lora.init(RANK, decoder.params, jax.random.key(0))
  return decoder, decoder.params, born, loud(born)


def test_newborn_adapters_are_the_base_and_trained_ones_can_be_merged(adapted, same):
  decoder, base, born, trained = adapted
  of_base = decoder.logits(base, TOKENS)
  np.testing.assert_array_equal(decoder.logits(lora.attach(base, born, RANK), TOKENS), of_base)
  attached = lora.attach(base, trained, RANK)
  of_trained, merged = decoder.logits(attached, TOKENS), jax.jit(lora.merge)(attached)
  assert jax.tree.structure(merged) == jax.tree.structure(base)
  same(decoder.logits(merged, TOKENS), of_trained, 1e-5)
  assert np.abs(of_trained - of_base).max() > 0.1 * np.ptp(of_base)


def test_what_decodes_has_its_adapters_merged(adapted):
  decoder, base, _, trained = adapted
  attached = lora.attach(base, trained, RANK)
  decode = jax.jit(decoder.model.decoding)
  decoded, wanted = decode(attached), decode(lora.merge(attached))
  assert jax.tree.structure(decoded) == jax.tree.structure(decode(base))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), decoded, wanted)


def test_attaching_copies_nothing_and_a_plain_tree_is_merged_already(grouped):
  born = lora.init(RANK, grouped.params, jax.random.key(0))
  attached = trees.leaves(lora.attach(grouped.params, born, RANK))
  for path, leaf in (trees.leaves(grouped.params) | trees.leaves(born)).items():
    assert attached.pop(path) is leaf
  assert {path.rpartition("/")[2] for path in attached} == {"scale"}
  assert all((leaf == 1.5).all() for leaf in attached.values())
  assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a is b, lora.merge(grouped.params), grouped.params)))


def test_merging_adds_the_product_in_f32(grouped):
  base = jax.tree.map(lambda x: x.astype(jnp.bfloat16), grouped.params)
  adapters = loud(lora.init(LoraConfig(rank=3, alpha=1.0, targets=("*/down",)), base, jax.random.key(0)))
  merged = lora.merge(lora.attach(base, adapters, LoraConfig(rank=3, alpha=1.0)))
  merged = merged["layers"]["block"]["mlp"]["down"]["kernel"]
  down, (a, b) = base["layers"]["block"]["mlp"]["down"]["kernel"], (
      np.float64(adapters["layers"]["block"]["mlp"]["down"][name]) for name in ("a", "b"))
  wanted = np.float64(down) + np.einsum("nfr,nrd->nfd", a, b) / 3
  assert merged.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.float64(merged), wanted, rtol=2**-8, atol=1e-6)


def test_the_strength_is_alpha_over_rank_or_its_root():
  assert (LoraConfig(rank=8, alpha=16.0).scale, LoraConfig(rank=16, alpha=8.0, scaling="root").scale) == (2.0, 2.0)


def test_adapters_are_those_of_the_targets_and_follow_from_path_and_key(grouped):
  all_of_them = trees.leaves(lora.init(RANK, grouped.params, jax.random.key(0)))
  assert {path.removeprefix("layers/block/") for path in all_of_them} == {
      f"{name}/{side}" for side in "ab" for name in (
          "attn/q", "attn/k", "attn/v", "attn/o", "mlp/gate", "mlp/up", "mlp/down")}
  some = trees.leaves(lora.init(LoraConfig(rank=2, targets=["*attn/o", "*mlp/d*"]), grouped.params, jax.random.key(0)))
  assert {path[13:] for path in some} == {"attn/o/a", "attn/o/b", "mlp/down/a", "mlp/down/b"}
  for path, leaf in some.items():
    np.testing.assert_array_equal(leaf, all_of_them[path])
  o = some["layers/block/attn/o/a"], some["layers/block/attn/o/b"]
  assert [x.shape for x in o] == [(2, 4, 8, 2), (2, 2, 32)] and not o[1].any()
  assert 0.9 * 32**-0.5 < np.abs(o[0]).max() <= 32**-0.5
  assert np.any(o[0] != trees.leaves(lora.init(RANK, grouped.params, jax.random.key(1)))["layers/block/attn/o/a"])
  assert lora.count(RANK, grouped.params) == trees.size(all_of_them) and lora.count(LoraConfig(), grouped.params) == 0


@pytest.mark.parametrize("wrong, message", [
    (dict(rank=2, targets=("*attn/q", "*attn/w")), r"^targets has '\*attn/w', which matches no projection; there are "
     "layers/block/attn/k, .*layers/block/mlp/up"),
    (dict(rank=17), r"^rank is 17, but layers/block/attn/k reads 32 channels and writes 16: use at most 16"),
    (dict(rank=2, targets=("embed",)), "^targets has 'embed'")])
def test_what_cannot_be_adapted_is_told(grouped, wrong, message):
  with pytest.raises(ValueError, match=message):
    lora.init(LoraConfig(**wrong), grouped.params, jax.random.key(0))


@pytest.mark.parametrize("wrong, message", [
    (dict(rank=-1), "^rank is -1"), (dict(alpha=0.0), "^alpha is 0"), (dict(alpha=float("nan")), "^alpha is nan"),
    (dict(targets="*attn/q"), "^targets is '.*must be a list"), (dict(rank=2, targets=()), "^targets is empty"),
    (dict(scaling="cube"), "^scaling is 'cube'")])
def test_settings_that_make_no_sense_are_told(wrong, message):
  with pytest.raises(ValueError, match=message):
    LoraConfig(**wrong)


def test_an_objective_reads_adapters_on_what_is_frozen(grouped):
  params = {"model": grouped.params, "value": 1}
  assert lora.whole(params, {}, LoraConfig()) is params
  born = lora.init(RANK, grouped.params, jax.random.key(0))
  read = lora.whole({"lora": born, "value": 1}, {"model": grouped.params}, RANK)
  assert read.keys() == {"model", "value"}
  assert jax.tree.structure(read["model"]) == jax.tree.structure(lora.attach(grouped.params, born, RANK))
