"""A trainer of TRL that waits before each of its steps, so that its steps and ours alternate."""

import contextlib
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sftrl_jax.programs.bench.paired_timing import Work
from sftrl_jax.programs.config.errors import ConfigError

RATE = 1e-12   # of learning


class _Ended(Exception):
  """Ends the trainer's loop before its last step."""


def versions(threads: int) -> str:
  """What the peer is made of. ConfigError where something is missing."""
  try:
    import torch
    import transformers
    import trl
  except ImportError as error:
    raise ConfigError(f"--against=trl needs TRL and torch ({error}): pip install 'sftrl-jax[peers]'.") from error
  return (f"trl {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__} "
          f"({threads} threads)")


def refuse_unlike(rules: Iterable[tuple[str, Any, bool, str, str]]) -> None:
  """ConfigError for the first setting that is compared with nothing.

  rules: (key, value, whether it is compared, a value that is, the reason)
  """
  for key, value, compared, wanted, reason in rules:
    if not compared:
      raise ConfigError(f"--against=trl: config.{key} is {value!r}, but {reason}: use --config.{key}={wanted}.")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """For making a trainer: without the bars of transformers, and its warnings about names that TRL uses."""
  import transformers
  transformers.utils.logging.set_verbosity_error()
  transformers.utils.logging.disable_progress_bar()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    yield


@contextlib.contextmanager
def steps(trainer: Any, threads: int, began: Callable[[], None], ended: Callable[[float], None]) -> Iterator[Work]:
  """Work that is one step of a trainer, whose own loop runs in a thread.

  threads: of torch; began: called before a step; ended: called with its seconds after it
  """
  import torch
  import transformers
  begin, done, start = queue.SimpleQueue(), queue.SimpleQueue(), [0.0]

  class Gate(transformers.TrainerCallback):
    """Lets one step of the trainer through at a time."""

    def on_step_begin(self, *arguments: Any, **more: Any) -> None:
      if not begin.get():
        raise _Ended
      began()
      start[0] = time.perf_counter()

    def on_step_end(self, *arguments: Any, **more: Any) -> None:
      if torch.cuda.is_available():
        torch.cuda.synchronize()
      ended(time.perf_counter() - start[0])
      done.put(None)

  def train() -> None:
    try:
      torch.set_num_threads(threads)
      trainer.train()
      done.put(RuntimeError("TRL's trainer has run all its steps."))
    except _Ended:
      pass
    except BaseException as error:   # which belongs to whoever waits for the step
      done.put(error)

  def work() -> None:
    begin.put(True)
    if (error := done.get()) is not None:
      raise RuntimeError(f"TRL's trainer has failed: {error}") from error

  trainer.remove_callback(transformers.PrinterCallback)   # of the metrics of the whole run
  trainer.add_callback(Gate())
  thread = threading.Thread(target=train, daemon=True)
  thread.start()
  try:
    yield work
  finally:
    begin.put(False)
    thread.join()


def id_tokenizer(vocab: int, ours: Any) -> Any:
  """A tokenizer of transformers with a word for each id of the model: "<5> <17>" is [5, 17]. ours: with pad and eos"""
  import tokenizers
  import transformers
  ids = {word(number): number for number in range(vocab)}
  words = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token=word(0)))
  words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  return transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token=word(ours.pad),
                                              eos_token=word(ours.eos))


def word(number: int) -> str:
  """Of an id. No word is in another one, for special ones are looked for first."""
  return f"<{number}>"
