"""convert: from anything to a directory, once, or one error and nothing written."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.checkpoints import fill, hf, store as stores
from sftrl_jax.main import main
from sftrl_jax.models import DecoderConfig
from sftrl_jax.programs.experiment import build

CONFIG = DecoderConfig(vocab=16, width=8, layers=2, heads=2, qkv_bias=True, context=32)


@pytest.fixture
def model(tmp_path):
  """A directory that is no export of ours."""
  home = tmp_path / "model"
  random = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32)
  hf.save(home, CONFIG, jax.tree.map(draw, fill.shapes_of(CONFIG)))
  fields = json.loads((home / "config.json").read_text())
  (home / "config.json").write_text(json.dumps({key: value for key, value in fields.items() if "sftrl" not in key}))
  return home


def test_a_directory_in_another_dtype(model, tmp_path, capsys):
  assert main(["convert", str(model), str(tmp_path / "half"), "--dtype=bfloat16"]) == 0
  output = capsys.readouterr().out
  assert f"Written: {tmp_path}/half from {model}, a Hugging Face directory" in output and "in bfloat16" in output
  assert "MB of memory" in output and "no tokenizer" in output
  assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
  assert main(["convert", str(tmp_path / "half"), str(tmp_path / "again")]) == 0
  assert (tmp_path / "half/model.safetensors").read_bytes() == (tmp_path / "again/model.safetensors").read_bytes()
  assert "qwen2" in (tmp_path / "again" / "config.json").read_text()


def written(config, home):
  """(a workdir with a checkpoint 4, its model), written by no run: loop/test_session.py tests exports of runs."""
  model, random = build.build_experiment(config, "sft").model, np.random.default_rng(0)
  params = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32), fill.shapes_of(model.config))
  store = stores.manager(home)
  stores.save(store, 4, {"params": {"model": params}}, {"step": 4})
  stores.finish(store)
  store.close()
  (home / "config.json").write_text(json.dumps({"verb": "sft", **config.to_dict()}))
  return model.config, params


def test_a_checkpoint_of_a_run(tiny, tmp_path, capsys):
  home = tmp_path / "run"
  config, params = written(tiny("sft", model__mlp="gated"), home)
  assert main(["convert", f"{home}@4", str(tmp_path / "out"), "--dtype=float32"]) == 0, capsys.readouterr().err
  output = capsys.readouterr().out
  assert f"from {home} at step 4" in output and "no tokenizer" in output
  loaded = hf.load(tmp_path / "out")
  assert dataclasses.replace(loaded.config, context=0) == dataclasses.replace(config, remat="full", unroll=1, context=0)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), loaded.params, params)


def test_a_run_of_a_model_that_nobody_else_has_is_refused_before_it_is_read(tiny, tmp_path, capsys):
  written(tiny("sft"), tmp_path / "run")
  assert main(["convert", str(tmp_path / "run"), str(tmp_path / "out")]) == 1
  assert "llama comes nearest, but has no mlp='plain'" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words, message", [
    (["MODEL", "MODEL"], "is not empty .* and is no export of sftrl"), (["MODEL", "MODEL/config.json"], "is a file"),
    (["nowhere", "OUT"], "'nowhere' is neither the workdir of a run"), (["x.gguf", "OUT"], "no file x.gguf"),
    (["MODEL", "OUT", "--dtype=int8"], "--dtype=int8: it must be one of float32, bfloat16"),
    (["PARENT@3", "OUT"], "is neither the workdir")])
def test_what_cannot_be_is_one_error_and_nothing_is_written(model, tmp_path, capsys, words, message):
  names = {"MODEL": str(model), "OUT": str(tmp_path / "out"), "PARENT": str(tmp_path)}
  for name, path in names.items():
    words = [word.replace(name, path) for word in words]
  before = sorted(tmp_path.rglob("*"))
  assert main(["convert", *words]) == 1
  error = capsys.readouterr().err
  assert error.startswith("error: ") and re.search(message, error), error
  assert sorted(tmp_path.rglob("*")) == before


def shortened(home):
  (home / "model.safetensors").write_bytes((home / "model.safetensors").read_bytes()[:-1])


def without_a_shard(home):
  (home / "model.safetensors").unlink()
  (home / "model.safetensors.index.json").write_text('{"weight_map": {"x": "model-1-of-2.safetensors"}}')


HOSTILE = {
    "is cut off": shortened, "lacks model-1-of-2.safetensors, which its index names": without_a_shard,
    "unknown architecture": lambda home: (home / "config.json").write_text('{"model_type": "gpt2"}'),
    "1 ids beyond the model's vocabulary of 16, such as 'x'": lambda home: (home / "tokenizer.json").write_text(
        '{"model": {"vocab": {"x": 16}}}'),
    "can run code": lambda home: (home / "model.safetensors").rename(home / "pytorch_model.bin"),
    "12 missing": lambda home: (home / "config.json").write_text((home / "config.json").read_text().replace(
        '"num_hidden_layers": 2', '"num_hidden_layers": 3').replace('"layer_types"', '"-"')),
    "no sound JSON": lambda home: (home / "config.json").write_bytes(b'{"model_type": "\xff'),
}


@pytest.mark.parametrize("message", HOSTILE)
def test_a_directory_that_is_broken_is_one_error_and_nothing_is_written(model, tmp_path, capsys, message):
  HOSTILE[message](model)
  assert main(["convert", str(model), str(tmp_path / "out")]) == 1
  error = capsys.readouterr().err
  assert message in error and error.count("error: ") == 1 and "Traceback" not in error
  assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("words", [[], ["a"], ["a", "b", "c"], ["a", "b", "-x"], ["a", "b", "--config.seed=1"]])
def test_wrong_words_are_misuse(words, capsys):
  assert main(["convert", *words]) == 2
