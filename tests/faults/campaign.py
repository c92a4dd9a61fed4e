"""Runs the faults of tests/faults.md and judges each of them: tests/faults.sh.

The process that begins imports the package once and makes no JAX backend. Each fault has a fork of it as its judge, and
each command is a fork of the judge, which does what `sftrl` does and ends as the interpreter would.
"""

import atexit
import ctypes
import dataclasses
import importlib
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TABLE = HERE.with_suffix(".md")
GROUPS = {"C": "configuration", "D": "data", "N": "numerics", "S": "storage", "V": "verifier", "E": "environment",
          "R": "rl_loop", "P": "processes", "H": "hostile"}
JOBS, SECONDS = 2, 100.0   # at once; of one command
HANGS = f"hangs: it was ended after {SECONDS:.0f} s"
CLOSED = "nothing is written"   # of a row: the folder is afterwards as it was
# What XLA need not do for programs of a few steps; as tests/conftest.py has it.
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "OPENBLAS_NUM_THREADS": "1",
               "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
               "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
               "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
MODULES = ("trainers", "evaluate", "convert", "data", "sample.run", "check.run", "study.run", "plan.local")


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of the table. parts: texts that the output must have; `...` inside one stands for anything."""

  id: str
  wrong: str
  command: str
  code: int
  parts: tuple[str, ...]
  also: str

  @property
  def flags(self) -> list[str]:
    """The flags that the table shows."""
    return [word for quoted in re.findall("`([^`]+)`", self.command) for word in quoted.split() if word[:2] == "--"]


def rows() -> dict[str, Row]:
  """{id: row} of the table, in its order."""
  table = {}
  for line in TABLE.read_text().splitlines():
    if re.match(r"\| [A-Z]\d+ \|", line):
      name, wrong, command, code, message, also = re.split(r" *(?<!\\)\| *", line)[1:-1]
      assert name not in table, f"{name} is there twice"
      table[name] = Row(name, wrong, command, int(code), tuple(re.findall("`([^`]+)`", message)), also)
  return table


def functions() -> dict[str, Callable]:
  """{id: the function that sets the fault up} of the modules of all groups."""
  modules = (importlib.import_module(name) for name in GROUPS.values())
  return {name: value for module in modules for name, value in vars(module).items()
          if re.fullmatch(r"[A-Z]\d+", name) and inspect.isfunction(value)}


class Failed(AssertionError):
  """What does not hold of a fault, or what its set-up could not do."""


@dataclasses.dataclass(frozen=True)
class Command:
  """One command that is judged.

  words: after `sftrl`
  environment: further variables; a command that has some of JAX needs `fresh`
  before: called in its process before it begins, to take rights or room away
  fresh: with an interpreter of its own instead of a fork
  script: the words are a whole command
  """

  words: tuple[str, ...]
  environment: tuple[tuple[str, str], ...] = ()
  before: Callable[[], None] | None = None
  fresh: bool = False
  script: bool = False


class Running:
  """A command that runs, and the file that its output goes to."""

  def __init__(self, command: Command, home: Path, output: Path):
    self.words, self.output, self.code = command.words, output, None
    if command.fresh or command.script:
      words = command.words if command.script else (sys.executable, "-m", "sftrl_jax", *command.words)
      with output.open("ab") as file:   # kept: without it Python reaps the process
        self._kept = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=home,
                                      start_new_session=True, env={**os.environ, **dict(command.environment)})
      self.pid = self._kept.pid
      return
    sys.stdout.flush()
    self.pid = os.fork()
    if not self.pid:
      _become(command, home, output)

  @property
  def text(self) -> str:
    return self.output.read_text(errors="replace")

  def wait(self, seconds: float = SECONDS) -> int:
    """Its exit code, 128 and the signal that ended it as in a shell; Failed after `seconds`, when it is killed."""
    end = time.monotonic() + seconds
    while self.code is None:
      pid, status = os.waitpid(self.pid, os.WNOHANG)
      if pid:
        self.code = os.waitstatus_to_exitcode(status)
        self.code = 128 - self.code if self.code < 0 else self.code
      elif time.monotonic() > end:
        self.signal(signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.code = 128 + signal.SIGKILL
        raise Failed(HANGS)
      else:
        time.sleep(0.01)
    return self.code

  def wait_until(self, condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Until the condition holds; Failed if the process ends before, or after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
      if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) or time.monotonic() > end:
        raise Failed(f"the run did not come to the point where the fault happens:\n{self.text[-600:]}")
      time.sleep(0.005)

  def signal(self, number: int) -> None:
    """Sends a signal to the process group."""
    os.killpg(self.pid, number)


def _become(command: Command, home: Path, output: Path) -> None:
  """Makes this fork the process of the command; does not return."""
  code = 1
  try:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, {signal.SIGINT: signal.default_int_handler}.get(number, signal.SIG_DFL))
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (1, 2):
      os.dup2(file, number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)
    os.chdir(home)
    os.environ.update(command.environment)
    sys.argv = ["sftrl", *command.words]
    if command.before:
      command.before()
    from sftrl_jax.__main__ import run
    code = run()
  except SystemExit as error:
    code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
  except BaseException:
    traceback.print_exc()
  try:   # as the interpreter ends: threads first, then what was registered, then the streams
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
  finally:
    os._exit(code)


class Case:
  """What a function of a row gets: an empty folder, in which all commands run."""

  def __init__(self, home: Path):
    self.home, self._count = home, 0

  def start(self, *words: str, **command) -> Running:
    """Begins a command of the set-up beside what follows."""
    self._count += 1
    return Running(Command(words, **command), self.home, self.home.with_name(f"output.{self._count}"))

  def run(self, *words: str, code: int = 0, **command) -> str:
    """The output of a command of the set-up; Failed unless it has this exit code."""
    running = self.start(*words, **command)
    if running.wait() != code:
      raise Failed(f"the set-up ended with exit code {running.code}:\n{running.text[-1200:]}")
    return running.text

  def lines(self, name: str = "run/metrics.jsonl") -> list[dict]:
    """The whole lines of a file of JSON lines; [] if there is none."""
    path = self.home / name
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

  def listing(self) -> dict:
    """{path: its bytes} of the folder."""
    return {str(path.relative_to(self.home)): path.is_file() and path.read_bytes()
            for path in sorted(self.home.rglob("*")) if "__pycache__" not in path.parts and path.name != "configs"}


def judge(row: Row, function: Callable, home: Path) -> str:
  """What does not hold of a row; "" if all holds."""
  ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)   # PR_SET_CHILD_SUBREAPER: whoever is left behind becomes a child of this
  (home / "home").mkdir(parents=True)
  (home / "home" / "configs").symlink_to(ROOT / "configs")
  case = Case(home / "home")
  try:
    return _judged(row, function, case)
  except AssertionError as error:
    return str(error) or traceback.format_exc()
  except Exception:
    return f"the set-up fails: {traceback.format_exc()}"
  finally:
    for pid in _children():
      os.kill(pid, signal.SIGKILL)


def _judged(row: Row, function: Callable, case: Case) -> str:
  steps = function(case)
  several = inspect.isgenerator(steps)
  command = next(steps) if several else steps
  command = command if isinstance(command, (Command, Running)) else Command(tuple(command))
  missing = [flag for flag in row.flags if not any(flag in word for word in command.words)]
  if missing:
    return f"the table shows {missing}, but the command is {' '.join(command.words)}"
  before = case.listing() if CLOSED in row.also else None
  running = command if isinstance(command, Running) else Running(command, case.home, case.home.with_name("output"))
  problems = []
  try:
    code = running.wait()
  except Failed as error:
    code, problems = row.code, [str(error)]
  output = running.text
  if code != row.code:
    problems.append(f"exit code {code} instead of {row.code}")
  if "Traceback (most recent" in output:
    problems.append("a Traceback")
  words = " ".join(output.split())
  for part in row.parts:
    if not re.search(".*".join(map(re.escape, part.split("..."))), words):
      problems.append(f"no {part!r}")
  if before is not None and case.listing() != before:
    after = case.listing()
    problems.append(f"written: {sorted(name for name in {*before, *after} if before.get(name) != after.get(name))}")
  if several and not problems:
    try:
      steps.send(output)
    except StopIteration:
      output = ""
  left = _left_behind()
  problems += [f"left behind: {left}"] if left else []
  return "; ".join(problems) + (f"\n{output[-1500:]}" if problems else "")


def _children() -> list[int]:
  """Processes whose parent is this one."""
  children = []
  for path in Path("/proc").glob("[0-9]*/stat"):
    try:
      state, parent = path.read_text().rpartition(")")[2].split()[:2]
    except OSError:   # it has just ended
      continue
    if int(parent) == os.getpid() and state != "Z":
      children.append(int(path.parent.name))
  return children


def _left_behind(seconds: float = 3.0) -> list[str]:
  """The commands of processes that go on after what began them has ended."""
  end = time.monotonic() + seconds
  while (children := _children()) and time.monotonic() < end:
    time.sleep(0.05)
  return [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in children]


def chosen(names: list[str], table: dict[str, Row]) -> list[str]:
  """The ids that the arguments mean: ids and groups; all of them without any."""
  unknown = [name for name in names if name not in table and name not in GROUPS]
  if unknown:
    sys.exit(f"{', '.join(unknown)} is neither an id of {TABLE.name} nor one of the groups {' '.join(GROUPS)}.")
  return [name for name in table if not names or name in names or name[0] in names]


def warm_up(scratch: Path) -> None:
  """Imports what commands need; whoever forks has neither threads nor a JAX backend."""
  os.environ.update(ENVIRONMENT, JAX_COMPILATION_CACHE_DIR=str(scratch / "compiled"), TMPDIR=str(scratch))
  tempfile.tempdir = str(scratch)
  warnings.filterwarnings("ignore", ".*fork.*")   # of those that know threads; there are none yet
  for name in MODULES:
    importlib.import_module(f"sftrl_jax.programs.{name}")
  for name in ("sftrl_jax.report.write", "sftrl_jax.programs.cli.optimizer_help", "sftrl_jax.text.pretrained",
               "sftrl_jax.checkpoints.hf", "sftrl_jax.checkpoints.gguf", "transformers", "datasets"):
    importlib.import_module(name)
  from jax._src import xla_bridge
  from transformers import AutoTokenizer, PreTrainedTokenizerFast
  assert AutoTokenizer and PreTrainedTokenizerFast and not xla_bridge.backends_are_initialized()


def run_all(names: list[str], table: dict[str, Row], setups: dict[str, Callable], scratch: Path) -> list[str]:
  """Runs the rows and prints what holds; the problem of each that does not."""
  queue, judges, problems, begun = list(names), {}, [], {}
  while queue or judges:
    while queue and len(judges) < JOBS:
      name = queue.pop(0)
      begun[name] = time.monotonic()
      pid = os.fork()
      if not pid:
        problem = judge(table[name], setups[name], scratch / name)
        (scratch / f"{name}.txt").write_text(problem)
        os._exit(0)
      judges[pid] = name
    name = judges.pop(os.wait()[0])
    verdict = scratch / f"{name}.txt"
    problem = verdict.read_text() if verdict.exists() else "its judge was killed"
    seconds = time.monotonic() - begun[name]
    print(f"{name:>4}  {'FAILS' if problem else 'holds'}  {seconds:5.1f} s  {table[name].wrong}", flush=True)
    if problem:
      problems.append(problem)
      print("".join(f"        {line}\n" for line in problem.splitlines()), end="", flush=True)
    shutil.rmtree(scratch / name, ignore_errors=True)
  return problems


def main(names: list[str]) -> int:
  """Runs the rows that are named, all without names; 0 if every one holds."""
  table = rows()
  names = chosen(names, table)
  scratch = Path(tempfile.mkdtemp(prefix="faults."))
  try:
    warm_up(scratch)
    problems = run_all(names, table, functions(), scratch)
  finally:
    shutil.rmtree(scratch, ignore_errors=True)
  count = lambda text: sum(text in problem for problem in problems)
  print(f"{count('a Traceback')} tracebacks, {count(HANGS)} hangs, {count('exit code')} wrong exit codes.")
  print(f"{len(names) - len(problems)} of {len(names)} hold.")
  return 1 if problems else 0

