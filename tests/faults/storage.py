"""S: checkpoints, workdirs and the file system."""

import ctypes
import os
import random
import resource
import shutil
import signal
import time

from campaign import Command, Failed
from inputs import chat, flip, play, same, sft, talks, tiny

LONG = ("steps=100000", "checkpoint.every=50", "checkpoint.keep=2")
NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000   # flags of unshare(2)


def full_disk(path: str, kibibytes: int):
  """A function that puts a file system of this size at a folder, for the process that calls it alone."""
  def before():
    libc, user = ctypes.CDLL(None), os.getuid()
    os.makedirs(path, exist_ok=True)
    if user and libc.unshare(NEW_USER) == 0:
      for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1")):
        with open(f"/proc/self/{name}", "w") as file:
          file.write(text)
    size = f"size={kibibytes}k".encode()
    mounted = libc.unshare(NEW_MOUNTS) == 0 and libc.mount(b"none", b"/", None, 1 << 18 | 1 << 14, None) == 0
    if not mounted or libc.mount(b"tmpfs", path.encode(), b"tmpfs", 0, size):
      # Without the right to mount it is files that cannot grow, which is almost as good.
      resource.setrlimit(resource.RLIMIT_FSIZE, (kibibytes * 256, kibibytes * 256))
  return before


def nobody() -> None:
  """Takes away the rights of root, which may write everywhere."""
  if not os.getuid():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def readable(case) -> None:
  """Lets others than root come to the folder."""
  for folder in (case.home, *case.home.parents[:2]):
    folder.chmod(0o755)


def writing(case, *given: str, steps: int = 2):
  """A run that has written some steps and goes on."""
  running = case.start(*sft(*LONG, *given))
  running.wait_until(lambda: len(case.lines()) >= steps)
  return running


def ended(running, number: int, code: int) -> None:
  """Sends the signal; Failed unless the process ends with this exit code within 30 seconds."""
  running.signal(number)
  if running.wait(30) != code:
    raise Failed(f"after signal {number} it ended with exit code {running.code}:\n{running.text[-500:]}")


def steps_of(case, workdir="run") -> list[str]:
  return sorted(path.name for path in (case.home / workdir / "checkpoints").iterdir())


def S1(case):
  return Command(tuple(sft()), before=full_disk(str(case.home / "run"), 64))


def S2(case):
  (case.home / "run").mkdir()
  (case.home / "run").chmod(0o555)
  readable(case)
  return Command(tuple(sft()), before=nobody)


def S3(case):
  case.run(*sft())
  flip(case.home / "run" / "checkpoints" / "3")
  yield sft("steps=4")
  assert "3.corrupt" in steps_of(case) and case.lines()[-1]["step"] == 4


def S4(case):
  case.run(*sft())
  for step in steps_of(case):
    flip(case.home / "run" / "checkpoints" / step)
  return sft("steps=4")


def S5(case):
  """Killed at three moments that nobody chose; what comes out is what a straight run writes."""
  words = ("steps=30", "checkpoint.every=3")
  case.run(*sft(*words, workdir="straight"))
  for _ in range(3):
    running = case.start(*sft(*words))
    try:
      running.wait(random.uniform(0.2, 6))
    except Failed:   # killed
      continue
  yield sft(*words)
  same(case.lines(), case.lines("straight/metrics.jsonl"))


def S6(case):
  """The same of a run that plays."""
  words = ("steps=12", "checkpoint.every=2")
  case.run(*play(case, *words, workdir="straight"))
  for _ in range(2):
    try:
      case.start(*play(case, *words)).wait(random.uniform(0.2, 8))
    except Failed:
      continue
  yield play(case, *words)
  same(case.lines(), case.lines("straight/metrics.jsonl"))


def S7(case):
  running = writing(case)
  yield sft(*LONG)
  ended(running, signal.SIGTERM, 75)


def S8(case):
  tiny(case.home / "tiny")
  (case.home / "prompts.jsonl").write_text("".join(f'{{"prompt": "Hello {n}"}}\n' for n in range(3000)))
  words = ["sample", "tiny", "--in=prompts.jsonl", "--out=answers.jsonl", "--rows=2", "--max-new-tokens=4"]
  running = case.start(*words)
  running.wait_until(lambda: case.lines("answers.jsonl"))
  yield words
  running.signal(signal.SIGKILL)
  running.wait()
  rows = [line["prompt"] for line in case.lines("answers.jsonl")]
  assert len(rows) == len(set(rows)), "rows are answered twice"


