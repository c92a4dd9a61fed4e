"""When one of several processes dies, the others learn of it at once, print which one, and exit too.

A dead process leaves the others inside a collective that never ends; the coordination service would abort them some
time later with a long stack trace. So each process keeps a connection to process 0, which carries only heartbeats and
exit codes. A connection that breaks without an exit code means a death.
"""

import json
import os
import secrets
import selectors
import socket
import sys
import threading
import time

LOST = 71   # exit code after the death of another process: a crash, after which all are started again
BEAT = 1.0   # seconds between heartbeats
DOUBT, SILENCE = 5.0, 30.0   # seconds without a heartbeat until a warning, and until it counts as a death
LINGER = 1.0   # seconds that process 0 outlives its last message, so that the others exit by it, not by its absence


class Peers:
  """The connections of this process: of process 0 to all others, of any other to process 0.

  A daemon thread reads them for the whole life of the process, and ends the process when another one is lost.
  """

  def __init__(self, process: int, names: list[str], connections: dict[int, socket.socket]):
    self.process, self.names, self.connections = process, names, connections
    self._last_heard, self._warned = dict.fromkeys(connections, time.monotonic()), set()
    self._buffers = dict.fromkeys(connections, b"")
    self._lock = threading.Lock()
    self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
    self._thread.start()

  def send(self, message: dict) -> None:
    """Sends a message over every connection; the main thread and the reader both do, so a lock keeps lines whole."""
    with self._lock:
      for connection in self.connections.values():
        try:
          connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
          continue   # the reader notices that the connection is broken

  def ended(self, code: int, why: str = "") -> None:
    """Announces that this process exits with `code`; unless it is 0, the others exit with the same code."""
    self.send({"ended": code, "why": why, "process": self.process})
    if code and not self.process:
      time.sleep(LINGER)

  def settle(self, seconds: float = 5.0) -> None:
    """Waits for the news of another process's death, which may explain an error in this one; it ends the process."""
    self._thread.join(seconds)

  def _watch(self) -> None:
    selector, beat = selectors.DefaultSelector(), 0.0
    for process, connection in self.connections.items():
      selector.register(connection, selectors.EVENT_READ, process)
    while selector.get_map():
      for key, _ in selector.select(BEAT / 2):
        if not self._read(key.data):
          selector.unregister(key.fileobj)
      now = time.monotonic()
      if now - beat > BEAT:
        beat = now
        self.send({})
      for process in [key.data for key in selector.get_map().values()]:
        self._judge_silence(process, now - self._last_heard[process])

  def _judge_silence(self, process: int, seconds: float) -> None:
    """Warns of a process, then gives it up. A machine that is frozen or cut off breaks no connection. The warning comes
    early because the coordination service, which does not depend on Python, may end this process before SILENCE."""
    if seconds > SILENCE:
      self._lost(process, f"was silent for {SILENCE:.0f} s")
    if seconds > DOUBT and process not in self._warned:
      self._warned.add(process)
      if not self.process:
        self.send({"silent": process})
      self._warn(process)

  def _warn(self, process: int) -> None:
    print(f"{self.names[process]} has been silent for {DOUBT:.0f} s: if it does not come back, all processes end.",
          file=sys.stderr, flush=True)

  def _read(self, process: int) -> bool:
    """Reads a connection; returns whether to go on reading it."""
    try:
      received = self.connections[process].recv(65536)
    except OSError:
      received = b""
    if not received:
      self._lost(process, "is gone, and its connection with it")
    self._last_heard[process] = time.monotonic()
    self._warned.discard(process)
    *lines, self._buffers[process] = (self._buffers[process] + received).split(b"\n")
    go_on = [self._handle(json.loads(line)) for line in lines]
    return all(go_on)

  def _handle(self, message: dict) -> bool:
    """Acts on a message, which process 0 passes on to the others; returns whether its sender still runs."""
    if "silent" in message and message["silent"] != self.process:
      self._warn(message["silent"])
    if "lost" in message:
      self._lost(message["lost"], message["why"])
    if message.get("ended"):
      if not self.process:
        self.send(message)
      why = f": {message['why']}" if message["why"] else ""
      code, name = message["ended"], self.names[message["process"]]
      self._exit(code, f"{name} has ended with exit code {code}{why}")
    return "ended" not in message

  def _lost(self, process: int, why: str) -> None:
    if not self.process:
      self.send({"lost": process, "why": why})
    self._exit(LOST, f"{self.names[process]} {why}: this process ends. Start all of them again with the same command; "
                     "they go on from the last checkpoint.")

  def _exit(self, code: int, message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    if not self.process:
      time.sleep(LINGER)
    os._exit(code)   # from a thread, while the main one may be inside a collective for ever


def connect() -> Peers:
  """Connects this process to the others. A collective call.

  Where the network blocks the connections, there are none, and only the coordination service notices a death: it aborts
  every process after hosts.HEARTBEAT seconds.
  """
  from sftrl_jax.parallel import hosts  # JAX: nothing else here needs it
  name = f"{socket.gethostname()}, pid {os.getpid()}"
  listener = _listener(hosts.coordinator()) if hosts.is_first_process() else None
  port = listener.getsockname()[1] if listener else 0
  processes = hosts.gathered([name, port, secrets.token_hex(16)])
  try:
    connections = _accepted(listener, processes) if listener else {
        0: _introduce(hosts.coordinator(), processes[0][1], hosts.index(), processes[hosts.index()][2])}
    failure = ""
  except OSError as error:
    connections, failure = {}, f"{name}: {error}"
  failures = [why for why in hosts.gathered(failure) if why]
  if failures:
    connections = {}
    if hosts.is_first_process():
      print(f"The processes cannot connect to {hosts.coordinator()}:{processes[0][1]} ({failures[0]}): should one die, "
            f"the coordination service aborts the others after {hosts.HEARTBEAT} s.", file=sys.stderr, flush=True)
  for connection in connections.values():
    connection.settimeout(SILENCE)
  names = [f"Process {process} ({name})" for process, (name, _, _) in enumerate(processes)]
  return Peers(hosts.index(), names, connections)


def _introduce(host: str, port: int, process: int, token: str) -> socket.socket:
  connection = socket.create_connection((host, port), timeout=30)
  connection.sendall(json.dumps([process, token]).encode() + b"\n")
  return connection


def _listener(host: str) -> socket.socket:
  """Listens on the address that the others know; on all, where that address is a proxy's."""
  try:
    return socket.create_server((host, 0))
  except OSError:
    return socket.create_server(("", 0))


def _accepted(listener: socket.socket, processes: list) -> dict[int, socket.socket]:
  """A connection of every other process; one without the token of a process is closed.

  processes: [name, port, token] of each.
  """
  listener.settimeout(60)
  connections: dict[int, socket.socket] = {}
  with listener:
    while len(connections) < len(processes) - 1:
      connection, _ = listener.accept()
      connection.settimeout(10)
      process = _introduced(connection, processes)
      if process is None:
        connection.close()
      else:
        connections[process] = connection
  return connections


def _introduced(connection: socket.socket, processes: list) -> int | None:
  """The process at the other end; None for a stranger."""
  text = b""
  try:
    while not text.endswith(b"\n") and len(text) < 256 and (byte := connection.recv(1)):
      text += byte
    process, token = json.loads(text)
    return process if secrets.compare_digest(processes[process][2], token) else None
  except (OSError, ValueError, TypeError, IndexError):
    return None
