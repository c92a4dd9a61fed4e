"""A verifier given strings that a model may write and no person would, answers to other questions, and responses after
the end of an episode."""

import contextlib
import signal
import threading
import time

from sftrl_jax.chat import Message
from sftrl_jax.envs.referee import TaskError
from sftrl_jax.programs.check.expert_episodes import CheckFailed, ExpertEpisodes, line, short, span

PATIENCE = 2.0  # seconds for a verdict on one string
STRINGS = (
    "", " ", "\n", "\0", "\ud800", "x" * 1_000_000, "9" * 1_000_000, "1 " * 100_000, "(" * 100_000,
    "[" * 50_000 + "]" * 50_000, "²³", "١٢٣", "𝟙𝟚𝟛", "1e999", "nan", "-1", "0x1F", "1_000", "9" * 5_000, "9**9**9**9",
    "1/0", "{", "}{", "{}", "%s%n", "{0.__class__}", "null", '{"a":' * 5_000, "__import__('os').getcwd()", "lambda: 0",
    "<eos>", "\\", "'", '"""', "a\tb\r\n")


def strings_get_verdicts(courses: list[ExpertEpisodes]) -> str:
  """Every string of STRINGS, and the task's own words in a row, on the first state of every variant."""
  slowest = (0.0, "")
  for course in courses:
    words = " ".join(["<pad>", "<bos>", *course.env.words])
    for response in (*STRINGS, words, words * 50):
      began = time.perf_counter()
      with _patience():
        _, verdict = course.env.step(course.episodes[0][0].state, response)
      slowest = max(slowest, (time.perf_counter() - began, response))
      if verdict.success:
        raise CheckFailed(f"{line(course.env, 'step')}: {short(response)} is judged a success of {course.name}",
                    "let the verifier read strictly: a response is the right answer and nothing else")
  if slowest[0] > PATIENCE:
    raise CheckFailed(f"{line(courses[0].env, 'step')}: {short(slowest[1])} took {slowest[0]:.1f} s",
                "refuse long responses before anything else")
  return f"{len(STRINGS) + 2} strings, {len(courses)} variants, {1000 * slowest[0]:.0f} ms at most"


@contextlib.contextmanager
def _patience():
  """A verdict that takes too long is stopped at the line where it is, in the main thread of a system with timers."""
  if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
    yield
    return

  def late(number: int, frame: object) -> None:
    raise TimeoutError(f"no verdict within {2 * PATIENCE:g} s")

  before = signal.signal(signal.SIGALRM, late)
  signal.setitimer(signal.ITIMER_REAL, 2 * PATIENCE)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def nothing_beats_the_expert(courses: list[ExpertEpisodes]) -> str:
  """Rewards of the expert's first responses, of right answers to other questions and of no answer."""
  wrong = []
  for course in courses:
    answers = [steps[0].response for steps in course.episodes[:20]]
    for first in [steps[0] for steps in course.episodes[:5]]:
      for response in (*answers, "", "x", "1"):
        _, verdict = course.env.step(first.state, response)
        if verdict.reward > first.verdict.reward + 1e-9:
          raise CheckFailed(f"{line(course.env, 'step')}: {short(response)} gets the reward {verdict.reward:g}, and "
                      f"the expert's {short(first.response)} only {first.verdict.reward:g} ({course.name}, to "
                      f"{short(first.chat[-1].text)})",
                      "give the right answer the highest reward, or RL learns something else")
        wrong += [] if verdict.correct else [verdict.reward]
  right = [steps[0].verdict.reward for course in courses for steps in course.episodes]
  return f"expert {span(right)}, wrong answers {span(wrong) if wrong else 'none'}"


def episodes_end(courses: list[ExpertEpisodes]) -> str:
  """Wrong answers end an episode within `attempts`, a chat only grows, and an ended state is refused."""
  longest = 0
  for course in courses:
    first, elsewhere = course.episodes[0][0], course.episodes[-1][0].response   # an answer to another question
    state, chat = first.state, first.chat
    for attempt in range(1, course.env.attempts + 1):
      response = "" if elsewhere == course.env.expert(state) else elsewhere
      answered = chat
      state, verdict = course.env.step(state, response)
      chat, longest = verdict.chat, max(longest, attempt)
      if chat is None:
        break
      if chat[:-1] != (*answered, Message("assistant", response)):
        raise CheckFailed(f"{line(course.env, 'step')}: the next chat is not the chat that was answered, the response, "
                    f"and one message of the user: {short(chat)}",
                    "give (*chat, Message('assistant', response), Message('user', feedback)): one row holds one chat")
    if chat is not None:
      raise CheckFailed(f"{line(course.env, 'step')}: {course.name} goes on after {course.env.attempts} responses, "
                        "which is `attempts`", "end the episode, with truncated=True, at the last attempt")
    for ended in (state, course.episodes[0][-1].after):
      _refuse_going_on(course, ended)
  return f"after {longest} responses at most; then step raises ValueError"


def _refuse_going_on(course: ExpertEpisodes, ended) -> None:
  try:
    course.env.step(ended, "")
  except TaskError as error:
    if isinstance(error.__cause__, ValueError):
      return
    raise
  raise CheckFailed(f"{line(course.env, 'step')}: a state whose episode has ended gets another verdict ({course.name})",
              "raise ValueError there: a loop that plays on after the end has a mistake")
