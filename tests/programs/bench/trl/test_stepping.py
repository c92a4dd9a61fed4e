"""A trainer's steps run when they are asked for, and its errors belong to whoever asks."""

import types

import pytest

from sftrl_jax.programs.bench.trl import stepping
from sftrl_jax.programs.config.errors import ConfigError


class Trainer:
  """The loop of a trainer of transformers, with a step that counts."""

  def __init__(self, steps, fails=False):
    self.steps, self.fails, self.done, self.callbacks = steps, fails, 0, []

  def add_callback(self, callback):
    self.callbacks.append(callback)

  def remove_callback(self, callback):
    pass

  def train(self):
    for _ in range(self.steps):
      for callback in self.callbacks:
        callback.on_step_begin()
      if self.fails:
        raise OSError("no disk")
      self.done += 1
      for callback in self.callbacks:
        callback.on_step_end()


def test_a_step_runs_when_it_is_asked_for_and_the_loop_ends_with_the_block():
  trainer, began, seconds = Trainer(9), [], []
  with stepping.steps(trainer, 1, lambda: began.append(trainer.done), seconds.append) as work:
    assert trainer.done == 0
    for number in range(3):
      work()
      assert trainer.done == number + 1
  assert began == [0, 1, 2] and len(seconds) == 3 and min(seconds) >= 0 and trainer.done == 3


@pytest.mark.parametrize("trainer, message", [(Trainer(9, fails=True), "no disk"), (Trainer(0), "all its steps")])
def test_a_trainer_that_fails_or_ends_says_so_to_whoever_waits(trainer, message):
  with stepping.steps(trainer, 1, lambda: None, lambda seconds: None) as work:
    with pytest.raises(RuntimeError, match=message):
      work()


def test_an_id_is_a_word_that_is_read_back():
  tokenizer = stepping.id_tokenizer(12, types.SimpleNamespace(pad=0, eos=3))
  assert tokenizer(" ".join(map(stepping.word, (1, 11, 3))))["input_ids"] == [1, 11, 3]


def test_a_setting_that_is_not_compared_is_named_with_the_way_out():
  stepping.refuse_unlike([("a.key", 1, True, "1", "it is compared")])
  with pytest.raises(ConfigError, match="config.b.key is 2, but it is not compared: use --config.b.key=1"):
    stepping.refuse_unlike([("a.key", 1, True, "1", "-"), ("b.key", 2, False, "1", "it is not compared")])
