"""Generating in pieces gives the tokens of the training loop, wherever the pieces are cut."""

import dataclasses

import jax
import numpy as np
import pytest

from sftrl_jax.models import build
from sftrl_jax.models.vision.mllama.model import MllamaConfig
from sftrl_jax.programs.experiment.network.parts import reading_pictures
from sftrl_jax.programs.sample.generate import (
  NARROWEST,
  WIDEST,
  ChatSettings,
  cache_len_of,
  continue_conversation,
  responses,
  start_conversation,
  widths,
  with_room,
)
from sftrl_jax.programs.sample.stopping import StopConditions
from sftrl_jax.text.tokenizer import words


@pytest.fixture(scope="module")
def likeliest(generator):
  """likeliest(ids, count): greedy continuation by whole forward passes, no cache."""
  model = generator.model
  params = jax.jit(model.init)(jax.random.key(3))   # those of which the generator's are made
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


TEN = StopConditions(10)


def answer(generator, contexts, stop_conditions=TEN, temperature=0.0, numbers=None, rows=0, conversation=None):
  settings = ChatSettings(generator, stop_conditions, temperature, jax.random.key(5))
  if conversation is None:
    conversation = start_conversation(generator, contexts, stop_conditions.max_new_tokens, rows)
  *_, (conversation, generations) = responses(settings, conversation, numbers or list(range(len(contexts))))
  return conversation, generations


def test_pieces_continue_as_whole_forward_passes_do(generator, likeliest):
  for length in (1, 2, 17):
    context = [1, *range(5, 4 + length)]
    _, (generation,) = answer(generator, [context])
    assert generation.tokens == likeliest(context, len(generation.tokens))
    assert generation.finish == ("stop" if generation.tokens[-1] == generator.tokenizer.eos else "length")


def test_a_conversation_that_goes_on_is_one_that_was_read_at_once(generator, likeliest):
  first, more = [1, 20, 21, 22], [10, 11, 12]
  conversation, (generation,) = answer(generator, [first], StopConditions(6))   # cut inside a piece
  conversation = continue_conversation(generator, conversation, [more], 10)
  assert conversation.counts == (len(first) + 6 + len(more),)
  _, (again,) = answer(generator, [more], StopConditions(10), conversation=conversation)
  assert again.tokens == likeliest([*first, *generation.tokens, *more], len(again.tokens)) and len(again.tokens) > 4


def test_a_conversation_grows_into_a_larger_cache(generator, likeliest):
  conversation, (generation,) = answer(generator, [[1, 5]], StopConditions(4))
  ids = [1, 5, *generation.tokens]
  cache_lens = [conversation.cache_len]
  for turn in range(2):
    more = [5 + turn, 6, 7]
    conversation = continue_conversation(generator, conversation, [more], 80)
    cache_lens.append(conversation.cache_len)
    conversation, (generation,) = answer(generator, [more], StopConditions(4), conversation=conversation)
    assert generation.tokens == likeliest([*ids, *more], 4)
    ids += [*more, *generation.tokens]
  assert cache_lens[-1] > cache_lens[0]


def test_a_row_gets_the_same_response_whatever_the_rows_beside_it(generator):
  contexts = [[1, 10], [1, *range(8, 20)]]
  alone_ = [answer(generator, [context], temperature=1.0, numbers=[7 + i])[1][0] for i, context in enumerate(contexts)]
  _, together = answer(generator, contexts, temperature=1.0, numbers=[7, 8])
  assert [generation.tokens for generation in together] == [generation.tokens for generation in alone_]
  logprobs = [generation.logprob for generation in together]
  np.testing.assert_allclose(logprobs, [generation.logprob for generation in alone_], rtol=1e-4)
  assert len({generation.tokens for generation in together}) == 2 and max(logprobs) < 0


def test_rows_end_by_themselves(generator):
  _, free = answer(generator, [[1, 10], [1, 20]], StopConditions(12))
  string = f" {free[0].text.split(' ')[2]} "
  _, cut = answer(generator, [[1, 10], [1, 20]], StopConditions(12, (string,)))
  assert cut[0].finish == "stop_string"
  assert [generation.text for generation in cut] == [generation.text.partition(string)[0] for generation in free]


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 255, 256, 257, 300, 1000])
def test_prompts_are_read_in_few_widths_with_little_padding(tokens):
  pieces = widths(tokens)
  assert sum(pieces) >= tokens and all(width & (width - 1) == 0 and NARROWEST <= width <= WIDEST for width in pieces)
  assert sum(pieces) - tokens < max(NARROWEST, min(tokens, WIDEST))
  assert tokens <= cache_len_of(tokens) <= max(128, 1.25 * tokens)


def test_nothing_to_read_is_no_piece_and_an_empty_prompt_is_refused(generator):
  assert widths(0) == []
  with pytest.raises(ValueError, match="no token"):
    start_conversation(generator, [[1], []], 4)


def test_a_cache_that_keeps_pictures_gets_room_for_those_of_a_row(generator):
  """Llama-3.2-Vision, whose directory does not say how many pictures a row has: here the config says two, or one."""
  tokenizer = words(tuple("abcdefghijklmnopqrstuvwxyz"), image=True)
  config = MllamaConfig(
      vocab=tokenizer.size + 8, width=16, layers=1, heads=2, kv_heads=1, remat="none", init_std=0.6, images=2,
      image_id=tokenizer.image, tile=8, tiles=1, patch=4, tower_side=2, tower_width=8, tower_heads=2, tower_layers=1,
      tower_mlp_dim=8)
  random, logprobs = np.random.default_rng(0), []
  params = jax.jit(build(config, tokenizer.size).init)(jax.random.key(3))
  params = jax.tree.map(lambda x: x + 0.1, params)   # gates begin closed
  images = tuple(random.integers(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(2))
  for images_of_config, shown in ((2, images), (1, images), (1, images[:1] * 2)):
    model = build(dataclasses.replace(config, images=images_of_config), tokenizer.size)
    own = with_room(dataclasses.replace(generator, model=model, tokenizer=reading_pictures(tokenizer, model),
                                        params=jax.jit(model.decoding)(params)), len(shown))
    pictures = [tuple(tile for image in shown for tile in own.tokenizer.reader.pixels(image))]
    conversation = start_conversation(own, [[1, tokenizer.image, tokenizer.image, 5, 6]], 4, pictures=pictures)
    *_, (_, (generation,)) = responses(ChatSettings(own, StopConditions(4), 1.0, jax.random.key(0)), conversation, [0])
    logprobs.append(generation.logprob)
  assert logprobs[0] == logprobs[1] != logprobs[2] and with_room(generator, 9) is generator
