"""The peer has our weights and does our work. Without torch these tests are skipped."""

import jax
import numpy as np
import pytest

from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.models.vision.idefics3 import Idefics3Config
from sftrl_jax.models.vision.tiny import TinyVisionConfig
from sftrl_jax.programs.bench import hf_peer, workloads
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.text.images import TiledReader

torch = pytest.importorskip("torch", reason="the peer of `sftrl bench --against=hf` is torch: pip install torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model():
  return build(DecoderConfig(vocab=64, width=16, layers=2, heads=2, kv_heads=1, mlp_dim=32, remat="none",
                             tie_embeddings=True, init_std=0.5))


@pytest.fixture(scope="module")
def params(model):
  return jax.jit(model.init)(jax.random.key(0))


@pytest.fixture
def peer(model, params):
  before = torch.get_num_threads()
  yield hf_peer.load_peer(model.config, params, 1, 1e-2, 1.0)
  torch.set_num_threads(before)


def test_the_peer_answers_as_we_do(model, params, peer):
  ids = workloads.ids_of(2, 12, 64)
  with torch.inference_mode():
    theirs = peer.model(input_ids=torch.from_numpy(ids.astype(np.int64))).logits.numpy()
  np.testing.assert_allclose(theirs, jax.jit(model.logits)(params, ids), atol=1e-4)
  assert peer.model.dtype == torch.float32 and torch.get_num_threads() == 1


def test_its_step_learns_and_its_decoding_can_be_repeated(peer):
  _, examples = workloads.ragged(2, 32, 64)
  step = hf_peer.train(peer, examples, 2)
  ids = torch.tensor([examples[0][0]])
  loss = lambda: peer.model(input_ids=ids, labels=ids).loss.item()
  before = loss()
  for _ in range(3):
    step()
  assert loss() < before and all(parameter.grad is None for parameter in peer.model.parameters())
  hf_peer.prefill(peer, workloads.prompts(2, 8, 64))()
  work, note = hf_peer.decode(peer, workloads.prompts(2, 8, 64), 3)
  work()
  work()
  assert "is timed" in note


@pytest.fixture(scope="module")
def smolvlm():
  """A small SmolVLM, and what it reads of pictures: one of 4 tiles and the whole."""
  model = build(Idefics3Config(
      vocab=64, width=16, layers=1, heads=2, kv_heads=1, mlp_dim=32, remat="full", tie_embeddings=False, image_id=7,
      layout="smolvlm", image_height=8, image_width=8, image_longest=16, patch=4, tower_side=2, tower_width=12,
      tower_heads=3, tower_layers=1, tower_mlp_dim=16, images=5))
  config = model.config
  return model, TiledReader(7, config.image_tokens, 8, 8, 5, config.processor())


def test_the_peer_reads_pictures_as_we_do_and_learns_from_them(smolvlm):
  model, reader = smolvlm
  before, params = torch.get_num_threads(), jax.jit(model.init)(jax.random.key(0))
  peer = hf_peer.load_peer(model.config, params, 1, 1e-2, 1.0)
  inputs = workloads.prompts(2, 8, 64, reader)
  tokens, pictures = hf_peer._ids(peer, inputs), hf_peer._pictures(peer, inputs.images_BIYXC)
  with torch.inference_mode():
    theirs = peer.model(input_ids=tokens, **pictures).logits.numpy()
  ours = np.asarray(jax.jit(model.logits)(params, inputs.tokens_BT, images=inputs.images_BIYXC))
  np.testing.assert_allclose(*(np.delete(logits, 7, axis=-1) for logits in (theirs, ours)), atol=1e-4)
  batch, examples = workloads.with_pictures(2, 14, 64, reader)
  hf_peer.train(peer, examples, 2, batch.inputs.images_BIYXC)()
  hf_peer.prefill(peer, inputs)()
  work, _ = hf_peer.decode(peer, inputs, 2)
  work()
  torch.set_num_threads(before)


def test_pictures_of_another_family_are_refused():
  with pytest.raises(ConfigError, match="the model is a TinyVisionConfig: time this one without --against"):
    hf_peer.load_peer(TinyVisionConfig(vocab=8), {}, 1, 1e-2, 1.0)
