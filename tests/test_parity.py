"""Every family says what torch and transformers say: tiny random models, saved by them and loaded by us.

Where torch is not installed, the same models are held against what it said once, tests/goldens/families.npz, and a
warning says so. `python tests/test_parity.py` writes that file anew.
"""

import functools
import importlib.util
import io
import json
import tempfile
import types
import warnings
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import inputs, models
from sftrl_jax.checkpoints import hf
from sftrl_jax.models import cache

GOLDENS = Path(__file__).parent / "goldens" / "families.npz"
TORCH = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
LENGTHS, STEPS, VOCAB = (12, 5, 9), 32, 96
LENGTH = max(LENGTHS) + STEPS
PLACES = range(7, LENGTH, 9)   # of a left-padded row, whose logits the goldens hold
FEW = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
           num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
# Rows are longer than the first context, than every window, and layers are no multiple of the pattern.
FAMILIES = {
    "llama2": ("LlamaConfig", dict(num_key_value_heads=4, rope_parameters={"rope_type": "default", "rope_theta": 1e4})),
    "llama3": ("LlamaConfig", dict(head_dim=16, rope_parameters={
        "rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32})),
    "smollm2": ("LlamaConfig", dict(hidden_size=36, num_attention_heads=3, num_key_value_heads=1, rms_norm_eps=1e-5,
                                    tie_word_embeddings=True,
                                    rope_parameters={"rope_type": "default", "rope_theta": 1e5})),
    "llama_biased": ("LlamaConfig", dict(attention_bias=True, mlp_bias=True)),
    "mistral": ("MistralConfig", dict(sliding_window=6, head_dim=8)),
    "qwen2": ("Qwen2Config", dict(tie_word_embeddings=True)),
    "qwen2_yarn": ("Qwen2Config", dict(head_dim=32, rope_parameters={
        "rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "beta_fast": 4.0,
        "original_max_position_embeddings": 32})),
    "qwen3": ("Qwen3Config", dict(head_dim=16)),
    "gemma3": ("Gemma3TextConfig", dict(
        num_hidden_layers=4, head_dim=16, num_key_value_heads=1, sliding_window=5, query_pre_attn_scalar=24,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        tie_word_embeddings=True, rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e3},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}})),
    "gemma2": ("Gemma2Config", dict(
        num_hidden_layers=3, head_dim=16, num_key_value_heads=1, sliding_window=5, query_pre_attn_scalar=24,
        tie_word_embeddings=True, attn_logit_softcapping=2.0, final_logit_softcapping=3.0)),
    "smollm3": ("SmolLM3Config", dict(
        num_hidden_layers=4, no_rope_layers=[1, 0, 1, 1], pad_token_id=0, use_sliding_window=True, sliding_window=6,
        layer_types=["full_attention", "full_attention", "sliding_attention", "full_attention"])),
    "phi3": ("Phi3Config", dict(sliding_window=6, pad_token_id=0, rope_parameters={
        "rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5})),
    "olmo2": ("Olmo2Config", dict(pad_token_id=0)),
    "granite": ("GraniteConfig", dict(embedding_multiplier=3.0, attention_multiplier=0.2, residual_multiplier=0.4,
                                      logits_scaling=0.6)),
}
families = pytest.mark.parametrize("family", FAMILIES)


def weights(family, name, shape):
  """Any tensor of a model, from its name: norms off their rest, biases and embeddings loud enough to show."""
  noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)
  if len(shape) == 1:
    rest = 0.0 if name.endswith("bias") or family.startswith("gemma") else 1.0
    return rest + 0.2 * noise
  return noise * np.float32(0.5 if "embed" in name else shape[1] ** -0.5)


def prompts():
  random = np.random.default_rng(3)
  return [random.integers(3, VOCAB, length).tolist() for length in LENGTHS]


def sequences(expected):
  """Every prompt with what was greedily said to it."""
  return [prompt + tokens.tolist() for prompt, tokens in zip(prompts(), expected.tokens_BR, strict=True)]


@functools.cache
def by_torch(family):
  """A directory as transformers saves it, 32 tokens greedily said to every prompt, logits of it all left-padded."""
  import torch
  import transformers

  torch.set_num_threads(1)
  name, fields = FAMILIES[family]
  config = getattr(transformers, name)(**{**FEW, **fields})
  model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
  shapes = {name: tuple(leaf.shape) for name, leaf in model.named_parameters()}
  with torch.no_grad():
    for name, leaf in model.named_parameters():
      leaf.copy_(torch.from_numpy(weights(family, name, shapes[name])))
    batch = inputs.left_pad(prompts(), max(LENGTHS))
    ids, mask = (torch.from_numpy(x).long() for x in (batch.tokens_BT, batch.segments_BT))
    model.generation_config.eos_token_id = None   # all 32 are said
    tokens = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=STEPS, pad_token_id=0)
    tokens = tokens[:, max(LENGTHS):].numpy().astype(np.int32)
    whole = inputs.left_pad(sequences(types.SimpleNamespace(tokens_BR=tokens)), LENGTH)
    ids, positions, mask = (torch.from_numpy(x).long() for x in (
        whole.tokens_BT, whole.positions_BT, whole.segments_BT))
    logits = model(input_ids=ids, position_ids=positions, attention_mask=mask).logits.numpy()
  folder = tempfile.TemporaryDirectory(prefix=f"sftrl-{family}-")
  model.save_pretrained(folder.name)
  files = {"config": json.loads(Path(folder.name, "config.json").read_text()), "shapes": shapes}
  return types.SimpleNamespace(folder=folder, files=files, tokens_BR=tokens, logits_BTV=logits, places=range(LENGTH))


@functools.cache
def by_goldens(family):
  """The same from tests/goldens, with logits at PLACES only."""
  from safetensors.numpy import save_file

  with np.load(GOLDENS) as kept:
    files, tokens, logits = (kept[f"{family}/{name}"] for name in ("made", "tokens", "logits"))
  files = json.loads(files.tobytes())
  folder = tempfile.TemporaryDirectory(prefix=f"sftrl-{family}-")
  Path(folder.name, "config.json").write_text(json.dumps(files["config"]))
  save_file({name: weights(family, name, tuple(shape)) for name, shape in files["shapes"].items()},
            Path(folder.name, "model.safetensors"))
  return types.SimpleNamespace(folder=folder, files=files, tokens_BR=tokens, logits_BTV=logits, places=PLACES)


expected_of = by_torch if TORCH else by_goldens
if not TORCH:
  warnings.warn("torch or transformers is not installed: families are held against tests/goldens/families.npz, which "
                "they wrote once. pip install 'sftrl-jax[test]' has them compared afresh.", stacklevel=1)


@functools.cache
def ours(family):
  """The family loaded by us: model, parameters, logits of whatever rows, and greedy decoding over a cache."""
  loaded = hf.load(expected_of(family).folder.name)
  model = models.build(loaded.config)

  @jax.jit
  def decode(params, prompts):
    """(tokens_BR, logits_BTV) of left-padded prompts, read token by token, and of what is greedily said to them."""
    decoding, (rows, read) = model.decoding(params), prompts.tokens_BT.shape

    def step(carry, place):
      past, said_B = carry
      given = lambda x_BT: jax.lax.dynamic_index_in_dim(x_BT, jnp.minimum(place, read - 1), axis=1, keepdims=False)
      token_B = jnp.where(place < read, given(prompts.tokens_BT), said_B)
      position_B = given(prompts.positions_BT) + jnp.maximum(place - read + 1, 0)
      token = inputs.Inputs(token_B[:, None], position_B[:, None], given(prompts.segments_BT)[:, None])
      hidden, past = model.extend(decoding, past, token)
      logits_BV = model.unembed(decoding, hidden[:, 0])
      said_B = jnp.argmax(logits_BV, -1).astype(jnp.int32)
      return (past, said_B), (said_B, logits_BV)

    start = cache.empty(loaded.config, rows, LENGTH), jnp.zeros(rows, jnp.int32)
    _, (said_TB, logits_TBV) = jax.lax.scan(step, start, jnp.arange(LENGTH))
    return said_TB[read - 1: -1].T, jnp.swapaxes(logits_TBV, 0, 1)

  return types.SimpleNamespace(model=model, params=loaded.params, logits=jax.jit(model.logits), decode=decode)


def fields(batch):
  return tuple(jnp.asarray(x) for x in (batch.tokens_BT, batch.positions_BT, batch.segments_BT))


def same(logits_BTV, expected):
  """Equal to 1e-5 wherever there is a token, of left-padded sequences; to 1e-5 of their deviation where that is > 1."""
  padding = inputs.left_pad(sequences(expected), LENGTH).segments_BT == 0
  for row in range(len(LENGTHS)):
    places = [place for place in expected.places if not padding[row, place]]
    theirs = expected.logits_BTV[row, [list(expected.places).index(place) for place in places]]
    assert theirs.std() > 0.5   # a silent model would agree with anything
    np.testing.assert_allclose(np.asarray(logits_BTV)[row, places], theirs, atol=1e-5 * max(1, theirs.std()), rtol=0)


@families
def test_padded_rows_have_torchs_logits(family):
  mine, expected = ours(family), expected_of(family)
  same(mine.logits(mine.params, *fields(inputs.left_pad(sequences(expected), LENGTH))), expected)


@families
def test_packed_rows_have_torchs_logits(family):
  """Three prompts and one whole sequence in two rows; a third row is padding."""
  mine, expected = ours(family), expected_of(family)
  rows = [*prompts(), sequences(expected)[0]]
  slots = [inputs.Slot(0, 0, 1), inputs.Slot(0, 12, 2), inputs.Slot(0, 17, 3), inputs.Slot(1, 0, 1)]
  packed = np.asarray(mine.logits(mine.params, *fields(inputs.pack(rows, slots, 3, LENGTH))))
  apart = np.zeros((len(LENGTHS), LENGTH, VOCAB), np.float32)
  padded = expected.logits_BTV if TORCH else np.asarray(
      mine.logits(mine.params, *fields(inputs.left_pad(sequences(expected), LENGTH))))   # compared with goldens above
  for index, length in enumerate(LENGTHS):
    apart[index, : length + STEPS] = padded[index, LENGTH - length - STEPS:]
  for index, (row, slot) in enumerate(zip(rows, slots, strict=True)):
    np.testing.assert_allclose(packed[slot.row, slot.start: slot.start + len(row)], apart[index % 3, : len(row)],
                               atol=1e-5 * max(1, apart.std()), rtol=0)


@families
def test_decoding_has_torchs_logits_and_says_the_same_32_tokens(family):
  mine, expected = ours(family), expected_of(family)
  tokens_BR, logits_BTV = mine.decode(mine.params, inputs.left_pad(prompts(), max(LENGTHS)))
  np.testing.assert_array_equal(tokens_BR, expected.tokens_BR)
  same(logits_BTV, expected)


@pytest.mark.skipif(not TORCH, reason="torch is not installed, so nothing opens an export")
@families
def test_an_export_is_the_model_it_was_loaded_from(family, tmp_path):
  import torch
  import transformers

  mine, expected = ours(family), expected_of(family)
  hf.save(tmp_path / "export", mine.model.config, mine.params)
  model, report = transformers.AutoModelForCausalLM.from_pretrained(
      tmp_path / "export", attn_implementation="eager", output_loading_info=True)
  assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
  whole = inputs.left_pad(sequences(expected), LENGTH)
  ids, positions, mask = (torch.from_numpy(x).long() for x in (
      whole.tokens_BT, whole.positions_BT, whole.segments_BT))
  with torch.no_grad():
    logits = model(input_ids=ids, position_ids=positions, attention_mask=mask).logits.numpy()
  np.testing.assert_array_equal(logits, expected.logits_BTV)


@pytest.mark.skipif(not TORCH, reason="torch is not installed, so the goldens stand in for it")
@families
def test_the_goldens_are_what_torch_says_today(family):
  expected, kept = by_torch(family), by_goldens(family)
  np.testing.assert_array_equal(kept.tokens_BR, expected.tokens_BR)
  np.testing.assert_allclose(kept.logits_BTV, expected.logits_BTV[:, PLACES], atol=2e-5)
  left, right = (hf.load(case.folder.name) for case in (expected, kept))
  assert left.config == right.config
  for mine, theirs in zip(jax.tree.leaves(left.params), jax.tree.leaves(right.params), strict=True):
    np.testing.assert_array_equal(mine, theirs)


def write():
  kept = {}
  for family in FAMILIES:
    expected = by_torch(family)
    kept[f"{family}/made"] = np.frombuffer(json.dumps(expected.files).encode(), np.uint8)
    kept[f"{family}/tokens"], kept[f"{family}/logits"] = expected.tokens_BR, expected.logits_BTV[:, PLACES]
  GOLDENS.parent.mkdir(exist_ok=True)
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **kept)
  GOLDENS.write_bytes(buffer.getvalue())
  print(f"{GOLDENS}: {len(buffer.getvalue()):,} bytes")


if __name__ == "__main__":
  write()
