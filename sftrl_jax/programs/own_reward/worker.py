"""The process of a user's reward function: `python -m sftrl_jax.programs.own_reward.worker`, started by process.py.

It is two processes. The first, the keeper, never runs the user's code: it shows the beginning of what that prints, and
when the run's end of the socket closes, or the second process has ended, it ends all that the second one has started,
also what has left its group of processes (on Linux). The second imports the file and answers requests. So nothing of
the user's outlives the run, however that ends, and the run waits for nothing that the user's code can hold.

A frame is its length in four bytes and JSON: no pickle, for what a user's function returns is not to be trusted.
"""

import contextlib
import ctypes
import dataclasses
import faulthandler
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

LENGTH = struct.Struct("!I")
PIECE = 2048          # bytes that a pipe which is ready takes at once
SUBREAPER, DEATH_SIGNAL = 36, 1   # PR_SET_CHILD_SUBREAPER and PR_SET_PDEATHSIG of Linux
PATIENCE = 5.0        # seconds in which what was killed has ended
LEFT_OUT = b"\n[config.own_reward.output_kib: what the reward function prints from here on is left out]\n"


def receive(sock: socket.socket, most: int = 2**31, left: Callable[[], float | None] = lambda: None) -> dict | None:
  """The next frame; None at the end of the stream. left: seconds that are left, of which TimeoutError is the end.

  ValueError for one of more bytes than `most`, or that is no JSON.
  """
  head = _exactly(sock, LENGTH.size, left)
  if head is None:
    return None
  size, = LENGTH.unpack(head)
  if size > most:
    raise ValueError(f"a frame of {size} bytes, of which {most} is the most")
  body = _exactly(sock, size, left)
  return None if body is None else json.loads(body)


def _exactly(sock: socket.socket, size: int, left: Callable[[], float | None]) -> bytes | None:
  parts = []
  while size:
    sock.settimeout(left())
    part = sock.recv(min(size, 1 << 20))
    if not part:
      return None
    parts.append(part)
    size -= len(part)
  return b"".join(parts)


def send(sock: socket.socket, value: dict) -> None:
  """Writes a frame, within the time limit that the socket has."""
  body = json.dumps(value).encode()
  sock.sendall(LENGTH.pack(len(body)) + body)


def main(control_fd: int, trace_fd: int, name: str, memory: int, shown: int) -> None:
  """control_fd: of a socket to the run; trace_fd: of a pipe that gets tracebacks of what hangs or crashes; name:
  path/to/file.py:function; memory: bytes of address space, 0 for any; shown: bytes of output that are shown"""
  control_process(SUBREAPER, 1)
  output, printed = os.pipe()
  worker = os.fork()
  if not worker:
    os.setpgid(0, 0)
    control_process(DEATH_SIGNAL, signal.SIGKILL)   # of the keeper
    os.close(output)
    for number in (1, 2):
      os.dup2(printed, number)
    os.close(printed)
    serve(control_fd, trace_fd, name, memory)
  for number in (printed, trace_fd):
    os.close(number)
  os._exit(keep(worker, control_fd, output, shown))


def control_process(option: int, value: int) -> None:
  """prctl of Linux; elsewhere nothing."""
  with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def keep(worker: int, control_fd: int, output: int, shown: int) -> int:
  """Waits for the end of the run's interest or of the worker, and ends all that is left. Returns the worker's exit
  code, 128 and the number of a signal that has ended it."""
  poll, ended = select.poll(), os.pidfd_open(worker) if hasattr(os, "pidfd_open") else None
  poll.register(control_fd, 0)   # the end of the stream alone
  poll.register(output, select.POLLIN)
  if ended is not None:
    poll.register(ended, select.POLLIN)
  while True:
    ready = dict(poll.poll(1000 if ended is not None else 50))
    if output in ready:
      shown, closed = _show(output, shown)
      if closed:
        poll.unregister(output)
    if control_fd in ready or ended in ready:
      break
    if ended is None and os.waitid(os.P_PID, worker, os.WEXITED | os.WNOHANG | os.WNOWAIT):
      break
    for child in _children():   # an orphan that has ended would stay in the system's table
      if child != worker:
        os.waitpid(child, os.WNOHANG)
  code = end_all(worker)
  os.set_blocking(output, False)
  with contextlib.suppress(OSError):
    closed = False
    while not closed:   # the last words of one that has crashed
      shown, closed = _show(output, shown)
  return code


