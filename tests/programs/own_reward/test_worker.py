"""Frames between a run and the process of a reward function: whole ones, or an end that is told."""

import socket
import time

import pytest

from sftrl_jax.programs.own_reward.process import _until
from sftrl_jax.programs.own_reward.worker import LENGTH, receive, send


@pytest.fixture
def ends():
  ours, theirs = socket.socketpair()
  with ours, theirs:
    yield ours, theirs


def test_a_frame_is_what_was_sent(ends):
  values = [{}, {"text": "ä\ud800\0", "numbers": [0.1 + 0.2, 1e-320, None]}, {"long": "x" * 50_000}]
  for value in values:
    send(ends[0], value)
  assert [receive(ends[1]) for _ in values] == values
  ends[0].close()
  assert receive(ends[1]) is None


@pytest.mark.parametrize("sent", [LENGTH.pack(10) + b"{}", LENGTH.pack(3)[:2], LENGTH.pack(2)])
def test_half_a_frame_is_an_end(ends, sent):
  ends[0].sendall(sent)
  ends[0].close()
  assert receive(ends[1]) is None


@pytest.mark.parametrize("sent", [LENGTH.pack(2**31), LENGTH.pack(3) + b"{1}", LENGTH.pack(2) + b"\xff\xff"])
def test_what_is_no_frame_is_an_error(ends, sent):
  ends[0].sendall(sent)
  with pytest.raises(ValueError):
    receive(ends[1], 1000)


def test_a_frame_that_never_comes_is_waited_for_no_longer_than_said(ends):
  for sent in (b"", LENGTH.pack(10) + b"{"):
    ends[0].sendall(sent)
    with pytest.raises(TimeoutError):
      receive(ends[1], 1000, _until(time.monotonic() + 0.05))
