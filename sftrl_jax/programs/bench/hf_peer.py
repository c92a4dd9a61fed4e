"""The peer of `sftrl bench --against=hf`: transformers and torch, with the same weights and the same shapes.

The peer is set up as its users would: sdpa attention, the default AdamW, no autocast, as many threads as XLA, the cache
in the parameters' dtype. Of two ways to decode, the faster one counts.
"""

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sftrl_jax.inputs import Inputs
from sftrl_jax.models import DecoderConfig
from sftrl_jax.models.vision.config import VisionConfig
from sftrl_jax.models.vision.idefics3 import Idefics3Config
from sftrl_jax.programs.bench.paired_timing import Work, timed
from sftrl_jax.programs.bench.workloads import Examples
from sftrl_jax.programs.config.errors import ConfigError


@dataclasses.dataclass(frozen=True, eq=False)
class Peer:
  """A transformers model on torch, and its optimizer. normalisation: (mean, std) of the pixels of pictures."""

  model: Any
  optimizer: Any
  device: Any
  clip: float
  versions: str
  normalisation: tuple = ()


def load_peer(config: DecoderConfig, params: dict, threads: int, learning_rate: float, clip: float) -> Peer:
  """Exports our weights, and loads them into transformers. ConfigError where torch or transformers is missing, and for
  a model that reads pictures in another way than Idefics3 and SmolVLM.

  params: of `model`, stacked; threads: of torch; clip: largest norm of gradients, 0 for none
  """
  try:
    import torch
    import transformers
  except ImportError as error:
    raise ConfigError(f"--against=hf needs torch and transformers ({error}): pip install 'sftrl-jax[hf]' torch.") from (
        error)
  if isinstance(config, VisionConfig) and not isinstance(config, Idefics3Config):
    raise ConfigError("--against=hf gives the peer pictures as Idefics3 and SmolVLM read them, but the model is a "
                      f"{type(config).__name__}: time this one without --against.")
  torch.set_num_threads(threads)
  with tempfile.TemporaryDirectory() as folder:
    model = load_model(Path(folder), config, params, config.dtype)
  if recomputes(config):
    model.gradient_checkpointing_enable()
  optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
  versions = f"torch {torch.__version__} ({threads} threads, {model.device.type}), transformers " + (
      transformers.__version__)
  normalisation = (config.image_mean, config.image_std) if isinstance(config, VisionConfig) else ()
  return Peer(model, optimizer, model.device, clip, versions, normalisation)


def load_model(folder: Path, config: DecoderConfig, params: dict, dtype: str) -> Any:
  """Our weights as a model of transformers, on its GPU if JAX uses one; `folder`, which is empty, may be deleted then.

  params: of `model`, stacked; dtype: of the weights
  """
  import jax
  import torch
  import transformers

  from sftrl_jax.checkpoints import hf
  cuda = jax.default_backend() == "gpu" and torch.cuda.is_available()
  hf.save(folder, config, params, None)
  before = os.environ.get("HF_HUB_OFFLINE")
  os.environ["HF_HUB_OFFLINE"] = "1"
  try:
    kind = "ImageTextToText" if isinstance(config, VisionConfig) else "CausalLM"
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="sdpa", local_files_only=True)
    model = model.to("cuda" if cuda else "cpu")
    for parameter in model.parameters():   # which may be mapped from a file that is deleted
      parameter.data = parameter.data.clone()
  finally:
    if before is None:
      del os.environ["HF_HUB_OFFLINE"]
    else:
      os.environ["HF_HUB_OFFLINE"] = before
  return model


def recomputes(config: DecoderConfig) -> bool:
  """Whether the peer recomputes the activations of whole blocks in its backward pass: where ours does, too."""
  return config.remat == "full"


