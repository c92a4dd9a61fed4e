"""Keys are asked for by name, and what no model here has is told."""

import pytest

from sftrl_jax.checkpoints.families.keys import Keys, read_shape, shortest

FEW = dict(vocab_size=40, hidden_size=24, intermediate_size=20, num_hidden_layers=3, num_attention_heads=4,
           rms_norm_eps=1e-6, max_position_embeddings=64)


def test_what_the_file_leaves_out_means_the_default_and_null_means_null():
  keys = Keys({"a": 1, "b": None}, defaults={"a": 2, "b": 3, "c": 4})
  assert [keys.get(name) for name in "abcd"] == [1, None, 4, None]


@pytest.mark.parametrize("wrong, message", [
    (dict(hidden_size=0), "hidden_size is 0; it must be a whole number"), (dict(vocab_size="40"), "vocab_size is '40'"),
    (dict(vocab_size=True), "vocab_size is True"), (dict(rms_norm_eps=0), "rms_norm_eps is 0; it must be a positive"),
    (dict(rms_norm_eps=float("nan")), "rms_norm_eps is nan"), (dict(tie_word_embeddings="no"), "must be true or false"),
    (dict(mlp_bias=True), "mlp_bias is True, which no model here has; known: False, null"),
    (dict(attention_bias=True), "attention_bias is True"), (dict(quantization_config={"bits": 4}), "quantization_co"),
    (dict(num_attention_heads=5), "hidden_size is 24, which num_attention_heads = 5 does not divide"),
], ids=str)
def test_a_value_that_cannot_be_is_told_with_its_key(wrong, message):
  with pytest.raises(ValueError, match=f"here: .*{message}"):
    read_shape(Keys({**FEW, **wrong}, "here"))


def test_heads_and_channels_have_defaults():
  fields = read_shape(Keys(FEW))
  assert (fields["kv_heads"], fields["head_dim"], fields["tie_embeddings"]) == (4, 6, False)
  assert read_shape(Keys({**FEW, "head_dim": 5, "num_attention_heads": 7}))["head_dim"] == 5


@pytest.mark.parametrize("name, message", [("gelu", "hidden_act is 'gelu'"), ("swiglu", "known: 'silu', 'swish'")])
def test_an_activation_of_another_shape_is_refused(name, message):
  with pytest.raises(ValueError, match=message):
    Keys({"hidden_act": name}).activation()


@pytest.mark.parametrize("kinds, pattern", [("gggg", "g"), ("llgllgl", "llg"), ("ggll", "ggll"), ("l", "l")])
def test_a_pattern_is_the_shortest_that_repeats(kinds, pattern):
  assert shortest(tuple(kinds)) == tuple(pattern)


@pytest.mark.parametrize("types", [None, ["full_attention"], ["full_attention", "chunked_attention"], "full_attention"])
def test_every_layer_has_a_kind_that_is_known(types):
  with pytest.raises(ValueError, match="layer_types is .* for each of 2 layers"):
    Keys({"layer_types": types}).kinds(2)
