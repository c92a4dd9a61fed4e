"""A process hears how another one ended, and that one is gone; real processes over real connections."""

import json
import socket
import subprocess
import sys

import pytest

from sftrl_jax.parallel import peers

# Process 0 of two; the test is process 1.
CHILD = """
import socket, sys, time
from sftrl_jax.parallel.peers import Peers
fellows = Peers(0, ["Process 0 (here)", "Process 1 (host7, pid 5)"], {1: socket.socket(fileno=int(sys.argv[1]))})
print("ready", flush=True)
time.sleep(2.5)
fellows.ended(0)
print("done", flush=True)
"""


def begin():
  ours, theirs = socket.socketpair()
  child = subprocess.Popen([sys.executable, "-c", CHILD, str(theirs.fileno())], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, pass_fds=(theirs.fileno(),))
  theirs.close()
  return ours, child


def test_a_death_a_failure_and_a_good_end():
  words = {"gone": None, "failed": {"ended": 1, "why": "no room", "process": 1},
           "ended": {"ended": 0, "why": "", "process": 1}}
  children = {name: begin() for name in words}
  for name, (ours, child) in children.items():
    assert child.stdout.readline() == "ready\n"
    if words[name]:
      ours.sendall(json.dumps(words[name]).encode() + b"\n")
    ours.close()
  ends = {name: (*child.communicate(timeout=60), child.returncode) for name, (_, child) in children.items()}
  assert ends["gone"][2] == peers.LOST and "Process 1 (host7, pid 5) is gone" in ends["gone"][1]
  assert ends["failed"][2] == 1 and "Process 1 (host7, pid 5) has ended with exit code 1: no room" in ends["failed"][1]
  assert ends["ended"][0] == "done\n" and ends["ended"][2] == 0 and not ends["ended"][1]
  assert all(text.count("error:") == 1 for _, text, code in ends.values() if code)


@pytest.mark.parametrize("greeting,process", [
    (b'[1, "secret"]\n', 1), (b'[1, "guess"]\n', None), (b'[7, "secret"]\n', None), (b"GET / HTTP/1.1\n", None),
    (b"", None)])
def test_a_stranger_is_turned_away(greeting, process):
  listener = socket.create_server(("127.0.0.1", 0))
  processes = [["a", 0, ""], ["b", 0, "secret"]]
  first = socket.create_connection(listener.getsockname())
  first.sendall(greeting)
  first.shutdown(socket.SHUT_WR)
  second = socket.create_connection(listener.getsockname())
  if process is None:
    second.sendall(b'[1, "secret"]\n')
  connections = peers._accepted(listener, processes)
  assert list(connections) == [1]
  wanted = first if process else second
  assert connections[1].getpeername() == wanted.getsockname()


def test_one_that_is_silent_is_named_once_before_it_counts_as_dead(capsys):
  fellows = peers.Peers(0, ["Process 0 (here)", "Process 1 (host7, pid 5)"], {})
  fellows._judge_silence(1, peers.DOUBT - 1)
  assert not capsys.readouterr().err
  for silent in (peers.DOUBT + 1, peers.DOUBT + 2):
    fellows._judge_silence(1, silent)
  assert capsys.readouterr().err.count("Process 1 (host7, pid 5) has been silent for 5 s") == 1
