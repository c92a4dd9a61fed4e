"""A config fills in what follows from the rest, and refuses what cannot be built."""

import dataclasses

import numpy as np
import pytest

from sftrl_jax import models
from sftrl_jax.models.config import DecoderConfig


def test_zeros_are_filled_in():
  config = DecoderConfig(width=48, heads=6)
  assert (config.kv_heads, config.head_dim, config.mlp_dim) == (6, 8, 192)
  config = DecoderConfig(width=48, heads=6, kv_heads=2, head_dim=10, mlp_dim=100)
  assert (config.kv_heads, config.head_dim, config.mlp_dim) == (2, 10, 100)


def test_heads_need_not_divide_the_width_if_channels_are_given():
  assert DecoderConfig(width=50, heads=4, head_dim=16).head_dim == 16


def test_a_config_is_a_value():
  assert DecoderConfig() == DecoderConfig() and hash(DecoderConfig()) == hash(DecoderConfig())
  with pytest.raises(dataclasses.FrozenInstanceError):
    DecoderConfig().width = 3


def test_a_pattern_is_repeated_and_cut_off_where_the_layers_end():
  config = DecoderConfig(layers=7, pattern=["local", "local", "global"], window=4)
  assert config.kinds == ("local", "local", "global", "local", "local", "global", "local")
  assert hash(config) == hash(DecoderConfig(layers=7, pattern=("local", "local", "global"), window=4))
  assert DecoderConfig(layers=2).kinds == ("global", "global")


@pytest.mark.parametrize("change,message", [
    ({"width": 0}, "width is 0"), ({"layers": 0}, "layers is 0"), ({"heads": -1}, "heads is -1"),
    ({"heads": 4, "kv_heads": 3}, "kv_heads is 3; it must divide heads = 4"),
    ({"heads": 4, "kv_heads": 8}, "kv_heads is 8"), ({"heads": 4, "kv_heads": -2}, "kv_heads is -2"),
    ({"width": 50, "heads": 4}, "must divide width = 50"), ({"width": 12, "heads": 4}, "even number of channels"),
    ({"head_dim": -2}, "head_dim is -2"), ({"mlp_dim": -1}, "mlp_dim is -1"), ({"unroll": 0}, "unroll is 0"),
    ({"mlp": "wide"}, "gated, plain"), ({"activation": "tanh"}, "silu, relu, gelu"),
    ({"pattern": ("local",)}, "window is 0, but pattern"), ({"window": 8}, "window is 8, but pattern"),
    ({"window": -1, "pattern": ("local",)}, "window is -1"), ({"pattern": ()}, "pattern is"),
    ({"pattern": ("global", "sparse")}, "list of 'global', 'local', 'unrotated'"),
    ({"pattern": "global"}, "pattern is 'global'"),
    ({"rope_local_theta": 100.0}, "without local layers"), ({"embed_scale": 0.0}, "embed_scale is 0.0"),
    ({"rope_scaling": "ntk"}, "none, linear, llama3, yarn"), ({"rope_factor": 2.0}, "with 'none' it must be 1"),
    ({"rope_scaling": "linear", "rope_factor": 0.5}, "rope_factor is 0.5"), ({"query_scale": -1.0}, "query_scale is -"),
    ({"rope_scaling": "llama3", "rope_factor": 8.0}, "it needs a context"),
    ({"rope_scaling": "yarn", "rope_factor": 8.0}, "rope_scaling is 'yarn', but .* it needs a context"),
    ({"rope_gain": 1.2}, "rope_gain is 1.2, .* without 'yarn' it must be 1"), ({"rope_gain": 0.0}, "rope_gain is 0"),
    ({"rope_part": 0.05}, "rope_part is 0.05, which rotates 0 of"), ({"rope_part": 1.5}, "rope_part is 1.5"),
    ({"attention_softcap": -1.0}, "attention_softcap is -1"), ({"logits_softcap": -1.0}, "logits_softcap is -1"),
    ({"residual_scale": 0.0}, "residual_scale is 0"), ({"logits_divisor": 0.0}, "logits_divisor is 0"),
    ({"qk_norm_whole": True}, "qk_norm_whole is True, but qk_norm is False"),
    ({"rope_scaling": "llama3", "rope_context": 8, "rope_low": 4.0}, "0 < rope_low < rope_high"),
    ({"dtype": "float16"}, "float32, bfloat16"), ({"remat": "some"}, "none, full, light"),
])
def test_what_cannot_be_built_is_refused(change, message):
  with pytest.raises(ValueError, match=message):
    DecoderConfig(**change)


@pytest.mark.parametrize("vocab", [0, -3])
def test_a_model_needs_a_vocabulary(vocab):
  with pytest.raises(ValueError, match="vocab is"):
    models.build(DecoderConfig(vocab=vocab))


class Halved(models.Model):
  def unembedding(self, params):
    return super().unembedding(params) / 2


@dataclasses.dataclass(frozen=True)
class Family(DecoderConfig):
  """returns: what build gives instead of a model"""

  returns: str = ""

  def build(self):
    return self.returns or Halved(self)


def test_a_family_of_ones_own_builds_its_own_model():
  config = Family(vocab=7, width=8, layers=1, heads=2)
  model, plain = models.build(config), models.build(DecoderConfig(vocab=7, width=8, layers=1, heads=2))
  assert isinstance(model, Halved) and model == models.build(config) and hash(model) == hash(models.build(config))
  params = {"unembed": np.ones((8, 7), np.float32)}
  assert np.array_equal(model.unembedding(params), plain.unembedding(params) / 2)
  with pytest.raises(ValueError, match=r"Family.build\(\) returned 'nothing', but it must return a class derived from"):
    models.build(Family(vocab=7, returns="nothing"))