def train(peer: Peer, examples: Examples, rows: int, images_BIYXC: np.ndarray | None = None) -> Work:
  """One optimizer step over all examples: `rows` at a time, padded to the longest of them.

  images_BIYXC: of the examples, which then are `rows`; None of a model of text
  """
  import torch
  pictures = _pictures(peer, images_BIYXC)
  pieces = [examples[first:first + rows] for first in range(0, len(examples), rows)]
  batches, label_count = [], sum(sum(weight > 0 for weight in weights[1:]) for _, weights in examples)
  for piece in pieces:
    length = max(len(ids) for ids, _ in piece)
    tokens, mask = np.zeros((len(piece), length), np.int64), np.zeros((len(piece), length), np.int64)
    labels = np.full((len(piece), length), -100, np.int64)
    for row, (ids, weights) in enumerate(piece):
      tokens[row, :len(ids)], mask[row, :len(ids)] = ids, 1
      labels[row, :len(ids)] = np.where(np.asarray(weights) > 0, ids, -100)
    tensors = [torch.from_numpy(array).to(peer.device) for array in (tokens, mask, labels)]
    batches.append((tensors[0], None if mask.all() else tensors[1], tensors[2]))

  def step() -> None:
    peer.model.train()
    for tokens, mask, labels in batches:
      out = peer.model(input_ids=tokens, attention_mask=mask, labels=labels, use_cache=False, **pictures,
                       num_items_in_batch=torch.tensor(label_count, device=peer.device))
      out.loss.backward()
    torch.nn.utils.clip_grad_norm_(peer.model.parameters(), peer.clip or float("inf"))
    peer.optimizer.step()
    peer.optimizer.zero_grad(set_to_none=True)
    _wait(peer)

  return step


def prefill(peer: Peer, inputs: Inputs) -> Work:
  """Reads prompts into a cache, and picks the first token of each response."""
  import torch
  tokens, pictures = _ids(peer, inputs), _pictures(peer, inputs.images_BIYXC)

  def run() -> None:
    peer.model.eval()
    with torch.inference_mode():
      out = peer.model(input_ids=tokens, use_cache=True, logits_to_keep=1, **pictures)
      out.logits[:, -1].argmax(-1)
    _wait(peer)

  return run


def decode(peer: Peer, inputs: Inputs, steps: int) -> tuple[Work, str]:
  """(work that decodes `steps` greedy tokens a row after the prompts, a note on how).

  It is the faster of a plain loop over the cache and of model.generate less its time up to the first token.
  """
  import torch
  tokens, pictures = _ids(peer, inputs), _pictures(peer, inputs.images_BIYXC)
  peer.model.eval()
  with torch.inference_mode():
    out = peer.model(input_ids=tokens, use_cache=True, logits_to_keep=1, **pictures)
  cache, first = out.past_key_values, out.logits[:, -1:].argmax(-1)

  def loop() -> None:
    with torch.inference_mode():
      peer.model.eval()
      token = first
      for _ in range(steps):
        token = peer.model(input_ids=token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
      cache.crop(-steps)
    _wait(peer)

  def generate(new: int) -> None:
    with torch.inference_mode():
      peer.model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new, min_new_tokens=new,
                          do_sample=False, use_cache=True, pad_token_id=0, **pictures)
    _wait(peer)

  loop()
  generate(1)
  beyond_first = lambda: timed(lambda: generate(steps + 1)) - timed(lambda: generate(1))
  by_loop, by_generate = timed(loop), beyond_first()
  note = f"loop {1e3 * by_loop / steps:.1f} ms, generate {1e3 * by_generate / steps:.1f} ms a step"
  return (loop, f"{note}; loop is timed") if by_loop <= by_generate else (beyond_first, f"{note}; generate is timed")


def _ids(peer: Peer, inputs: Inputs) -> Any:
  import torch
  return torch.from_numpy(np.asarray(inputs.tokens_BT, np.int64)).to(peer.device)


def _pictures(peer: Peer, images_BIYXC: np.ndarray | None) -> dict:
  """The arguments of the peer's model for pictures: pixels as its processor makes them; {} without pictures."""
  import torch
  if images_BIYXC is None:
    return {}
  mean, std = (np.asarray(values, np.float32) for values in peer.normalisation)
  pixels = (np.asarray(images_BIYXC, np.float32) / 255 - mean) / std
  return {"pixel_values": torch.from_numpy(pixels.transpose(0, 1, 4, 2, 3).copy()).to(peer.device, peer.model.dtype)}


def _wait(peer: Peer) -> None:
  if peer.device.type == "cuda":
    import torch
    torch.cuda.synchronize()
