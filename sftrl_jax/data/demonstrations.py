"""An environment and its expert as an endless stream of chats. Example i is a function of (seed, i) alone."""

import dataclasses
import random

from sftrl_jax.chat import Chat, Message
from sftrl_jax.envs.env import Env

DRAWS = 100  # wrong responses asked for before a wrong one counts as impossible


@dataclasses.dataclass(frozen=True)
class DemonstrationsConfig:
  """What is shown. The defaults are the paper's SFT data: one right answer a prompt.

  length: tokens of a packed row
  attempts: probabilities of 1, 2, ... attempts; all but the last are wrong, and the real verifier answers each
  careless: share of last attempts that do not aim at the task (mixed-quality text for a base model)
  misread: share of earlier wrong attempts that misread the hand
  choices: of how many correct answers one is shown
  """

  length: int = 64
  attempts: tuple[float, ...] = (1.0,)
  careless: float = 0.0
  misread: float = 0.2
  choices: int = 1

  def __post_init__(self):
    if self.length < 2:
      raise ValueError(f"length is {self.length}; a row needs at least 2 tokens.")
    if not self.attempts or min(self.attempts) < 0 or abs(sum(self.attempts) - 1) > 1e-6:
      raise ValueError(f"attempts is {self.attempts}; it must be probabilities that sum to 1, for example (0.5, 0.5).")
    for name in ("careless", "misread"):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1].")
    if self.choices < 1:
      raise ValueError(f"choices is {self.choices}; it must be at least 1.")


def refuse(env: Env, shown: DemonstrationsConfig) -> None:
  """ValueError for demonstrations that this environment cannot give: too many attempts, or ones it cannot get wrong."""
  if len(shown.attempts) > env.attempts:
    raise ValueError(f"config.data.attempts has {len(shown.attempts)} entries, but config.env.attempts is "
                     f"{env.attempts}.")
  earlier = sum(shown.attempts[1:]) > 0
  wanted = {"careless": shown.careless > 0 or (earlier and shown.misread < 1), "misread": earlier and shown.misread > 0}
  way_out = {"careless": "--config.data.careless=0 and one attempt or --config.data.misread=1",
             "misread": "--config.data.misread=0"}
  for name, asked in wanted.items():
    if asked and not callable(getattr(env, name, None)):
      raise ValueError(f"config.data asks for {name} responses, but this environment has no {name}(state, seed): "
                       f"write it (envs/env.py describes its return value), or use {way_out[name]}.")


def demonstration(env: Env, shown: DemonstrationsConfig, seed: int, index: int) -> Chat:
  """Example `index` of the stream `seed`: a chat whose last message is the response to be learned."""
  name = f"{seed} {index}"
  source = random.Random(name)
  state, chat = env.reset(name)
  wrong = source.choices(range(len(shown.attempts)), shown.attempts)[0]
  if wrong >= env.attempts:
    refuse(env, shown)
  for attempt in range(wrong):
    state, chat = _fail(env, state, f"{name} {attempt}", source.random() < shown.misread)
  if shown.careless and source.random() < shown.careless:
    response = env.careless(state, f"{name} last")
  else:
    response = env.expert(state, source.randrange(shown.choices)) if shown.choices > 1 else env.expert(state)
  return (*chat, Message("assistant", response))


def _fail(env: Env, state, name: str, misread: bool):
  """One wrong attempt and the verifier's answer to it; a careless attempt that happens to be right is misread, or
  drawn again where the environment has no misread."""
  response = env.misread(state, name) if misread else env.careless(state, name)
  after, verdict = env.step(state, response)
  again = 0
  while verdict.correct:
    again += 1
    if again > DRAWS:
      raise ValueError(f"{DRAWS} wrong responses were asked for and all were right, the last one {response!r}: let "
                       "careless be wrong more often, or write misread(state, seed).")
    response = env.misread(state, name) if hasattr(env, "misread") else env.careless(state, f"{name} {again}")
    after, verdict = env.step(state, response)
  return after, verdict.chat
