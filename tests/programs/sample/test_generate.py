"""Speaking in pieces is speaking at once: the same tokens as the loop of training gives, whatever is cut where."""

import jax
import numpy as np
import pytest

from sftrl_jax.programs.sample.generate import (
  NARROWEST,
  WIDEST,
  cache_len_of,
  continue_conversation,
  responses,
  start_conversation,
  widths,
)
from sftrl_jax.programs.sample.stopping import StopConditions


@pytest.fixture(scope="module")
def likeliest(speaker):
  """likeliest(ids, count): greedy continuation by whole forward passes, no cache."""
  model = speaker.model
  params = jax.jit(model.init)(jax.random.key(3))   # those that the speaker's are made of
  forward = jax.jit(model.logits)

  def run(ids, count):
    ids = list(ids)
    for _ in range(count):
      tokens, segments = np.zeros((2, 1, 96), np.int32)
      tokens[0, :len(ids)], segments[0, :len(ids)] = ids, 1
      logits = forward(params, tokens, np.arange(96, dtype=np.int32)[None], segments)
      ids.append(int(np.argmax(logits[0, len(ids) - 1])))
    return tuple(ids[-count:])

  return run


def last(stream):
  *_, (thread, said) = stream
  return thread, said


TEN = StopConditions(10)


def answer(speaker, contexts, until=TEN, temperature=0.0, numbers=None, rows=0, thread=None):
  thread = start_conversation(speaker, contexts, until.max_new_tokens, rows) if thread is None else thread
  return last(responses(speaker, thread, until, temperature, jax.random.key(5), numbers or list(range(len(contexts)))))


def test_pieces_continue_as_whole_forward_passes_do(speaker, likeliest):
  for length in (1, 2, 17):
    context = [1, *range(5, 4 + length)]
    _, (said,) = answer(speaker, [context])
    assert said.tokens == likeliest(context, len(said.tokens))
    assert said.finish == ("stop" if said.tokens[-1] == speaker.tokenizer.eos else "length")


def test_a_conversation_that_goes_on_is_one_that_was_read_at_once(speaker, likeliest):
  first, more = [1, 20, 21, 22], [10, 11, 12]
  thread, (said,) = answer(speaker, [first], StopConditions(6))   # cut inside a piece: what was sampled behind it is forgotten
  thread = continue_conversation(speaker, thread, [more], 10)
  assert thread.counts == (len(first) + 6 + len(more),)
  _, (again,) = answer(speaker, [more], StopConditions(10), thread=thread)
  assert again.tokens == likeliest([*first, *said.tokens, *more], len(again.tokens)) and len(again.tokens) > 4


def test_a_thread_grows_into_a_larger_cache(speaker, likeliest):
  thread, (said,) = answer(speaker, [[1, 5]], StopConditions(4))
  ids = [1, 5, *said.tokens]
  rooms = [thread.room]
  for turn in range(2):
    more = [5 + turn, 6, 7]
    thread = continue_conversation(speaker, thread, [more], 80)
    rooms.append(thread.room)
    thread, (said,) = answer(speaker, [more], StopConditions(4), thread=thread)
    assert said.tokens == likeliest([*ids, *more], 4)
    ids += [*more, *said.tokens]
  assert rooms[-1] > rooms[0]


def test_a_row_says_the_same_whoever_speaks_beside_it(speaker):
  contexts = [[1, 10], [1, *range(8, 20)]]
  alone_ = [answer(speaker, [context], temperature=1.0, numbers=[7 + i])[1][0] for i, context in enumerate(contexts)]
  _, together = answer(speaker, contexts, temperature=1.0, numbers=[7, 8])
  assert [said.tokens for said in together] == [said.tokens for said in alone_]
  np.testing.assert_allclose([said.logprob for said in together], [said.logprob for said in alone_], rtol=1e-4)
  assert len({said.tokens for said in together}) == 2 and all(said.logprob < 0 for said in together)


def test_rows_end_by_themselves(speaker):
  _, free = answer(speaker, [[1, 10], [1, 20]], StopConditions(12))
  string = f" {free[0].text.split(' ')[2]} "
  _, cut = answer(speaker, [[1, 10], [1, 20]], StopConditions(12, (string,)))
  assert cut[0].finish == "stop_string"
  assert [said.text for said in cut] == [said.text.partition(string)[0] for said in free]


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 255, 256, 257, 300, 1000])
def test_prompts_are_read_in_few_widths_with_little_padding(tokens):
  pieces = widths(tokens)
  assert sum(pieces) >= tokens and all(width & (width - 1) == 0 and NARROWEST <= width <= WIDEST for width in pieces)
  assert sum(pieces) - tokens < max(NARROWEST, min(tokens, WIDEST))
  assert tokens <= cache_len_of(tokens) <= max(128, 1.25 * tokens)


def test_nothing_to_read_is_no_piece_and_an_empty_prompt_is_refused(speaker):
  assert widths(0) == []
  with pytest.raises(ValueError, match="no token"):
    start_conversation(speaker, [[1], []], 4)
