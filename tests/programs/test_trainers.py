"""A kind of training and its program have one name, and both train on pictures."""

import json
import math

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

from sftrl_jax import paths, trees
from sftrl_jax.inputs import right_pad
from sftrl_jax.models import lora
from sftrl_jax.programs import data, rl, sft
from sftrl_jax.programs.config import nested
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.start import initial_params
from sftrl_jax.programs.trainers import TRAINERS
from sftrl_jax.text.images import with_pictures
from sftrl_jax.text.render import pictures, render


def test_every_kind_of_training_has_the_program_of_its_name():
  assert set(TRAINERS) == set(KINDS)
  assert TRAINERS["sft"] is sft.run and TRAINERS["rl"] is rl.run


def params_of(workdir, step):
  path = paths.absolute(workdir / "checkpoints" / str(step) / "state")
  return trees.leaves(jax.device_get(ocp.StandardCheckpointer().restore(path)))


@pytest.mark.parametrize("name", ["sft", "ppo"])
def test_a_run_on_pictures_trains_the_tower_and_goes_on_as_if_it_had_not_stopped(pictured, run_of, lines_of, tmp_path,
                                                                                 name):
  straight, resumed = tmp_path / "straight", tmp_path / "resumed"
  run_of(pictured(name), straight)
  for steps in (1, 2):
    run_of(pictured(name, steps=steps), resumed)
  one, other, first = params_of(straight, 2), params_of(resumed, 2), params_of(straight, 1)
  assert one.keys() == other.keys() and any("vision/tower" in path for path in one)
  for path, leaf in one.items():
    np.testing.assert_array_equal(leaf, other[path], err_msg=path)
  assert all((leaf != first[path]).any() for path, leaf in one.items() if "params/model/vision" in path)
  lines = lines_of(straight, "metrics.jsonl")
  assert [line["step"] for line in lines] == [1, 2] and all(math.isfinite(line["loss"]) for line in lines)
  if name == "ppo":
    assert lines[-1]["sampling/sampling_logp_difference/max"] < 1e-4
    shown = lines_of(straight, "episodes.jsonl")[0]["chat"][0]
    assert shown["image"].startswith("96x32 sha256:") and len(json.dumps(shown)) < 200   # and no numbers


@pytest.mark.parametrize("name, own", [
    ("sft", dict(optimizer__factors={})),
    ("ppo", dict(lora__targets=("vision/*", "*attn/q"), optimizer__factors={"lora/vision/*": 0.5}))])
def test_adapters_alone_are_trained_on_pictures_and_go_on_as_if_they_had_not_stopped(pictured, run_of, lines_of,
                                                                                      tmp_path, name, own):
  """The tower stays as it was to the bit, unless it is named; what decodes or is loaded has the adapters merged."""
  own = {"lora__rank": 2, "model__connector_std": 1.0, "optimizer__learning_rate": 0.03, "schedule__warmup": 0, **own}
  straight, resumed = tmp_path / "straight", tmp_path / "resumed"
  run_of(pictured(name, **own), straight)
  for steps in (1, 2):
    run_of(pictured(name, steps=steps, **own), resumed)
  trained, other = params_of(straight, 2), params_of(resumed, 2)
  for path, leaf in trained.items():
    np.testing.assert_array_equal(leaf, other[path], err_msg=path)
  adapters = {path.partition("params/lora/")[2]: leaf for path, leaf in trained.items() if "params/lora/" in path}
  assert not any("/model/" in path for path in trained) and all(leaf.any() for leaf in adapters.values())
  adapted = {path.rpartition("/")[0] for path in adapters}
  named = {*(f"vision/tower/conv/{number}" for number in range(3)), "vision/connector/up", "vision/connector/down"}
  assert {path for path in adapted if path.startswith("vision/")} == (named if name == "ppo" else set())
  experiment = build_experiment(pictured(name, **own), "sft" if name == "sft" else "rl")
  load = lambda start: initial_params.load_start(start, experiment.model, 0, experiment.mesh)
  base, merged = load("scratch"), load(str(straight))
  for path, leaf in trees.leaves(base).items():
    same = np.array_equal(leaf, trees.leaves(merged)[path])
    assert same == (path.rpartition("/")[0] not in adapted), path
  batch = rows_of_pictures(experiment)
  logits = lambda params: np.asarray(jax.jit(experiment.model.logits)(params, *jax.tree.leaves(batch)))
  beside = lora.attach(base, traverse_util.unflatten_dict(adapters, sep="/"), experiment.lora)
  np.testing.assert_allclose(logits(merged), logits(beside), atol=1e-4)
  assert np.abs(logits(merged) - logits(base)).max() > 1e-2
  if name == "ppo":
    assert max(line["sampling/sampling_logp_difference/max"] for line in lines_of(straight, "metrics.jsonl")) < 1e-4


def rows_of_pictures(experiment):
  """Inputs of three first prompts of the task, right-padded."""
  chats = [experiment.env.reset(seed)[1] for seed in range(3)]
  ids = [render(experiment.tokenizer, chat)[0] for chat in chats]
  return with_pictures(experiment.tokenizer.reader, right_pad(ids, 12),
                       [pictures(experiment.tokenizer, chat) for chat in chats])


def test_rows_that_were_written_train_as_the_stream_does(pictured, run_of, lines_of, tmp_path):
  """An example is a row, so both read the same batches: the same ids, labels and pixels, and losses to the bit."""
  plain = json.loads(json.dumps(nested.plain(pictured("sft"))))
  data.run(plain, tmp_path / "rows.jsonl", count=16)
  run_of(pictured("sft"), tmp_path / "stream")
  run_of(pictured("sft", data__path=tmp_path / "rows.jsonl", data__shuffle=False, data__pack=False),
         tmp_path / "file")
  stream, file = ([(line["loss"], line["grad_norm"]) for line in lines_of(tmp_path / name, "metrics.jsonl")]
                  for name in ("stream", "file"))
  assert stream == file and len(file) == 2
  assert json.loads((tmp_path / "file" / "data.json").read_text())["pictures"] == [16, 16]


def test_a_model_of_text_is_not_given_pictures(pictured):
  with pytest.raises(ConfigError, match="use a vision-language model"):
    build_experiment(_of_text(pictured("sft")), "sft")


def _of_text(config):
  with config.unlocked():
    config.model = {key: value for key, value in config.model.to_dict().items()
                    if key not in ("image_id", "image_height", "image_width", "images", "channels", "connector",
                                   "connector_std", "pixel_scale", "cell")} | {"name": "decoder"}
    config.optimizer.factors = {}
  return config
