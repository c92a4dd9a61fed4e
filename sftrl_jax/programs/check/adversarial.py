"""Adversarial checks of a verifier: strings that a model may write and no person would, answers to other questions, and
steps after the end of an episode."""

import random
import time
from collections.abc import Sequence
from typing import Any

from sftrl_jax.chat import Message, continues
from sftrl_jax.envs.env import Rewriting, rewriting
from sftrl_jax.envs.guard import time_limit
from sftrl_jax.envs.referee import TaskError, location
from sftrl_jax.programs.check.expert_episodes import CheckFailed, ExpertEpisodes, respond, short, span

MAX_SECONDS = 2.0  # for a verdict on one string
MIXED = 20  # episodes of every variant that are answered now right, now wrong
STRINGS = (
    "", " ", "\n", "\0", "\ud800", "x" * 1_000_000, "9" * 1_000_000, "1 " * 100_000, "(" * 100_000,
    "[" * 50_000 + "]" * 50_000, "²³", "١٢٣", "𝟙𝟚𝟛", "1e999", "nan", "-1", "0x1F", "1_000", "9" * 5_000, "9**9**9**9",
    "1/0", "{", "}{", "{}", "%s%n", "{0.__class__}", "null", '{"a":' * 5_000, "__import__('os').getcwd()", "lambda: 0",
    "<eos>", "\\", "'", '"""', "a\tb\r\n")


def check_hostile_strings(variants: Sequence[ExpertEpisodes]) -> str:
  """Steps every variant's first state with STRINGS and the task's own words: each gets a verdict in time, none wins."""
  slowest = (0.0, "")
  for variant in variants:
    words = " ".join(["<pad>", "<bos>", *variant.env.words])
    for response in (*STRINGS, words, words * 50):
      start_time = time.perf_counter()
      with time_limit(2 * MAX_SECONDS):
        _, verdict = variant.env.step(variant.episodes[0][0].state, response)
      slowest = max(slowest, (time.perf_counter() - start_time, response))
      if verdict.success:
        raise CheckFailed(f"{location(variant.env, 'step')}: {short(response)} is judged a success of {variant.name}",
                          "let the verifier read strictly: a response is the right answer and nothing else")
  if slowest[0] > MAX_SECONDS:
    raise CheckFailed(f"{location(variants[0].env, 'step')}: {short(slowest[1])} took {slowest[0]:.1f} s",
                      "refuse long responses before anything else")
  return f"{len(STRINGS) + 2} strings, {len(variants)} variants, {1000 * slowest[0]:.0f} ms at most"


def check_rewards(variants: Sequence[ExpertEpisodes]) -> str:
  """Compares the expert's reward with those of right answers to other questions, and of no answer: none is higher."""
  wrong = []
  for variant in variants:
    answers = [steps[0].response for steps in variant.episodes[:20]]
    for first in [steps[0] for steps in variant.episodes[:5]]:
      for response in (*answers, "", "x", "1"):
        _, verdict = variant.env.step(first.state, response)
        if verdict.reward > first.verdict.reward + 1e-9:
          raise CheckFailed(f"{location(variant.env, 'step')}: {short(response)} gets the reward {verdict.reward:g}, "
                            f"and the expert's {short(first.response)} only {first.verdict.reward:g} ({variant.name}, "
                            f"asked {short(first.chat[-1].text)})",
                            "give the right answer the highest reward, or RL learns something else")
        wrong += [] if verdict.correct else [verdict.reward]
  right = [steps[0].verdict.reward for variant in variants for steps in variant.episodes]
  return f"expert {span(right)}, wrong answers {span(wrong) if wrong else 'none'}"


def check_episode_ends(variants: Sequence[ExpertEpisodes]) -> str:
  """Answers wrongly, and then right and wrong in turns of many kinds, until the end: it comes within `attempts`, a chat
  only grows, or is a new one within the bounds that the environment states, and `step` refuses an ended state."""
  longest = 0
  for variant in variants:
    ended, count = _play_to_end(variant, 0, 0.0)
    longest = max(longest, count)
    for number in range(MIXED):
      longest = max(longest, _play_to_end(variant, number % len(variant.episodes), 0.25 + 0.5 * (number % 2))[1])
    for state in (ended, variant.episodes[0][-1].after):
      _check_refused(variant, state)
  return f"after {longest} responses at most, {MIXED} mixed plays a variant; then step raises ValueError"


def _play_to_end(variant: ExpertEpisodes, index: int, right: float) -> tuple[Any, int]:
  """(the last state, responses given) of an episode whose responses are right with this probability."""
  first, wrong_response = variant.episodes[index][0], variant.episodes[index - 1][0].response
  state, chat, draw = first.state, first.chat, random.Random(f"mixed {index} {right}")
  bounds, rows, row_turns = _bounds(variant), 1, 0
  for attempt in range(1, variant.env.attempts + 1):
    expert = respond(variant.env, state)
    response = expert if draw.random() < right else "" if wrong_response == expert else wrong_response
    before = chat
    state, verdict = variant.env.step(state, response)
    chat = verdict.chat
    if chat is None:
      return state, attempt
    row_turns += 1
    if bounds and not continues(before, response, chat):
      rows, row_turns = rows + 1, 0
    elif chat[:-1] != (*before, Message("assistant", response)):
      raise CheckFailed(
          f"{location(variant.env, 'step')}: the next chat is not the one that was answered, the response, and one "
          f"message of the user: {short(chat)}",
          "give (*chat, Message('assistant', response), Message('user', feedback)): one row holds one chat; or let "
          "the environment have rewrites_prompt = True, and the chat be another one from its beginning")
    if bounds and (rows > bounds.rows or row_turns >= bounds.row_attempts):
      member, most = ("most_rows", bounds.rows) if rows > bounds.rows else ("row_attempts", bounds.row_attempts)
      raise CheckFailed(f"{location(variant.env, 'step')}: {variant.name} goes on beyond {member} = {most}",
                        f"let {member} be larger, or leave it out; runs cut the episode there")
  kinds = " (right and wrong ones)" if right else ""
  raise CheckFailed(f"{location(variant.env, 'step')}: {variant.name} goes on after {variant.env.attempts} responses"
                    f"{kinds}, which is `attempts`",
                    "let step end the episode, with truncated=True, at the last attempt, or let `attempts` be larger; "
                    "runs cut it there")


def _bounds(variant: ExpertEpisodes) -> Rewriting | None:
  try:
    return rewriting(variant.env)
  except ValueError as error:
    raise CheckFailed(f"{location(variant.env, 'step')}: {error}", "correct the members of the environment") from error


def _check_refused(variant: ExpertEpisodes, ended: Any) -> None:
  try:
    variant.env.step(ended, "")
  except TaskError as error:
    if isinstance(error.__cause__, ValueError):
      return
    raise
  raise CheckFailed(f"{location(variant.env, 'step')}: a state whose episode has ended gets another verdict "
                    f"({variant.name})", "raise ValueError there: a loop that plays on after the end has a mistake")
