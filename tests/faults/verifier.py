"""V: a reward function of the user's own that fails, as judges and verifiers do."""

from campaign import Failed
from inputs import play, rl, same


def counted(case, metric: str, steps: int = 6) -> None:
  """Failed unless the run came to its end and its metrics count what was left out."""
  lines = case.lines()
  total = sum(line.get(metric, 0) for line in lines)
  if len(lines) != steps or not total:
    raise Failed(f"{len(lines)} of {steps} steps, {metric} {total}; keys {sorted(lines[-1]) if lines else []}")


def sometimes(fault: str) -> str:
  """The body of a reward that has the fault once."""
  return f"if next(N) == 20:\n  {fault}\nreturn float(verdict.correct)"


def V1(case):
  yield play(case, reward=sometimes("return None"))
  counted(case, "dropped/reward")


def V2(case):
  yield play(case, reward=sometimes("raise TimeoutError('the judge did not answer')"))
  counted(case, "dropped/reward")


def V3(case):
  yield play(case, reward=sometimes("sys.exit(0)"))
  counted(case, "dropped/reward")


def V4(case):
  yield play(case, reward=sometimes("raise KeyboardInterrupt"))
  counted(case, "dropped/reward")


def V5(case):
  yield play(case, reward=sometimes("raise GeneratorExit"))
  counted(case, "dropped/reward")


def V6(case):
  yield play(case, "verdict_seconds=1", reward=sometimes("while True:\n    time.sleep(0.01)"))
  counted(case, "dropped/reward")


def V7(case):
  yield play(case, reward=sometimes("os.fork()"))
  lines = case.lines()
  if [line["step"] for line in lines] != [*range(1, 7)]:
    raise Failed(f"lines of steps {[line['step'] for line in lines]}")


def V8(case):
  return play(case, reward=sometimes("return '1.0'"))


def V9(case):
  return play(case, reward="import numpy as np\nreturn np.ones(2)")


def V10(case):
  yield play(case, reward="import numpy as np\nreturn np.float32(verdict.correct)")
  assert len(case.lines()) == 6


def V11(case):
  return play(case, reward="return None")


def V12(case):
  return play(case, reward="raise RuntimeError('the key of the judge is wrong')")


def V13(case):
  words = play(case, reward="return 0.0")
  (case.home / "reward.py").write_text("def reward(chat, response):\n  return 0.0\n")
  return words


def V14(case):
  words = play(case, reward="return 0.0")
  return [word.replace("reward.py:reward", "reward.py:rewards") for word in words]


def V15(case):
  return play(case, reward=sometimes("os._exit(0)"))


def V16(case):
  """The judge's library moves to another directory; paths of the run stay what they were."""
  yield play(case, reward=f"os.chdir({str(case.home.parent)!r})\nreturn float(verdict.correct)")
  assert len(case.lines()) == 6 and (case.home / "run" / "checkpoints" / "6").is_dir()


def V17(case):
  """A run does not draw from the global random states."""
  case.run(*play(case, reward="return float(verdict.correct)", workdir="straight"))
  yield play(case, reward="import random\nimport numpy\nrandom.seed(1)\nnumpy.random.seed(1)\n"
                          "return float(verdict.correct)")
  same(case.lines(), case.lines("straight/metrics.jsonl"))


def V18(case):
  yield play(case, reward="def down(n):\n  return down(n + 1)\n" + sometimes("down(0)"))
  counted(case, "dropped/reward")


def V19(case):
  output = yield play(case, reward=sometimes("raise ValueError('x' * 10**7)"))
  counted(case, "dropped/reward")
  assert len(output) < 100_000, f"{len(output)} letters are printed"


def V20(case):
  yield play(case, "log.watchdog_seconds=60", reward=sometimes("time.sleep(3)"))
  assert len(case.lines()) == 6


def V21(case):
  return rl("reward=lambda")


def V22(case):
  yield play(case, reward="import io\nsys.stdout = io.StringIO()\nreturn float(verdict.correct)")
  assert len(case.lines()) == 6


def batched(case, body: str, *given: str) -> list[str]:
  """A run by a reward function of TRL's form, which calls it for four responses at a time."""
  words = play(case, "own_reward.batch=4", *given, reward="pass")
  lines = "\n".join(f"  {line}" for line in body.splitlines())
  (case.home / "reward.py").write_text(
      f"import itertools, os, sys\n\nN = itertools.count()\n\n\n"
      f"def reward(completions, **kwargs):\n  number = next(N)\n{lines}\n")
  return words


LENGTHS = "return [float(len(completion[0]['content'])) for completion in completions]"


def V23(case):
  yield batched(case, f"if number == 5:\n  raise RuntimeError('the judge is busy')\n{LENGTHS}")
  counted(case, "dropped/reward")


def V24(case):
  return batched(case, "return [0.0] * (len(completions) - 1)")


def V25(case):
  return batched(case, "return [float('nan')] * len(completions)")


def V26(case):
  return batched(case, "return None")


def V27(case):
  yield batched(case, f"if number == 5:\n  os.abort()\n{LENGTHS}")
  counted(case, "dropped/reward")


def V28(case):
  yield play(case, reward=sometimes("os.kill(os.getpid(), 9)"))
  counted(case, "dropped/reward")


def V29(case):
  output = yield play(case, reward="if next(N) == 20:\n  for _ in range(256):\n    os.write(1, b'x' * 2**20)\n"
                                   "return float(verdict.correct)")
  assert len(case.lines()) == 6 and len(output) < 200_000, f"{len(output)} letters are printed"


def V30(case):
  words = batched(case, LENGTHS)
  text = (case.home / "reward.py").read_text()
  (case.home / "reward.py").write_text(text.replace("completions, **kwargs", "completions, trainer_state, **kwargs"))
  return words
