"""A run leaves directories of the model as it is judged; one that nobody else could open is not begun."""

import pathlib
import shutil

import jax
import numpy as np
import pytest

from sftrl_jax import places
from sftrl_jax.checkpoints import hf
from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.programs import exports, settings, start as starts
from sftrl_jax.programs.mistakes import ConfigError
from sftrl_jax.programs.setup import assemble

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "general_points" / "sft.py"
CHANGES = {
    "model.name": "pretrained", "steps": "2", "flops": "0", "batch": "16", "evals.variants": "()", "log.every": "1",
    "log.tensorboard": "False", "mesh.cpu_threads": "0", "checkpoint.export_every": "1", "lora.rank": "2",
    "optimizer.learning_rate": "0.03", "compute.microbatches": "1"}


@pytest.fixture(scope="module")
def exported(tiny, run_of, tmp_path_factory):
  """(config, workdir) of a finished run of adapters on a tiny model from a Hugging Face directory."""
  folder = tmp_path_factory.mktemp("exports")
  words = assemble(tiny("sft"), "sft").tokenizer.size
  born = DecoderConfig(vocab=words, width=16, layers=2, heads=2, kv_heads=1, ffn=24)
  hf.save(folder / "source", born, jax.device_get(jax.jit(build(born).init)(jax.random.key(0))))
  config = settings.resolve_for("sft", settings.load(str(CONFIG)), [
      *CHANGES.items(), ("start", str(folder / "source"))], lambda _: None)
  run_of(config, folder / "run")
  return config, folder / "run"


def test_every_export_is_the_model_of_its_step_with_its_adapters_merged(exported):
  config, home = exported
  assert sorted(path.name for path in (home / "exports").iterdir()) == ["1", "2"]
  parts = assemble(config, "sft", home)
  begun, judged = (starts.load(start, parts.model, 0, parts.mesh) for start in (config.start, str(home)))
  first, last = (hf.load(home / "exports" / step) for step in "12")
  assert last.config == parts.model.config
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), last.params, judged)
  moved = lambda a, b: [bool(np.any(x != y)) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)]
  assert any(moved(first.params, begun)) and any(moved(first.params, last.params))
  np.testing.assert_array_equal(last.params["embed"], begun["embed"])


def test_an_export_that_was_lost_is_made_when_the_run_goes_on(exported, run_of, tmp_path):
  config, home = exported
  again = shutil.copytree(home, tmp_path / "again")
  shutil.rmtree(again / "exports" / "2")
  (again / "progress.json").unlink()
  run_of(config, again)
  read = lambda home: (home / "exports" / "2" / "model.safetensors").read_bytes()
  assert read(again) == read(home)


def test_a_run_in_a_bucket_leaves_the_same_there(exported, run_of, bucket):
  config, home = exported
  there = places.place("gs://bucket/exported/run")
  run_of(config, there)
  for name in ("exports/1/model.safetensors", "exports/2/model.safetensors", "exports/2/config.json",
               "pretrained/config.json", "base.json"):
    assert (there / name).read_bytes() == (home / name).read_bytes(), name
  parts = assemble(config, "sft", there)
  begun, judged = (starts.load(start, parts.model, 0, parts.mesh) for start in (str(there), str(home)))
  jax.tree.map(np.testing.assert_array_equal, begun, judged)


def test_only_pretrained_models_are_exported():
  exports.check({"checkpoint": {"export_every": 0}, "model": {"name": "decoder"}})
  exports.check({"checkpoint": {"export_every": 9}, "model": {"name": "pretrained"}})
  with pytest.raises(ConfigError, match="export_every is 9, but config.model.name is 'decoder'.*model.name=pretrained"):
    exports.check({"checkpoint": {"export_every": 9}, "model": {"name": "decoder"}})
