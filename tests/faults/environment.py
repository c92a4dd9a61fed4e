"""E: a task of the user's own that fails, breaks the interface, or is not what it says."""

from inputs import TASK, own, play, rl, same
from verifier import counted

CHECK = ("check", "--config=task.py:rl", "--config.evals.variants=('same',)")


def faulty(case, fault: str, *given: str) -> list[str]:
  return play(case, f"env.fault={fault}", *given)


def check(case, fault: str, *given: str) -> list[str]:
  own(case)
  return [*CHECK, f"--config.env.fault={fault}", *given]


def changed(case, before: str, after: str) -> list[str]:
  """A run of the task whose file says something else."""
  words, text = play(case), TASK.read_text()
  assert before in text, before
  (case.home / "task.py").write_text(text.replace(before, after))
  return words


def E1(case):
  yield faulty(case, "reset_raises")
  counted(case, "dropped/env")


def E2(case):
  yield faulty(case, "step_raises")
  counted(case, "dropped/env")


def E3(case):
  yield faulty(case, "step_exits")
  counted(case, "dropped/env")


def E4(case):
  return faulty(case, "reset_text")


def E5(case):
  return faulty(case, "step_none")


def E6(case):
  return faulty(case, "both_ends")


def E7(case):
  yield faulty(case, "long_prompt")
  counted(case, "dropped/prompt")


def E8(case):
  return faulty(case, "long_prompt", "env.rare=1")


def E9(case):
  return check(case, "random_deal", "--config.env.rare=1")


def E10(case):
  return check(case, "wrong_expert", "--config.env.rare=1")


def E11(case):
  return changed(case, "@dataclasses.dataclass(frozen=True)", "@dataclasses.dataclass")


def E12(case):
  return changed(case, 'words = ("SAY"', 'letters = ("SAY"')


def E13(case):
  return faulty(case, "unknown_word")


def E14(case):
  yield faulty(case, "goes_on")
  counted(case, "cut/attempts")


def E15(case):
  return faulty(case, "reset_raises", "env.rare=1")


def E16(case):
  case.run(*play(case))
  return [*changed(case, 'right, last = response == n', 'right, last = response != n'), "--config.steps=8"]


def E17(case):
  return changed(case, "import dataclasses", "import dataclasses\nimport nothing_like_this")


def E18(case):
  case.run(*play(case))
  return ["evaluate", "run", "--config.evals.variants=('others',)"]


def E19(case):
  yield faulty(case, "step_loops", "verdict_seconds=1")
  counted(case, "dropped/env")


def E20(case):
  yield faulty(case, "reward_none")
  counted(case, "dropped/reward")


def E21(case):
  return faulty(case, "reward_text")


def E22(case):
  """A task that prints does not spoil what the run writes."""
  case.run(*play(case, workdir="straight"))
  yield changed(case, "    draw = random", "    print('{', flush=True)\n    draw = random")
  same(case.lines(), case.lines("straight/metrics.jsonl"))


def E23(case):
  return rl("env.name=task.py:Ecko", *own(case))


def E24(case):
  """A field of the task that is not there."""
  return play(case, "env.fautl=reset_raises")
