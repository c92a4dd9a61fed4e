"""R: reinforcement learning without a signal, with episodes that are cut, and with numbers that do not fit together."""

from campaign import Failed
from inputs import play, same
from verifier import counted

LEARNS = ("optimizer.learning_rate=1e-2", "steps=8")


def still(case, algorithm: str, value: str = "return 5.0"):
  """A run under a constant reward. With `kl_coef`, metrics tell how far the policy is from its start."""
  given = (f"{algorithm}.kl_coef=1e-12", *LEARNS)
  words = play(case, *given, reward=value)
  return [word.replace("task.py:rl", f"task.py:{algorithm}") for word in words]


def stays(case) -> None:
  """Failed unless the policy is where it was."""
  moved = [line["objective/kl"] for line in case.lines() if abs(line["objective/kl"]) > 1e-6]
  if moved or len(case.lines()) != 8:
    raise Failed(f"{len(case.lines())} steps; KL to the start {moved}")


def R1(case):
  yield still(case, "ppo")
  stays(case)


def R2(case):
  yield still(case, "grpo")
  stays(case)


def R3(case):
  yield still(case, "rloo", "return -1.0")
  stays(case)


def R4(case):
  """Groups that all are alike have nothing to learn from; `max_rounds` bounds how often others are drawn."""
  yield play(case, "grpo.max_rounds=2", reward="return 0.0")
  assert all(line["groups/rounds"] == 2 for line in case.lines()), "rounds are not bounded"


def R5(case):
  """Every response is cut off at its first token."""
  yield play(case, "rollout.max_new_tokens=1")
  assert len(case.lines()) == 6 and case.lines()[-1]["response_length/clip_ratio"] > 0.5


def R6(case):
  yield play(case, "env.fault=long_feedback", "env.rare=4", "env.attempts=3", "rollout.feedback_tokens=2")
  counted(case, "cut/feedback")


def R7(case):
  return play(case, "grpo.group=3")


def R8(case):
  return play(case, "rollout.rows=7")


def R9(case):
  return play(case, "algorithm=gpro")


def R10(case):
  return play(case, "rollout.top_k=5")


def R11(case):
  """Resumed in the middle it is what a straight run is."""
  case.run(*play(case, workdir="straight"))
  case.run(*play(case, "steps=3"))
  yield play(case)
  same(case.lines(), case.lines("straight/metrics.jsonl"))


def R12(case):
  return play(case, "rollout.prompt_tokens=0")


def R13(case):
  """One large reward among small ones is a number like others."""
  yield play(case, reward="return 1e6 if next(N) == 20 else float(verdict.correct)")
  assert len(case.lines()) == 6 and not any(line["nonfinite_steps"] for line in case.lines())


def R14(case):
  return play(case, "start=base:general_points_0")


def R15(case):
  """Rewards that differ in the last bits only are noise, not a signal of full size."""
  yield play(case, *LEARNS, "grpo.kl_coef=1e-12",
             reward="return 0.1 + 0.2 + 1e-17 * next(N) if next(N) % 2 else 0.3")
  stays(case)
