"""A tiny environment and a tiny model, so that whole conversations take milliseconds."""

import dataclasses
import functools
import random

import jax
import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Verdict
from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.rollout.actor import Actor
from sftrl_jax.rollout.config import RolloutConfig
from sftrl_jax.rollout.episodes import play
from sftrl_jax.rollout.policy import policy
from sftrl_jax.rollout.sample import Sampling
from sftrl_jax.text.tokenizer import words

VOCABULARY = ("a", "b", "c", "d", "e", "f")


@dataclasses.dataclass(frozen=True)
class Guess:
  """Prompts of 1 to 4 words; a response is right if it says the seed's word; feedback of 1 or 2 words.

  long: what is said after the first response of an odd seed has this many words (0: as always).
  """

  attempts: int = 3
  long: int = 0

  def reset(self, seed):
    source = random.Random(seed)
    prompt = " ".join(source.choices(VOCABULARY, k=source.randint(1, 4)))
    chat = (Message("user", prompt),)
    return (seed, VOCABULARY[source.randrange(6)], 0, chat), chat

  def step(self, state, response):
    seed, word, attempt, chat = state
    right = word in response.split(" ")
    over = not right and attempt + 1 >= self.attempts
    feedback = " ".join("b" * (1 + (len(response) + attempt) % 2))
    if self.long and seed % 2 and not attempt:
      feedback = " ".join("c" * self.long)
    chat = (*chat, Message("assistant", response), Message("user", feedback))
    verdict = Verdict(1.0 if right else -0.5, right, over, right, right, feedback, None if right or over else chat,
                      "correct" if right else "value")
    return (seed, word, attempt + 1, chat), verdict


@dataclasses.dataclass(frozen=True)
class Walk:
  """Points with a prompt of their own; a response is right if its first word is of the point's half of the words. A
  right one begins the next point's chat, a wrong one is told so, and the second wrong one at a point ends the episode.

  points: how many there are. claims: whether it says so.
  """

  points: int = 3
  row_attempts: int = 2
  most_rows: int = 3
  claims: bool = True

  @property
  def rewrites_prompt(self):
    return self.claims

  @property
  def attempts(self):
    return 2 * self.points

  def reset(self, seed):
    return self._at(seed, 0)

  def step(self, state, response):
    seed, point, tries, chat = state
    half = VOCABULARY[::2] if (seed + point) % 2 else VOCABULARY[1::2]
    right = response.split(" ")[0] in half
    over, last = not right and tries == 1, right and point + 1 == self.points
    chat = (*chat, Message("assistant", response), Message("user", "b"))
    state = (seed, point, tries + 1, chat)
    if right and not last:
      state, chat = self._at(seed, point + 1)
    return state, Verdict(1.0 if right else -0.5, last, over, right, last, "b", None if last or over else chat,
                          "correct" if right else "value")

  def _at(self, seed, point):
    source = random.Random(f"{seed} {point}")
    chat = (Message("user", " ".join(["a"] * point + source.choices(VOCABULARY, k=source.randint(1, 2)))),)
    return (seed, point, 0, chat), chat


@pytest.fixture(scope="session")
def guess():
  return Guess


@pytest.fixture(scope="session")
def walk():
  return Walk


@pytest.fixture(scope="session")
def tokenizer():
  return words(VOCABULARY)


@pytest.fixture(scope="session")
def model(tokenizer):
  # Large embeddings: the distributions differ from token to token, and so do the lengths of responses.
  return build(DecoderConfig(vocab=tokenizer.size, width=16, layers=2, heads=2, kv_heads=1, remat="none", unroll=2,
                             init_std=0.6))


@pytest.fixture(scope="session")
def params(model):
  return jax.jit(model.init)(jax.random.key(3))


@pytest.fixture(scope="session")
def decoding(model, params):
  return model.decoding(params)


@pytest.fixture(scope="session")
def make_actor(model, tokenizer):
  """make_actor(devices=1, **rollout): compiled once a session."""

  @functools.cache
  def make(devices=1, turns=3, group=1, rewriting=None, **rollout):
    settings = {**dict(rows=16, prompt_tokens=5, feedback_tokens=2, max_new_tokens=4), **rollout}
    mesh = meshes.make(meshes.MeshConfig(), jax.devices()[:devices])
    return Actor(model, tokenizer, RolloutConfig(**settings), Sampling(settings["max_new_tokens"]), turns, mesh, group,
                 rewriting)

  return make


@pytest.fixture(scope="session")
def talk():
  """talk(env, actor, decoding, temperature, ...): the episodes of seeds, all with one key."""

  def run(env, actor, decoding, temperature, seeds=range(16), numbers=None, key=11, group=1):
    numbers = list(seeds) if numbers is None else numbers
    answer = policy(actor, decoding, jax.random.key(key), temperature, numbers, group=group)
    return play(env, answer, list(seeds))[0]

  return run


@pytest.fixture(scope="session")
def ids_of():
  """ids_of(episode): (all ids, places of the sampled ones, their log-probabilities)."""

  def ids(episode):
    ids, places, logprobs = [], [], []
    for turn in episode.turns:
      ids += turn.response.context
      places += range(len(ids), len(ids) + len(turn.response.tokens))
      ids += turn.response.tokens
      logprobs += turn.response.logprobs
    return ids, places, logprobs

  return ids


@pytest.fixture(scope="session")
def full_logits(model, params):
  """full_logits(lists of ids) -> logits [row, token, id] of one forward over whole chats, without any cache."""
  forward = jax.jit(model.logits)

  def run(ids):
    tokens, segments = np.zeros((2, len(ids), 32), np.int32)
    for row, items in enumerate(ids):
      tokens[row, : len(items)], segments[row, : len(items)] = items, 1
    positions = np.broadcast_to(np.arange(32, dtype=np.int32), tokens.shape)
    return np.asarray(forward(params, tokens, positions, segments), np.float64)

  return run


@pytest.fixture(scope="session")
def chatml():
  """A pretrained tokenizer of these words, by whose template turns end in <|im_end|>; its model also ends at <stop>."""
  pytest.importorskip("transformers")
  from tokenizers import Tokenizer, models, pre_tokenizers
  from transformers import PreTrainedTokenizerFast

  from sftrl_jax.text.pretrained import Pretrained
  special = ["<unk>", "<|im_start|>", "<|im_end|>", "<stop>"]
  names = [*special, *VOCABULARY, "user", "assistant"]
  made = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
  made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  made.add_special_tokens(special)
  source = ("{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' + m.content + '<|im_end|> ' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}")
  return Pretrained.of(PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<|im_end|>",
                                               chat_template=source), stops=(names.index("<stop>"),))
