"""convert: from anything to a directory, once, or one error and nothing written."""

import json

import jax
import numpy as np
import pytest

from sftrl_jax.checkpoints import hf
from sftrl_jax.main import main
from sftrl_jax.models import DecoderConfig, build

CONFIG = DecoderConfig(vocab=16, width=8, layers=2, heads=2, qkv_bias=True, context=32)


@pytest.fixture
def model(tmp_path):
  """A directory that is no export of ours."""
  home = tmp_path / "model"
  hf.save(home, CONFIG, build(CONFIG).init(jax.random.key(0)))
  told = json.loads((home / "config.json").read_text())
  (home / "config.json").write_text(json.dumps({name: value for name, value in told.items() if "sftrl" not in name}))
  return home


def test_a_directory_in_another_dtype(model, tmp_path, capsys):
  assert main(["convert", str(model), str(tmp_path / "half"), "--dtype=bfloat16"]) == 0
  told = capsys.readouterr().out
  assert f"Written: {tmp_path}/half from {model}, a Hugging Face directory" in told and "in bfloat16" in told
  assert "MB of memory" in told and "no tokenizer" in told
  assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
  assert main(["convert", str(tmp_path / "half"), str(tmp_path / "again")]) == 0
  assert (tmp_path / "half/model.safetensors").read_bytes() == (tmp_path / "again/model.safetensors").read_bytes()
  assert "qwen2" in (tmp_path / "again" / "config.json").read_text()


def test_a_checkpoint_of_a_run(finished, tmp_path, capsys):
  """Of adapters: they are merged into their base."""
  from sftrl_jax.programs import recorded
  from sftrl_jax.programs.setup import assemble
  home = finished("lora")
  assert main(["convert", f"{home}@2", str(tmp_path / "out")]) == 0, capsys.readouterr().err
  assert f"from {home} at step 2" in capsys.readouterr().out
  loaded = hf.load(tmp_path / "out")
  parts = assemble(recorded.config_of(home, []), "sft", home)
  params, _ = recorded.parameters(parts, home, 2)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), loaded.params, params)


@pytest.mark.parametrize("words, told", [
    (["MODEL", "MODEL"], "is not empty .* and is no export of sftrl"), (["MODEL", "MODEL/config.json"], "is a file"),
    (["nowhere", "OUT"], "'nowhere' is neither the workdir of a run"), (["x.gguf", "OUT"], "no file x.gguf"),
    (["MODEL", "OUT", "--dtype=int8"], "--dtype=int8: it must be one of float32, bfloat16"),
    (["PARENT@3", "OUT"], "is neither the workdir")])
def test_what_cannot_be_is_one_error_and_nothing_is_written(model, tmp_path, capsys, words, told):
  names = {"MODEL": str(model), "OUT": str(tmp_path / "out"), "PARENT": str(tmp_path)}
  for name, path in names.items():
    words = [word.replace(name, path) for word in words]
  before = sorted(tmp_path.rglob("*"))
  assert main(["convert", *words]) == 1
  error = capsys.readouterr().err
  assert error.startswith("error: ") and pytest.importorskip("re").search(told, error), error
  assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", [[], ["a"], ["a", "b", "c"], ["a", "b", "-x"], ["a", "b", "--config.seed=1"]])
def test_wrong_words_are_misuse(words, capsys):
  assert main(["convert", *words]) == 2
