"""A task as a user writes it, with a fault in one deal of `rare`: SAY n, and the right response is n."""

import dataclasses
import random
import sys
import time

from ml_collections import ConfigDict

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Verdict

DIGITS = tuple(map(str, range(5)))


@dataclasses.dataclass(frozen=True)
class Echo:
  """fault: its name, below. rare: one deal in so many has it. attempts: responses of an episode."""

  fault: str = ""
  rare: int = 16
  attempts: int = 1
  variant: str = "train"
  variants, codes = ("same",), ("correct", "wrong")
  words = ("SAY", "NO", *DIGITS)

  def reset(self, seed):
    draw = random.Random(f"{self.variant} {seed}")
    n, hit = draw.choice(DIGITS), draw.randrange(self.rare) == 0
    fault = self.fault if hit else ""
    if fault == "reset_raises":
      raise ConnectionError("the server is down")
    if fault == "reset_exits":
      sys.exit(0)
    if fault == "reset_text":
      return f"SAY {n}"
    if fault == "random_deal":
      n = str(time.perf_counter_ns() // 1000 % 5)
    if fault == "unknown_word":
      return (n, fault, 0, ()), (Message("user", "SAY NINE"),)
    chat = (Message("user", " ".join([*["SAY"] * (9 if fault == "long_prompt" else 1), n])),)
    return (n, fault, 0, chat), chat

  def step(self, state, response):
    n, fault, tried, chat = state
    if fault == "step_raises":
      raise TimeoutError("the server did not answer")
    if fault == "step_exits":
      sys.exit(3)
    if fault == "step_loops":
      while True:
        time.sleep(0.01)
    if fault == "step_none":
      return None
    right, last = response == n, tried + 1 >= self.attempts
    ends = (right or last) and fault != "goes_on"
    feedback = " ".join(["NO"] * (9 if fault == "long_feedback" else 1))
    chat = (*chat, Message("assistant", response), Message("user", feedback))
    verdict = Verdict(
        reward=None if fault == "reward_none" else float(right), terminated=ends and right,
        truncated=ends and not right, correct=right, success=right, feedback=feedback, chat=None if ends else chat,
        code="correct" if right else "wrong")
    if fault == "both_ends":
      verdict = dataclasses.replace(verdict, terminated=True, truncated=True)
    if fault == "reward_text":
      verdict = dataclasses.replace(verdict, reward="1.0")
    return (n, fault, tried + 1, chat), verdict

  def expert(self, state):
    return "9" if state[1] == "wrong_expert" else state[0]


def get_config(choice="rl"):
  return ConfigDict(dict(
      batch=16, steps=6, start="scratch", env=dict(name=f"{__file__}:Echo"),
      evals=dict(variants=("same",), episodes=16),
      model=dict(layers=1, width=16, heads=2, remat="none"), mesh=dict(cpu_threads=1),
      rollout=dict(rows=16, prompt_tokens=4, feedback_tokens=1, max_new_tokens=2),
      algorithm=choice if choice in ("ppo", "rloo") else "grpo", checkpoint=dict(every=2),
      optimizer=dict(learning_rate=1e-3),
      **{"ppo": dict(ppo=dict(minibatches=1)), "rloo": dict(rloo=dict(group=4, minibatches=1))}.get(
          choice, dict(grpo=dict(group=4, minibatches=1)))))
