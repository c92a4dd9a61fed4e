"""transformers and torch on the same weights and the same shapes: what a user would run instead.

Nothing here is tuned against the peer: attention is sdpa, AdamW the default one, no autocast, as many threads, the
cache in the parameters' dtype, and of two ways to decode the faster one counts.
"""

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sftrl_jax.programs.bench.paired_timing import timed
from sftrl_jax.programs.config.errors import ConfigError


@dataclasses.dataclass(frozen=True, eq=False)
class Peer:
  """A transformers model on torch, and its optimizer."""

  model: Any
  optimizer: Any
  device: Any
  clip: float
  versions: str


def open(config, params, threads: int, learning_rate: float, clip: float) -> Peer:
  """The same weights in torch, by our own export. params: of our `model`, stacked."""
  try:
    import torch
    import transformers
  except ImportError as error:
    raise ConfigError(f"--against=hf needs torch and transformers ({error}): pip install 'sftrl-jax[hf]' torch.") from (
        error)
  import jax

  from sftrl_jax.checkpoints import hf
  torch.set_num_threads(threads)
  cuda = jax.default_backend() == "gpu" and torch.cuda.is_available()
  device = torch.device("cuda" if cuda else "cpu")
  before = os.environ.get("HF_HUB_OFFLINE")
  with tempfile.TemporaryDirectory() as folder:
    hf.save(Path(folder), config, params, None)
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
      model = transformers.AutoModelForCausalLM.from_pretrained(
          folder, dtype=getattr(torch, config.dtype), attn_implementation="sdpa", local_files_only=True)
      model = model.to(device)
      for parameter in model.parameters():   # out of the file that is about to go
        parameter.data = parameter.data.clone()
    finally:
      if before is None:
        del os.environ["HF_HUB_OFFLINE"]
      else:
        os.environ["HF_HUB_OFFLINE"] = before
  optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
  told = f"torch {torch.__version__} ({threads} threads, {device.type}), transformers {transformers.__version__}"
  return Peer(model, optimizer, device, clip, told)


def train(peer: Peer, examples: Sequence[tuple[Sequence[int], Sequence[float]]], rows: int):
  """One optimizer step over all examples, (ids, weights): `rows` at a time, padded to the longest of them."""
  import torch
  pieces = [examples[first:first + rows] for first in range(0, len(examples), rows)]
  batches, labels_in_all = [], sum(sum(weight > 0 for weight in weights[1:]) for _, weights in examples)
  for piece in pieces:
    length = max(len(ids) for ids, _ in piece)
    tokens, mask = np.zeros((len(piece), length), np.int64), np.zeros((len(piece), length), np.int64)
    labels = np.full((len(piece), length), -100, np.int64)
    for row, (ids, weights) in enumerate(piece):
      tokens[row, :len(ids)], mask[row, :len(ids)] = ids, 1
      labels[row, :len(ids)] = np.where(np.asarray(weights) > 0, ids, -100)
    on = [torch.from_numpy(array).to(peer.device) for array in (tokens, mask, labels)]
    batches.append((on[0], None if mask.all() else on[1], on[2]))

  def step():
    peer.model.train()
    for tokens, mask, labels in batches:
      out = peer.model(input_ids=tokens, attention_mask=mask, labels=labels, use_cache=False,
                       num_items_in_batch=torch.tensor(labels_in_all, device=peer.device))
      out.loss.backward()
    torch.nn.utils.clip_grad_norm_(peer.model.parameters(), peer.clip or float("inf"))
    peer.optimizer.step()
    peer.optimizer.zero_grad(set_to_none=True)
    _wait(peer)

  return step


def prefill(peer: Peer, tokens_BT: np.ndarray):
  """Reads prompts into a cache and picks the first token of each response."""
  import torch
  tokens = torch.from_numpy(tokens_BT.astype(np.int64)).to(peer.device)

  def run():
    peer.model.eval()
    with torch.inference_mode():
      out = peer.model(input_ids=tokens, use_cache=True, logits_to_keep=1)
      out.logits[:, -1].argmax(-1)
    _wait(peer)

  return run


def decode(peer: Peer, tokens_BT: np.ndarray, steps: int) -> tuple[Any, str]:
  """(work that decodes `steps` greedy tokens a row after the prompts, how): the faster of a plain loop over the cache
  and of model.generate, whose time up to the first token is taken off."""
  import torch
  tokens = torch.from_numpy(tokens_BT.astype(np.int64)).to(peer.device)
  peer.model.eval()
  with torch.inference_mode():
    out = peer.model(input_ids=tokens, use_cache=True, logits_to_keep=1)
  cache, first = out.past_key_values, out.logits[:, -1:].argmax(-1)

  def loop():
    with torch.inference_mode():
      peer.model.eval()
      token = first
      for _ in range(steps):
        token = peer.model(input_ids=token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
      cache.crop(-steps)
    _wait(peer)

  def generate(new):
    with torch.inference_mode():
      peer.model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new, min_new_tokens=new,
                          do_sample=False, use_cache=True, pad_token_id=0)
    _wait(peer)

  loop()
  generate(1)
  by_loop = timed(loop)
  beyond_first = lambda: timed(lambda: generate(steps + 1)) - timed(lambda: generate(1))
  by_loop, by_generate = timed(loop), beyond_first()
  told = f"loop {1e3 * by_loop / steps:.1f} ms, generate {1e3 * by_generate / steps:.1f} ms a step"
  return (loop, f"{told}; loop is timed") if by_loop <= by_generate else (beyond_first, f"{told}; generate is timed")


def _wait(peer: Peer) -> None:
  if peer.device.type == "cuda":
    import torch
    torch.cuda.synchronize()
