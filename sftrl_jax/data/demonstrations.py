"""An environment and its expert as an endless stream of chats. Example i is a function of (seed, i) alone."""

import dataclasses
import random
from typing import Any, Literal

from sftrl_jax.chat import Chat, Message
from sftrl_jax.data.mix import MixConfig, mix_of
from sftrl_jax.envs.env import Env

DRAWS = 100  # wrong responses asked for before a wrong one counts as impossible


@dataclasses.dataclass(frozen=True)
class DemonstrationsConfig:
  """What is shown. The defaults are the paper's SFT data: one right answer a prompt.

  length: tokens of a packed row
  points: of an episode of many points: "last" (the expert walks to a random point, whose response is learned) or "all"
    (the walk goes on to the end of the episode, and the response at every point is learned)
  attempts: probabilities of 1, 2, ... attempts at a point; all but the last are wrong, the real verifier answers each,
    and they are not learned
  careless: share of learned responses that do not aim at the task (mixed-quality text for a base model)
  careless_spread: that share differs by state, from careless - careless_spread to careless + careless_spread
  misread: share of earlier wrong attempts that misread the hand
  choices: of how many correct answers one is shown
  noise: share of learned responses that are mislabelled: the environment's `misread`, always wrong, where the expert's
    would stand
  mix: replay of old data, see data/mix.py
  """

  length: int = 64
  points: Literal["last", "all"] = "last"
  attempts: tuple[float, ...] = (1.0,)
  careless: float = 0.0
  careless_spread: float = 0.0
  misread: float = 0.2
  choices: int = 1
  noise: float = 0.0
  mix: MixConfig = MixConfig()

  def __post_init__(self):
    object.__setattr__(self, "mix", mix_of(self))
    if self.points not in ("last", "all"):
      raise ValueError(f"points is {self.points!r}; it must be 'last' or 'all'.")
    if self.length < 2:
      raise ValueError(f"length is {self.length}; a row needs at least 2 tokens.")
    if not self.attempts or min(self.attempts) < 0 or abs(sum(self.attempts) - 1) > 1e-6:
      raise ValueError(f"attempts is {self.attempts}; it must be probabilities that sum to 1, for example (0.5, 0.5).")
    for name in ("careless", "misread", "noise"):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1].")
    if not 0 <= self.careless_spread <= min(self.careless, 1 - self.careless):
      raise ValueError(f"careless_spread is {self.careless_spread}; it must lie between 0 and "
                       f"{min(self.careless, 1 - self.careless):g}, so that no share leaves [0, 1] where careless is "
                       f"{self.careless}.")
    if self.choices < 1:
      raise ValueError(f"choices is {self.choices}; it must be at least 1.")


@dataclasses.dataclass(frozen=True, slots=True)
class Demonstration:
  """A chat that ends with a response, and which of its responses are learned, counted from 0."""

  chat: Chat
  learned: tuple[int, ...]


def refuse(env: Env, shown: DemonstrationsConfig) -> None:
  """ValueError for demonstrations that this environment cannot give: too many attempts, ones it cannot get wrong, or
  all points of an episode that fits no row."""
  if len(shown.attempts) > env.attempts:
    raise ValueError(f"config.data.attempts has {len(shown.attempts)} entries, but config.env.attempts is "
                     f"{env.attempts}.")
  earlier = sum(shown.attempts[1:]) > 0
  wanted = {"careless": shown.careless > 0 or (earlier and shown.misread < 1), "misread": earlier and shown.misread > 0,
            "careless_bias": shown.careless_spread > 0, "noise": shown.noise > 0}
  way_out = {"careless": "--config.data.careless=0 and one attempt or --config.data.misread=1",
             "misread": "--config.data.misread=0", "careless_bias": "--config.data.careless_spread=0",
             "noise": "--config.data.noise=0"}
  arguments = {"careless_bias": "state"}
  for name, asked in wanted.items():
    method = "misread" if name == "noise" else name
    if asked and not callable(getattr(env, method, None)):
      asked_for = "mislabelled" if name == "noise" else name.replace("_bias", "")
      raise ValueError(f"config.data asks for {asked_for} responses, but this environment has no "
                       f"{method}({arguments.get(name, 'state, seed')}): write it (envs/env.py describes its return "
                       f"value), or use {way_out[name]}.")
  if shown.points == "all" and getattr(env, "rewrites_prompt", False):
    raise ValueError("config.data.points is 'all', but this environment writes a new prompt at every point and a row "
                     "holds one chat: use --config.data.points=last, by which every point is a row of its own.")


def demonstration(env: Env, shown: DemonstrationsConfig, seed: int, index: int) -> Demonstration:
  """Example `index` of the stream `seed`."""
  name = f"{seed} {index}"
  source = random.Random(name)
  state, chat = env.reset(name)
  if shown.points == "last":
    state, chat = _walk(env, name, state, chat)
  learned, fresh = [], True
  while True:
    place = f"{name} {len(learned)}" if learned else name
    wrong = source.choices(range(len(shown.attempts)), shown.attempts)[0]
    # A careless response was an attempt at its point already.
    state, chat = _wrong_attempts(env, shown, source, place, state, chat, wrong if fresh else 0)
    response = _learned_response(env, shown, source, place, state)
    chat = (*chat, Message("assistant", response))
    learned.append(_responses(chat) - 1)
    if shown.points == "last":
      return Demonstration(chat, tuple(learned))
    state, verdict = env.step(state, response)
    if verdict.chat is None or learned[-1] + 1 >= env.attempts:
      return Demonstration(chat, tuple(learned))
    chat, fresh = verdict.chat, verdict.correct


def _walk(env: Env, name: str, state: Any, chat: Chat) -> tuple[Any, Chat]:
  """(state, chat) of a random point of the expert's own episode; the first where an episode has one point."""
  if getattr(env, "attempts_of", "episode") != "point":
    return state, chat
  places = [(state, chat)]
  while len(places) < env.attempts:
    state, verdict = env.step(state, env.expert(state))
    if verdict.chat is None:
      break
    places.append((state, verdict.chat))
  draw = random.Random(f"{name} point")
  return draw.choice(places)


def _wrong_attempts(env: Env, shown: DemonstrationsConfig, source: random.Random, name: str, state: Any, chat: Chat,
                    wrong: int) -> tuple[Any, Chat]:
  """The state and the chat after so many wrong responses, which precede the one that is learned."""
  if wrong >= env.attempts:
    refuse(env, shown)
  for attempt in range(wrong):
    state, chat = _fail(env, state, f"{name} {attempt}", source.random() < shown.misread)
    if chat is None:
      raise ValueError(f"config.data.attempts has {len(shown.attempts)} entries, but this environment ends an episode "
                       f"after {attempt + 1} wrong responses at a point: use {attempt + 1} entries or fewer.")
  return state, chat


def _responses(chat: Chat) -> int:
  return sum(message.role == "assistant" for message in chat)


def _learned_response(env: Env, shown: DemonstrationsConfig, source: random.Random, name: str, state: Any) -> str:
  """The expert's response, a careless one at the share that this state has, or a mislabelled one."""
  careless = shown.careless
  if shown.careless_spread:
    careless += shown.careless_spread * env.careless_bias(state)
  if careless and source.random() < careless:
    return env.careless(state, f"{name} last")
  if shown.noise and source.random() < shown.noise:
    return env.misread(state, f"{name} last")
  return env.expert(state, source.randrange(shown.choices)) if shown.choices > 1 else env.expert(state)


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
