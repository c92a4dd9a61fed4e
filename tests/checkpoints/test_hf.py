"""A directory becomes a model and a directory again; what is wrong with one is one error."""

import json

import jax
import numpy as np
import pytest

from sftrl_jax import models
from sftrl_jax.checkpoints import hf, safetensors, source
from sftrl_jax.checkpoints.families import FAMILIES
from sftrl_jax.models import DecoderConfig
from sftrl_jax.parallel import mesh as meshes


def bits(home):
  return {name: (entry.dtype, entry.shape, np.asarray(entry.read()).tobytes())
          for name, entry in safetensors.entries(home).items()}


# Those that read pictures: tests/models/vision.
@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if not hasattr(family, "CONFIG")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_come_through_bit_for_bit(make, tmp_path, family, dtype):
  home = make(family, dtype)
  loaded = hf.load(home, dtype)
  assert loaded.config.dtype == dtype == hf.dtype_of(home) and loaded.tokenizer is None
  hf.save(tmp_path / "again", loaded.config, loaded.params)
  assert bits(tmp_path / "again") == bits(home)
  assert hf.describe(tmp_path / "again") == hf.describe(home)


def test_a_model_is_spread_over_a_mesh(make):
  home = make("qwen2", files=3)
  mesh = meshes.make(meshes.MeshConfig(data=2, fsdp=2, tensor=2), jax.devices())
  whole, spread = hf.load(home).params, hf.load(home, mesh=mesh).params
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), whole, spread)
  assert spread["layers"]["block"]["attn"]["q"]["kernel"].sharding.mesh == mesh


def rewritten(home, change):
  package = pytest.importorskip("safetensors.numpy")
  there = package.load_file(home / "model.safetensors")
  change(there)
  package.save_file(there, home / "model.safetensors")


def test_missing_surplus_and_misshapen_tensors_are_one_report(make):
  def change(there):
    there["model.layers.3.mlp.up_proj.weight"] = there.pop("model.layers.2.mlp.up_proj.weight")
    there["model.norm.weight"] = np.zeros(25, np.float32)
  home = make()
  rewritten(home, change)
  with pytest.raises(ValueError) as caught:
    hf.load(home)
  assert all(part in str(caught.value) for part in (
      "1 missing: model.layers.2.mlp.up_proj.weight", "does not have: model.layers.3.mlp.up_proj.weight",
      "model.norm.weight is [25] instead of [24]"))


def test_buffers_and_a_second_copy_of_a_tied_embedding_are_let_be(make):
  home = make(tie_word_embeddings=True)
  rewritten(home, lambda there: there.update({
      "lm_head.weight": there["model.embed_tokens.weight"],
      "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, "f")}))
  assert "unembed" not in hf.load(home).params
  home = make(name="untied")
  rewritten(home, lambda there: there.pop("lm_head.weight"))
  with pytest.raises(ValueError, match="holds no lm_head.weight.*set tie_word_embeddings to true"):
    hf.load(home)


HEADS = {   # what is done to the tensors of a model whose config.json ties head and embedding -> whether it is tied
    "a head of its own": (lambda there: there.update(
        {"lm_head.weight": there["model.embed_tokens.weight"] + np.eye(40, 24, dtype="f")}), False),
    "a head of one more bit": (lambda there: there.update({"lm_head.weight": np.nextafter(
        there["model.embed_tokens.weight"], np.float32(np.inf))}), False),
    "the same head": (lambda there: there.update({"lm_head.weight": there["model.embed_tokens.weight"].copy()}), True),
    "the head alone": (lambda there: there.update({"lm_head.weight": there.pop("model.embed_tokens.weight")}), True),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_tied_flags_mean_what_transformers_says(make, tmp_path, head, family):
  change, tied = HEADS[head]
  home = make(family, tie_word_embeddings=True)
  rewritten(home, change)
  loaded = hf.load(home)
  assert loaded.config.tie_embeddings == tied == ("unembed" not in loaded.params)
  hf.save(tmp_path / "out", loaded.config, loaded.params, None, home)
  values = json.loads((tmp_path / "out" / "config.json").read_text())
  assert values["tie_word_embeddings"] == tied and values["rms_norm_eps"] == 1e-6
  assert hf.describe(tmp_path / "out") == loaded.config
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  tokens = np.arange(6)[None] * 5
  ours = np.asarray(models.build(loaded.config).logits(loaded.params, tokens))
  for directory in (home, tmp_path / "out"):
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    theirs = model(torch.tensor(tokens)).logits.detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_weights_are_held_against_the_config_before_any_is_read(make):
  home = make(num_hidden_layers=2)
  values = json.loads((home / "config.json").read_text())
  (home / "config.json").write_text(json.dumps({**values, "num_hidden_layers": 1, "head_dim": 4}))
  with pytest.raises(ValueError, match=r"9 that this model does not have: model.layers.1.*is \[32, 24\] instead of"):
    hf.load(home)


@pytest.mark.parametrize("text, message", [
    ('{"model_type": "gpt9"}', "unknown architecture; known: llama"), ("[]", "must be a table"), ("{", "no sound JSON"),
    (b"\xff\xfe", "no sound JSON"), (None, "holds no config.json")])
def test_a_directory_of_no_known_model_is_told(tmp_path, text, message):
  if text is not None:
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(ValueError, match=message):
    hf.describe(tmp_path)


@pytest.mark.parametrize("words, beyond", [({"a": 0, "b": 40}, "'b'"), ({"a": 39}, ""), ([["a", 0.0]] * 41, "'a'")])
def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path, words, beyond):
  (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}, "added_tokens": [
      {"content": "<image_soft_token>", "id": 40}]}))
  if not beyond:
    return hf.refuse_larger(tmp_path, 40)
  with pytest.raises(ValueError, match=f"1 ids beyond the model's vocabulary of 40, such as {beyond}"):
    hf.refuse_larger(tmp_path, 40)


