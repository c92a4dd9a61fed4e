"""The sections of a config that programs bring themselves."""

import dataclasses

import pytest

from sftrl_jax.data.demonstrations import DemonstrationsConfig
from sftrl_jax.data.rows import RowsConfig
from sftrl_jax.models import DecoderConfig
from sftrl_jax.programs.experiment import sections
from sftrl_jax.programs.start.pretrained import PretrainedConfig


@pytest.mark.parametrize("fields, word",
                         [(dict(microbatches=0), "microbatches"), (dict(logit_chunk=-1), "logit_chunk"),
                          (dict(lengths=0), "lengths"), (dict(lengths=1000), "lengths")])
def test_numbers_out_of_range_name_their_key(fields, word):
  with pytest.raises(ValueError, match=f"^{word} is"):
    sections.ComputeConfig(**fields)


@pytest.mark.parametrize("fields, word", [
    (dict(tasks=("a", "b", "a")), "tasks"), (dict(tasks=("",)), "tasks"), (dict(task_limit=-1), "task_limit"),
    (dict(task_shots=-2), "task_shots")])
def test_tasks_are_named_once(fields, word):
  with pytest.raises(ValueError, match=f"^{word} is"):
    sections.EvalsConfig(**fields)


def test_a_name_chooses_the_section_of_a_model_and_a_path_that_of_data():
  assert sections.model_section({}) is sections.model_section({"name": "decoder"}) is DecoderConfig
  assert sections.model_section({"name": "pretrained"}) is PretrainedConfig
  with pytest.raises(ValueError, match="name is 'llama'; known: decoder, .*pretrained, or path/to/file.py:Class"):
    sections.model_section({"name": "llama"})
  assert sections.data_section({}) is DemonstrationsConfig and sections.data_section({"path": "x.jsonl"}) is RowsConfig


def test_every_section_is_a_frozen_config():
  for section in sections.SHARED.values():
    if dataclasses.is_dataclass(section):
      assert section.__name__.endswith("Config") and section.__dataclass_params__.frozen
