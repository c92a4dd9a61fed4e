"""P: several processes of one run."""

import signal
import socket
import time
from pathlib import Path

from campaign import Command, Failed
from inputs import play, sft

LAUNCH = Path(__file__).parents[2] / "launch"
LONG = ("steps=100000", "checkpoint.every=50", "mesh.cpu_threads=0")


def port() -> int:
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


def member(number: int, at: int, count: int = 2) -> tuple[str, ...]:
  """The flags of one of the processes."""
  return f"--coordinator=127.0.0.1:{at}", f"--processes={count}", f"--process={number}"


def pair(case, *given: str):
  """Two processes that train together and have written some steps."""
  at = port()
  both = [case.start(*sft(*LONG, *given), *member(number, at)) for number in (0, 1)]
  both[0].wait_until(lambda: len(case.lines()) >= 3)
  return both


def P1(case):
  first, second = pair(case)
  second.signal(signal.SIGKILL)
  second.wait()
  yield first


def P2(case):
  first, second = pair(case)
  first.signal(signal.SIGKILL)
  first.wait()
  yield second


def P3(case):
  """The coordination service of JAX ends the others; a process that is there and does nothing would block them."""
  first, second = pair(case)
  second.signal(signal.SIGSTOP)
  yield first
  second.signal(signal.SIGKILL)
  second.wait()


def P4(case):
  at = port()
  second = case.start(*sft("seed=1", "mesh.cpu_threads=0"), *member(1, at))
  yield [*sft("mesh.cpu_threads=0"), *member(0, at)]
  assert second.wait() == 1, second.text


def P5(case):
  taken = socket.socket()
  taken.bind(("127.0.0.1", 0))
  taken.listen()
  yield [*sft(), *member(0, taken.getsockname()[1])]
  taken.close()


def P6(case):
  return [*sft(), *member(2, 12345)]


def P7(case):
  return [*sft(), "--processes=2"]


def P8(case):
  return Command(("bash", str(LAUNCH / "local_pod.sh"), "0", "true"), script=True)


def P9(case):
  """The exit code of the first that failed; the others have ended too."""
  script = "if [ $SFTRL_PROCESS = 1 ]; then echo down; exit 7; fi; sleep 1"
  return Command(("bash", str(LAUNCH / "local_pod.sh"), "3", "bash", "-c", script), script=True)


def P10(case):
  at = port()
  second = case.start(*sft("batch=15", "compute.microbatches=1", "mesh.cpu_threads=0"), *member(1, at))
  yield [*sft("batch=15", "compute.microbatches=1", "mesh.cpu_threads=0"), *member(0, at)]
  assert second.wait() == 1, second.text


def P11(case):
  """Both stop at the same step, and go on from it."""
  first, second = pair(case)
  second.signal(signal.SIGTERM)
  yield first
  if second.wait() != 75:
    raise Failed(second.text)
  at, step = port(), case.lines()[-1]["step"]
  words = sft(*LONG, f"steps={step + 2}")
  second = case.start(*words, *member(1, at))
  case.run(*words, *member(0, at))
  assert second.wait() == 0 and case.lines()[-1]["step"] == step + 2


def P12(case):
  """Nobody comes to the first of two; SIGTERM ends its waiting."""
  running = case.start(*sft(), *member(0, port()))
  time.sleep(3)
  running.signal(signal.SIGTERM)
  return running


def judged(case, fault: str, *given: str):
  """(the second process, the command of the first): the judge works in the first and has the fault in the second."""
  at = port()
  words = play(case, "mesh.cpu_threads=0", *given, reward=f"if os.environ.get('JUDGE') == 'down':\n  {fault}\nreturn 0.0")
  return case.start(*words, *member(1, at), environment=(("JUDGE", "down"),)), [*words, *member(0, at)]


def P13(case):
  """Both end, by the error of one of them."""
  second, command = judged(case, "return 'down'")
  yield command
  assert second.wait() == 1, second.text


def P15(case):
  second, command = judged(case, "time.sleep(1000)", "verdict_seconds=0", "log.watchdog_seconds=30")
  yield command
  assert second.wait() in (70, 71), second.text


def P14(case):
  return Command(tuple(sft()), environment=(("LOCAL_DEVICES", "many"),))