def _show(output: int, shown: int) -> tuple[int, bool]:
  """Reads a piece of output, and writes it to stderr as far as `shown` bytes are left and nobody has to wait.

  Returns the bytes that are left, -1 once something was left out, and whether the output has ended.
  """
  text = os.read(output, 1 << 16)
  pieces = [text[first : min(first + PIECE, shown)] for first in range(0, min(len(text), max(0, shown)), PIECE)]
  if 0 <= shown < len(text):
    pieces.append(LEFT_OUT)
  with contextlib.suppress(OSError, ValueError):
    for piece in pieces:
      if select.select([], [2], [], 0)[1]:
        os.write(2, piece)
  return (-1 if len(text) > shown else shown - len(text)), not text


def end_all(worker: int) -> int:
  """Kills the worker, its group and, where the system tells of them, all that descends from it."""
  code, until = 0, time.monotonic() + PATIENCE
  with contextlib.suppress(ProcessLookupError, PermissionError):
    os.killpg(worker, signal.SIGKILL)
  while time.monotonic() < until:
    for child in _children():
      with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(child, signal.SIGKILL)
    try:
      pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
      break
    if pid == worker:
      code = os.waitstatus_to_exitcode(status)
    if not pid:
      time.sleep(0.002)
  return code if code >= 0 else 128 - code


def _children() -> list[int]:
  """The children of this process, orphans of the worker among them; [] where the system does not tell."""
  try:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
      return [int(word) for word in file.read().split()]
  except (OSError, ValueError):
    return []


def serve(control_fd: int, trace_fd: int, name: str, memory: int) -> None:
  """Imports the function, says what it is, and answers requests until the stream ends. Does not return."""
  process, control = os.getpid(), socket.socket(fileno=control_fd)
  trace = os.fdopen(trace_fd, "w")
  os.set_blocking(trace_fd, False)   # nobody waits for who reads it
  faulthandler.enable(trace)
  faulthandler.register(signal.SIGUSR1, trace)
  try:
    hello, function, form = _load(name, memory)
    if os.getpid() == process:   # else it is a child that the file has forked, and let go on
      send(control, {**hello, "pid": process})
      if function is not None:
        lane = _new_lane(control)
        if form.thread_safe:
          threading.Thread(target=_accept_lanes, args=(control, function, form), daemon=True).start()
        _answer_all(lane, function, form)
  finally:
    os._exit(0)


def _load(name: str, memory: int) -> tuple:
  """(what to say of the function, the function, its form), the last two None where it cannot be had."""
  if memory:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
  from sftrl_jax.programs.config import user_files
  from sftrl_jax.programs.config.errors import ConfigError
  from sftrl_jax.programs.own_reward.calls import form_of
  try:
    function = user_files.reward(name)
    form = form_of(function, name)
  except ConfigError as error:
    return {"error": str(error)}, None, None
  return {"form": dataclasses.asdict(form)}, function, form


def _new_lane(control: socket.socket) -> socket.socket | None:
  """The socket that the run sends over the control socket, on which requests come; None at the end."""
  message, descriptors, *_ = socket.recv_fds(control, 1, 1)
  return socket.socket(fileno=descriptors[0]) if message and descriptors else None


def _accept_lanes(control: socket.socket, function: Callable, form: Any) -> None:
  while (lane := _new_lane(control)) is not None:
    threading.Thread(target=_answer_all, args=(lane, function, form), daemon=True).start()


def _answer_all(lane: socket.socket | None, function: Callable, form: Any) -> None:
  """Answers what comes on a lane, one request after another."""
  from sftrl_jax.programs.own_reward.calls import answer
  while lane is not None and (request := receive(lane)) is not None:
    send(lane, answer(function, form, request))


if __name__ == "__main__":
  main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
