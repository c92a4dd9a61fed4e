"""When one of several processes is gone, the others hear of it at once, say which one, and end too.

A dead process leaves the others inside a collective that never ends, and the coordination service would abort them some
time later with a wall of text. So each process keeps a connection to the first one, over which nothing is said but that
one is alive, or how one has ended. A connection that breaks without such a word is a death.
"""

import json
import os
import secrets
import selectors
import socket
import sys
import threading
import time

LOST = 71   # exit code of a process whose fellow is gone: a crash, after which all are started again
BEAT, DOUBT, SILENCE = 1.0, 5.0, 30.0   # seconds between signs of life; without one until it is told, and is a death
COURTESY = 1.0   # seconds that the first process stays, so that the others end by its word and not by its absence


class Peers:
  """The connections of this process: to all others if it is the first one, else to the first."""

  def __init__(self, process: int, names: list[str], connections: dict[int, socket.socket]):
    self.process, self.names, self.connections = process, names, connections
    self._heard, self._doubted = dict.fromkeys(connections, time.monotonic()), set()
    self._buffers = dict.fromkeys(connections, b"")
    self._lock = threading.Lock()
    self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
    self._thread.start()

  def say(self, word: dict) -> None:
    with self._lock:
      for connection in self.connections.values():
        try:
          connection.sendall(json.dumps(word).encode() + b"\n")
        except OSError:
          continue   # whoever reads from it notices

  def ended(self, code: int, why: str = "") -> None:
    """The last word of this process: the others end with the same code if they were to go on with it."""
    self.say({"ended": code, "why": why, "process": self.process})
    if code and not self.process:
      time.sleep(COURTESY)

  def settle(self, seconds: float = 5.0) -> None:
    """Gives the news that explains an error here, a fellow's death, the time to arrive; then this does not return."""
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
        self.say({})
      for process in [key.data for key in selector.get_map().values()]:
        self._weigh(process, now - self._heard[process])

  def _weigh(self, process: int, silent: float) -> None:
    """Of a machine that is frozen or cut off nothing is heard at all. It is named before the coordination service ends
    this process, which does not depend on Python and may be sure sooner."""
    if silent > SILENCE:
      self._lost(process, f"was silent for {SILENCE:.0f} s")
    if silent > DOUBT and process not in self._doubted:
      self._doubted.add(process)
      if not self.process:
        self.say({"silent": process})
      self._doubt(process)

  def _doubt(self, process: int) -> None:
    print(f"{self.names[process]} has been silent for {DOUBT:.0f} s: if it does not come back, all processes end.",
          file=sys.stderr, flush=True)

  def _read(self, process: int) -> bool:
    """Whether this process may still be heard of."""
    try:
      more = self.connections[process].recv(65536)
    except OSError:
      more = b""
    if not more:
      self._lost(process, "is gone, and its connection with it")
    self._heard[process] = time.monotonic()
    self._doubted.discard(process)
    *lines, self._buffers[process] = (self._buffers[process] + more).split(b"\n")
    heard = [self._hear(json.loads(line)) for line in lines]
    return all(heard)

  def _hear(self, word: dict) -> bool:
    if "silent" in word and word["silent"] != self.process:
      self._doubt(word["silent"])
    if "lost" in word:
      self._lost(word["lost"], word["why"])
    if word.get("ended"):
      if not self.process:
        self.say(word)
      why = f": {word['why']}" if word["why"] else ""
      self._leave(word["ended"], f"{self.names[word['process']]} has ended with exit code {word['ended']}{why}")
    return "ended" not in word

  def _lost(self, process: int, why: str) -> None:
    if not self.process:
      self.say({"lost": process, "why": why})
    self._leave(LOST, f"{self.names[process]} {why}: this process ends. Start all of them again with the same command; "
                      "they go on from the last checkpoint.")

  def _leave(self, code: int, told: str) -> None:
    print(f"error: {told}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    if not self.process:
      time.sleep(COURTESY)
    os._exit(code)


def connect() -> Peers:
  """Connects this process to the others; all of them are to call it.

  Where a network lets no one through but the coordination service, there are no connections, and a death is noticed by
  that service alone: every process is aborted after hosts.HEARTBEAT seconds.
  """
  from sftrl_jax.parallel import hosts  # JAX: nothing else here needs it
  name = f"{socket.gethostname()}, pid {os.getpid()}"
  listener = _listener(hosts.coordinator()) if hosts.is_first_process() else None
  port = listener.getsockname()[1] if listener else 0
  told = hosts.gathered([name, port, secrets.token_hex(16)])
  try:
    connections = _accepted(listener, told) if listener else {
        0: _introduce(hosts.coordinator(), told[0][1], hosts.index(), told[hosts.index()][2])}
    failed = ""
  except OSError as error:
    connections, failed = {}, f"{name}: {error}"
  failures = [why for why in hosts.gathered(failed) if why]
  if failures:
    connections = {}
    if hosts.is_first_process():
      print(f"The processes cannot connect to {hosts.coordinator()}:{told[0][1]} ({failures[0]}): should one die, the "
            f"coordination service aborts the others after {hosts.HEARTBEAT} s.", file=sys.stderr, flush=True)
  for connection in connections.values():
    connection.settimeout(SILENCE)
  return Peers(hosts.index(), [f"Process {process} ({name})" for process, (name, _, _) in enumerate(told)], connections)


def _introduce(host: str, port: int, process: int, word: str) -> socket.socket:
  connection = socket.create_connection((host, port), timeout=30)
  connection.sendall(json.dumps([process, word]).encode() + b"\n")
  return connection


def _listener(host: str) -> socket.socket:
  """On the address by which the others know this process; on all, where that is of something in front of it."""
  try:
    return socket.create_server((host, 0))
  except OSError:
    return socket.create_server(("", 0))


def _accepted(listener: socket.socket, told: list) -> dict[int, socket.socket]:
  """A connection of every other process; strangers, who do not know its word, are turned away."""
  listener.settimeout(60)
  connections: dict[int, socket.socket] = {}
  with listener:
    while len(connections) < len(told) - 1:
      connection, _ = listener.accept()
      connection.settimeout(10)
      process = _introduced(connection, told)
      if process is None:
        connection.close()
      else:
        connections[process] = connection
  return connections


def _introduced(connection: socket.socket, told: list) -> int | None:
  text = b""
  try:
    while not text.endswith(b"\n") and len(text) < 256 and (more := connection.recv(1)):
      text += more
    process, word = json.loads(text)
    return process if secrets.compare_digest(told[process][2], word) else None
  except (OSError, ValueError, TypeError, IndexError):
    return None
