"""An export is whole or not there, replaces nothing but an export, and says what the model is."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.checkpoints import export, families, fill, hf, safetensors
from sftrl_jax.inputs import right_pad
from sftrl_jax.models import DecoderConfig, build

CONFIG = DecoderConfig(vocab=16, width=8, layers=2, heads=2, context=32)


@pytest.fixture(scope="module")
def params():
  random = np.random.default_rng(0)
  return jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32), fill.shapes_of(CONFIG))


def test_large_models_are_written_as_several_files_and_an_index(params, tmp_path, monkeypatch):
  hf.save(tmp_path / "one", CONFIG, params)
  monkeypatch.setattr(export, "LARGEST", 1000)
  hf.save(tmp_path / "many", CONFIG, params)
  index = json.loads((tmp_path / "many" / safetensors.INDEX).read_text())
  files = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
  assert files == sorted(set(index["weight_map"].values()))
  assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
  assert 2 < len(files) and index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  assert all(sum(entry.read().nbytes for entry in safetensors.header(tmp_path / "many" / file).values()) <= 1024
             for file in files)
  for name, entry in safetensors.entries(tmp_path / "one").items():
    assert (entry.read() == safetensors.entries(tmp_path / "many")[name].read()).all()


def test_only_exports_are_replaced(params, tmp_path):
  home = tmp_path / "new" / "model"
  hf.save(home, CONFIG, params)
  (home / "leftover").touch()
  hf.save(home, CONFIG, params)
  assert sorted(path.name for path in home.iterdir()) == ["config.json", "model.safetensors"]
  assert [path.name for path in home.parent.iterdir()] == ["model"]
  (tmp_path / "mine").mkdir()
  hf.save(tmp_path / "mine", CONFIG, params)   # empty
  (home / "config.json").write_text("{}")
  with pytest.raises(ValueError, match="is not empty .* and is no export of sftrl"):
    hf.save(home, CONFIG, params)
  (tmp_path / "file").touch()
  with pytest.raises(ValueError, match="is a file"):
    hf.save(tmp_path / "file", CONFIG, params)


def test_what_a_killed_export_left_is_cleared_away(params, tmp_path):
  (tmp_path / ".model.partial").mkdir()
  (tmp_path / ".model.partial" / "model.safetensors").write_bytes(b"half")
  hf.save(tmp_path / "model", CONFIG, params)
  assert [path.name for path in tmp_path.iterdir()] == ["model"] and hf.load(tmp_path / "model").config == CONFIG


def test_an_export_that_fails_leaves_what_was_there(params, tmp_path):
  def full(_):
    raise OSError("No space left on device")
  words = types.SimpleNamespace(eos=2, stops=(2,), bos=1, pad=0, save=full)
  with pytest.raises(OSError, match="No space"):
    hf.save(tmp_path / "model", CONFIG, params, words)
  assert not list(tmp_path.iterdir())
  hf.save(tmp_path / "model", CONFIG, params)
  with pytest.raises(OSError, match="No space"):
    hf.save(tmp_path / "model", CONFIG, params, words)
  assert [path.name for path in tmp_path.iterdir()] == ["model"] and hf.load(tmp_path / "model").config == CONFIG


def test_a_model_of_no_family_and_a_dtype_of_none_are_refused_before_anything_is_written(params, tmp_path):
  with pytest.raises(ValueError, match="llama comes nearest, but has no mlp='plain'"):
    hf.save(tmp_path / "model", DecoderConfig(vocab=16, width=8, layers=2, heads=2, mlp="plain"), params)
  with pytest.raises(ValueError, match="int32, which is not written"):
    hf.save(tmp_path / "model", CONFIG, jax.tree.map(lambda x: x.astype("int32"), params))
  assert not list(tmp_path.iterdir())


def test_ids_that_open_and_end_are_written_and_a_likeness_keeps_its_own_words(params, tmp_path):
  words = types.SimpleNamespace(eos=2, stops=(5, 2), bos=1, pad=None)
  hf.save(tmp_path / "first", CONFIG, params, words)
  values, generation = (json.loads((tmp_path / "first" / name).read_text()) for name in (
      "config.json", "generation_config.json"))
  assert generation == {"bos_token_id": 1, "eos_token_id": [2, 5]} and hf.stops(tmp_path / "first") == (2, 5)
  assert values["architectures"] == ["LlamaForCausalLM"]
  assert values["dtype"] == "float32" and values["bos_token_id"] == 1
  (tmp_path / "first" / "config.json").write_text(json.dumps({**values, "own": 3, "rope_theta": 10_000}))
  hf.save(tmp_path / "second", CONFIG, params, None, tmp_path / "first")
  assert json.loads((tmp_path / "second" / "config.json").read_text())["own"] == 3
  assert hf.stops(tmp_path / "second") == (2, 5)
  (tmp_path / "first" / "config.json").write_text(json.dumps({**values, "own": 3, "rms_norm_eps": 0.1}))
  hf.save(tmp_path / "third", CONFIG, params, None, tmp_path / "first")
  assert "own" not in json.loads((tmp_path / "third" / "config.json").read_text())


SCORERS = sorted(name for name in families.FAMILIES if export.SCORERS.get(name, "") is not None)
TEXTS = [[5, 2, 7, 2], [5, 9], [3, 1, 4, 1, 5, 9, 2]]   # 2 ends a response, and stands in one too


@pytest.mark.parametrize("family", SCORERS)
def test_transformers_gives_the_scores_of_a_reward_model(make, tmp_path, family):
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  home = make(family, eos_token_id=2, pad_token_id=0)
  loaded, random = hf.load(home), np.random.default_rng(1)
  head = export.ScoreHead(random.normal(size=loaded.config.width).astype(np.float32), 0.5, {"mean": 2.0, "sd": 3.0})
  hf.save(tmp_path / "out", loaded.config, loaded.params, None, home, head)
  values = json.loads((tmp_path / "out" / "config.json").read_text())
  assert values["model_type"] == family and values[export.REWARD] == {"bias": 0.5, "mean": 2.0, "sd": 3.0}
  hidden_BTD = np.asarray(build(loaded.config).hidden(loaded.params, right_pad(TEXTS, 8)))
  ours = np.asarray([hidden_BTD[row, len(ids) - 1] @ head.kernel for row, ids in enumerate(TEXTS)])
  model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", dtype=torch.float32)
  padded = torch.tensor([ids + [0] * (8 - len(ids)) for ids in TEXTS])
  scores = model(padded, attention_mask=(padded != 0).long()).logits.detach().numpy()
  assert scores.shape == (3, 1)
  np.testing.assert_allclose(scores[:, 0], ours, rtol=1e-4, atol=1e-4)


def test_padding_that_ends_a_response_too_is_not_named(make, tmp_path):
  """transformers would read the score before the end."""
  home = make("llama", eos_token_id=[2, 5], pad_token_id=2)
  loaded = hf.load(home)
  hf.save(tmp_path / "out", loaded.config, loaded.params, None, home, export.ScoreHead(np.zeros(24, np.float32), 0.0))
  values = json.loads((tmp_path / "out" / "config.json").read_text())
  assert values["pad_token_id"] is None and values["eos_token_id"] == [2, 5] and values[export.REWARD] == {"bias": 0.0}
  assert values["architectures"] == ["LlamaForSequenceClassification"] and values["id2label"] == {"0": "score"}
  assert not (tmp_path / "out" / "generation_config.json").exists()


def test_a_family_without_a_class_for_scores_is_named(make, tmp_path):
  loaded = hf.load(make("granite"))
  with pytest.raises(ValueError, match="no class for a reward model of the family granite"):
    hf.save(tmp_path / "out", loaded.config, loaded.params, None, "", export.ScoreHead(np.zeros(24, np.float32), 0.0))
  assert not (tmp_path / "out").exists()
