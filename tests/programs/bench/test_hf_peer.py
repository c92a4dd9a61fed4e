"""The peer has our weights and does our work. Without torch these tests are skipped."""

import jax
import numpy as np
import pytest

from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.programs.bench import hf_peer, workloads

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
  hf_peer.prefill(peer, workloads.ids_of(2, 8, 64))()
  work, note = hf_peer.decode(peer, workloads.ids_of(2, 8, 64), 3)
  work()
  work()
  assert "is timed" in note
