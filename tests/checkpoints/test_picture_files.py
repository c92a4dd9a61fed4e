"""How a model reads pictures comes from the files beside it, and is written back."""

import dataclasses
import json

import pytest

from sftrl_jax.checkpoints import picture_files
from sftrl_jax.models import DecoderConfig
from sftrl_jax.models.vision.idefics3 import Idefics3Config

CONFIG = Idefics3Config(vocab=48, image_id=40, patch=4, tower_side=4, image_height=16, image_width=16, shuffle=2)
VALUES = {"size": {"longest_edge": 48}, "max_image_size": {"longest_edge": 16}, "resample": 3,
          "do_image_splitting": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "custom": 1}


@pytest.fixture
def home(tmp_path):
  """home(**{file name without .json: table}) -> a directory."""
  def write(**tables):
    for name, table in tables.items():
      (tmp_path / f"{name}.json").write_text(json.dumps(table))
    return tmp_path
  return write


def test_both_spellings_are_read(home):
  config = picture_files.described(home(preprocessor_config=VALUES), CONFIG)
  assert (config.image_longest, config.image_resample, config.images) == (48, "bicubic", 10)
  (home() / "preprocessor_config.json").unlink()
  inside = home(processor_config={"image_processor": VALUES, "image_seq_len": 4})
  assert picture_files.described(inside, CONFIG) == config


def test_without_files_and_for_a_model_of_text_nothing_changes(home):
  assert picture_files.described(home(), CONFIG) is CONFIG
  text = DecoderConfig(vocab=8)
  assert picture_files.described(home(preprocessor_config=VALUES), text) is text
  assert picture_files.written(text, home()) == {}


def test_files_that_still_hold_are_written_as_they_were_and_others_anew(home, tmp_path):
  like = home(preprocessor_config=VALUES, processor_config={"image_seq_len": 4, "more": 2})
  config = picture_files.described(like, CONFIG)
  kept = picture_files.written(config, like)
  assert kept == {"preprocessor_config.json": VALUES, "processor_config.json": {"image_seq_len": 4, "more": 2}}
  fresh = picture_files.written(dataclasses.replace(config, image_splitting=False), like)
  assert fresh["preprocessor_config.json"]["do_image_splitting"] is False
  (tmp_path / "preprocessor_config.json").write_text(json.dumps(fresh["preprocessor_config.json"]))
  assert picture_files.described(tmp_path, CONFIG).image_splitting is False


@pytest.mark.parametrize(("name", "table", "message"), [
    ("processor_config", {"image_processor": VALUES, "image_seq_len": 64}, "image_seq_len is 64"),
    ("preprocessor_config", {**VALUES, "do_normalize": False}, "do_normalize"),
    # 5 patches of a side, which pixel shuffle by 2 does not divide
    ("preprocessor_config", {**VALUES, "max_image_size": {"longest_edge": 20}}, "preprocessor_config.json: shuffle"),
    ("processor_config", {"image_processor": [1]}, "image_processor")])
def test_what_cannot_be_is_refused_with_the_file(home, name, table, message):
  with pytest.raises(ValueError, match=message):
    picture_files.described(home(**{name: table}), CONFIG)


def test_a_damaged_file_is_refused(tmp_path):
  (tmp_path / "preprocessor_config.json").write_text("{")
  with pytest.raises(ValueError, match="no sound JSON"):
    picture_files.described(tmp_path, CONFIG)
