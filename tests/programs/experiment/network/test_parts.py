"""The model and the tokenizer of a config agree, or the error names the key."""

import jax
import pytest

from sftrl_jax.models import DecoderConfig
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.parallel.mesh import MeshConfig
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.network.parts import build_model, build_tokenizer
from sftrl_jax.programs.experiment.sections import TokenizerConfig
from sftrl_jax.text.tokenizer import byte

PLAIN = {"start": "scratch", "model": {"name": "decoder"}}


def test_a_model_has_a_row_for_every_id():
  mesh = meshes.make(MeshConfig(), jax.devices()[:1])
  model = lambda vocab: build_model(PLAIN, DecoderConfig(vocab=vocab, width=16, layers=1, heads=2), byte(), mesh, None)
  assert model(0).config.vocab == 260 and model(300).config.vocab == 300
  with pytest.raises(ConfigError, match="config.model.vocab is 8, but the tokenizer has 260 ids"):
    model(8)


def test_a_tokenizer_is_known_or_refused():
  assert build_tokenizer(TokenizerConfig(name="bytes"), None, "scratch", None) == byte()
  with pytest.raises(ConfigError, match="config.tokenizer.name is 'letters'; known: words, bytes, pretrained"):
    build_tokenizer(TokenizerConfig(name="letters"), None, "scratch", None)