@pytest.mark.parametrize("table", [{}, {"model": []}, {"model": {"vocab": {"a": "b"}}},
                                  {"model": {}, "added_tokens": [3]}])
def test_a_torn_tokenizer_is_told(tmp_path, table):
  (tmp_path / "tokenizer.json").write_text(json.dumps(table))
  with pytest.raises(ValueError, match="tokenizer.json is no sound tokenizer"):
    hf.refuse_larger(tmp_path, 40)


def test_ends_are_those_of_generation_before_those_of_the_model(tmp_path):
  assert hf.stops(tmp_path) == ()
  (tmp_path / "config.json").write_text('{"eos_token_id": 7}')
  assert hf.stops(tmp_path) == (7,)
  (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
  assert hf.stops(tmp_path) == (5, 6)


@pytest.mark.parametrize("changes, message", [
    (dict(num_hidden_layers=10**9), "num_hidden_layers is 1000000000; it must be at most 10000"),
    (dict(num_hidden_layers=10**400), "num_hidden_layers is a number of more than 30 digits"),
    (dict(hidden_size=10**12), "hidden_size is 1000000000000"), (dict(vocab_size=2**70), "vocab_size is"),
    (dict(rms_norm_eps=float("nan")), "rms_norm_eps is nan"), (dict(rope_theta="x"), "rope_theta is 'x'"),
    (dict(model_type="evil", auto_map={"AutoModelForCausalLM": "evil.Model"}), "Its code .auto_map. is not run"),
    (dict(quantization_config={"quant_method": "gptq"}), "quantization_config is")], ids=str)
def test_a_config_that_lies_is_refused_before_anything_of_its_size_is_made(make, changes, message):
  home = make()
  values = json.loads((home / "config.json").read_text())
  (home / "config.json").write_text(json.dumps({**values, **changes}))
  (home / "evil.py").write_text("raise SystemExit('was run')")
  with pytest.raises(ValueError, match=message):
    hf.load(home)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_json_that_is_too_deep_is_told(make, name):
  home = make(files=2)
  (home / name).write_text("[" * 100_000)
  assert source.is_hf(home)
  with pytest.raises(ValueError, match=f"{name} is (no sound JSON|damaged)"):
    hf.load(home)


@pytest.mark.parametrize("ends", ["2", [[2]], {"a": 1}, True, 2.5])
def test_ends_that_are_no_ids_are_told(tmp_path, ends):
  pytest.importorskip("transformers")
  from tokenizers import Tokenizer, models as pieces
  from transformers import PreTrainedTokenizerFast
  made = Tokenizer(pieces.BPE({"a": 0, "</s>": 1}, []))
  PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>").save_pretrained(tmp_path)
  (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
  with pytest.raises(ValueError, match="end responses at id .* mend eos_token_id in generation_config.json"):
    hf.tokenizer(tmp_path, DecoderConfig(vocab=2, width=8, heads=2))
