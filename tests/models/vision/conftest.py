"""Tiny random models of transformers with pictures, saved by it and loaded by us."""

import tempfile
import types
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

from sftrl_jax import models
from sftrl_jax.checkpoints import hf

TEXT = dict(vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def weights(name, shape):
  """Any tensor of a model, from its name: norms off their rest, gates open, matrices loud enough to show."""
  noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)
  if "gate" in name and len(shape) == 1:
    return 0.7 + 0.2 * noise
  if len(shape) == 1:
    return (0.0 if name.endswith("bias") or "class_embedding" in name else 1.0) + 0.2 * noise
  fan_in = np.prod(shape[1:])
  return noise * np.float32(0.5 if "embedding" in name or "embed_tokens" in name else fan_in**-0.5)


@pytest.fixture(scope="module")
def by_torch():
  """by_torch(model) -> the model with weights by their names, its directory, ours from that directory."""
  torch = pytest.importorskip("torch")
  folders = []

  def saved(model):
    torch.set_num_threads(1)
    model.eval()
    with torch.no_grad():
      for name, leaf in model.named_parameters():
        leaf.copy_(torch.from_numpy(np.asarray(weights(name, tuple(leaf.shape)), np.float32)))
    folders.append(tempfile.TemporaryDirectory(prefix="sftrl-vision-"))
    home = Path(folders[-1].name)
    model.save_pretrained(home)
    loaded = hf.load(home)
    ours = models.build(loaded.config)
    return types.SimpleNamespace(torch=model, home=home, config=loaded.config, params=loaded.params, model=ours,
                                 logits=jax.jit(ours.logits), decoding=ours.decoding(loaded.params))

  yield saved
  for folder in folders:
    folder.cleanup()