def S9(case):
  ended(writing(case), signal.SIGTERM, 75)
  shutil.rmtree(case.home / "run" / "checkpoints")
  yield sft(*LONG, "steps=3")
  assert len(case.lines()) == 3 and len(case.lines("run/earlier/1/metrics.jsonl")) >= 2


def S10(case):
  case.run(*sft())
  shutil.rmtree(case.home / "run" / "checkpoints")
  return sft()


def S11(case):
  """Storage that is gone for a while: told soon, the process ends, and the same command goes on once it is back."""
  running = writing(case)
  running.wait_until(lambda: (case.home / "run" / "checkpoints" / "50").exists())
  (case.home / "run" / "checkpoints").rename(case.home / "run" / "away")
  (case.home / "run" / "checkpoints").write_text("x")
  yield running
  (case.home / "run" / "checkpoints").unlink()
  (case.home / "run" / "away").rename(case.home / "run" / "checkpoints")
  step = max(int(name) for name in steps_of(case) if name.isdecimal())
  assert "going on from step" in case.run(*sft(*LONG, f"steps={step + 5}"))


def S12(case):
  case.run(*sft())
  (case.home / "run" / "config.json").write_text('{"verb": "sf')
  return sft("steps=4")


def S13(case):
  case.run(*sft())
  with (case.home / "run" / "metrics.jsonl").open("a") as file:
    file.write('{"step": 4, "lo')
  yield sft("steps=5")
  assert [line["step"] for line in case.lines()] == [1, 2, 3, 4, 5]


def S14(case):
  case.run(*play(case, "evals.variants=('same',)", "steps=2"))
  with (case.home / "run" / "evals.jsonl").open("r+") as file:
    file.write("#")
  return play(case, "start=run@best:same", workdir="next")


def stopped(case, number: int):
  """A run that is asked to stop; afterwards the same command goes on, and no step is lost or doubled."""
  running = writing(case)
  running.signal(number)
  yield running
  step = case.lines()[-1]["step"]
  case.run(*sft(*LONG, f"steps={step + 3}"))
  assert [line["step"] for line in case.lines()] == [*range(1, step + 4)]


def S15(case):
  yield from stopped(case, signal.SIGTERM)


def S16(case):
  yield from stopped(case, signal.SIGINT)


def S17(case):
  """SIGTERM while it imports: nothing has begun, and the same command begins."""
  running = case.start(*sft(), fresh=True)
  time.sleep(random.uniform(0.3, 2.5))
  ended(running, signal.SIGTERM, 75)
  yield sft()
  assert len(case.lines()) == 3


def S18(case):
  case.run(*sft())
  for path in (case.home / "run" / "checkpoints" / "3" / "state").rglob("*"):
    if path.is_file():
      path.write_bytes(b"")
  yield sft("steps=4")
  assert case.lines()[-1]["step"] == 4


def S19(case):
  return sft(workdir="x" * 300)


def S20(case):
  tiny(case.home / "tiny")
  (case.home / "out").mkdir()
  (case.home / "out" / "thesis.tex").write_text("mine")
  return ["convert", "tiny", "out"]


def S21(case):
  case.run(*sft())
  for name in ("checkpoints/9.orbax-checkpoint-tmp", "checkpoints/9.orbax-checkpoint-tmp/state"):
    (case.home / "run" / name).mkdir()
  yield sft("steps=4")
  assert case.lines()[-1]["step"] == 4


def S22(case):
  case.run(*sft())
  return sft("start=run@99", workdir="next")


def S23(case):
  """A lock that a dead process has left."""
  running = writing(case)
  running.signal(signal.SIGKILL)
  running.wait()
  step = max((int(name) for name in steps_of(case) if name.isdecimal()), default=0)
  yield sft(*LONG, f"steps={step + 3}")
  assert case.lines()[-1]["step"] == step + 3


def S24(case):
  tiny(case.home / "tiny")
  return Command(("convert", "tiny", "out/model"), before=full_disk(str(case.home / "out"), 16))


def S25(case):
  case.run(*sft())
  (case.home / "run" / "checkpoints" / "3" / "meta" / "metadata").write_text("{}")
  yield sft("steps=4")
  assert case.lines()[-1]["step"] == 4


def S26(case):
  """Beside a writer a reader sees whole lines and whole checkpoints."""
  running = writing(case, steps=60)
  yield ["report", "run", "--out=seen"]
  ended(running, signal.SIGTERM, 75)


def S27(case):
  case.run(*sft())
  return ["convert", "run", "exported/to/there", "--dtype=float16"]


def S28(case):
  words = chat(case, talks())
  case.run(*words)
  shutil.rmtree(case.home / "tiny")
  return [*words, "--config.steps=3"]
