"""The process of a command: the environment of JAX, and the processes of one run."""

import os
import subprocess
import sys

import pytest

from sftrl_jax.parallel import hosts, peers
from sftrl_jax.programs.config.errors import AbortAllProcesses, ConfigError
from sftrl_jax.programs.runtime import process

FLAGS = ["--xla_cpu_multi_thread_eigen=false", "intra_op_parallelism_threads=1"]


@pytest.fixture
def environment(monkeypatch, tmp_path):
  """Restores the variables that the tests set, and hides the machine's accelerators."""
  for name in ("NPROC", "XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL", "JAX_PLATFORMS"):
    monkeypatch.setenv(name, "")   # so that monkeypatch restores it
    monkeypatch.delenv(name)
  monkeypatch.setattr(process, "ACCELERATORS", (f"{tmp_path}/accel*",))
  return os.environ


@pytest.mark.parametrize(("config", "overrides", "threads"), [
    ({"mesh": {"cpu_threads": 3}}, (), 3),
    ({"mesh": {"cpu_threads": 3}}, (("mesh.cpu_threads", "1"), ("seed", "7")), 1),
    ({}, (), 0), ({"mesh": "wrong"}, (), 0), ({"mesh": {"cpu_threads": "many"}}, (), 0),
    ({}, (("mesh.cpu_threads", "-1"),), 0),
])
def test_threads_come_from_the_command_line_or_the_file(config, overrides, threads):
  assert process.cpu_threads(config, overrides) == threads


def test_a_process_may_use_a_core():
  assert 1 <= process.cores() <= os.cpu_count()


def test_the_peak_of_memory_is_in_bytes():
  held = bytearray(b"1" * 2**28)
  assert len(held) <= process.peak_memory() < 2**40


def test_a_process_is_alive_until_it_has_ended():
  child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
  assert process.is_alive(child.pid) and process.is_alive(1)   # 1 belongs to another user, unless we are root
  child.communicate(b"\n")
  assert not process.is_alive(child.pid)


def test_threads_are_set_and_logs_are_quiet(environment, monkeypatch):
  process.prepare_environment(0)
  assert environment["TF_CPP_MIN_LOG_LEVEL"] == "2"
  assert "NPROC" not in environment and "XLA_FLAGS" not in environment
  monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
  for _ in range(2):   # a flag is added once
    process.prepare_environment(1)
    assert environment["NPROC"] == "1" and environment["XLA_FLAGS"].split() == ["--xla_dump_to=x", *FLAGS]


def test_several_threads_keep_the_thread_pools(environment):
  process.prepare_environment(3)
  assert environment["NPROC"] == "3" and not environment["XLA_FLAGS"]


def test_a_level_of_logs_that_is_set_stays(environment, monkeypatch):
  monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
  process.prepare_environment(0)
  assert environment["TF_CPP_MIN_LOG_LEVEL"] == "0"


@pytest.mark.parametrize(("chips", "compiler", "platforms"), [
    ((), True, "cpu"), (("accel0",), True, None), ((), False, None)])
def test_a_compiler_for_tpus_is_no_tpu(environment, chips, compiler, platforms, tmp_path, monkeypatch):
  for chip in chips:
    (tmp_path / chip).touch()
  monkeypatch.setattr(process.importlib.util, "find_spec", lambda name: object() if compiler else None)
  process.prepare_environment(0)
  assert environment.get("JAX_PLATFORMS") == platforms


def test_one_process_joins_nobody_and_is_the_first(monkeypatch):
  monkeypatch.setattr(peers, "connect", lambda: pytest.fail("one process has no peers"))
  with process.joined_processes({}) as is_first:
    assert is_first


def test_flags_of_processes_that_do_not_fit_are_refused():
  with pytest.raises(ConfigError, match="--coordinator"), process.joined_processes({"--processes": "2"}):
    pytest.fail("the block began")


class Link:
  """A stand-in for parallel.peers.Peers that records what it sends."""

  def __init__(self):
    self.sent = []

  def ended(self, code, why=""):
    self.sent.append((code, why))

  def settle(self):
    self.sent.append("settle")


@pytest.fixture
def link(monkeypatch):
  """This process as the second one of two, without the others."""
  link = Link()
  for name, value in {"join": None, "several": True, "is_first_process": False, "wait": None}.items():
    monkeypatch.setattr(hosts, name, lambda *arguments, value=value: value)
  monkeypatch.setattr(peers, "connect", lambda: link)
  monkeypatch.setattr(process.atexit, "register", lambda function: link.sent.append(function.__name__))
  return link


def test_a_process_that_is_complete_says_so(link):
  with process.joined_processes({}) as is_first:
    assert not is_first
  assert link.sent == [(0, "")]


@pytest.mark.parametrize(("error", "sent"), [
    (ConfigError("batch is 3.\nmore"), ["_exit_at_once", (1, "batch is 3."), (0, "")]),
    (RuntimeError("lost"), ["settle", "_exit_at_once", (1, "lost"), (0, "")]),
    (AbortAllProcesses("all alike"), [(0, "")]),
])
def test_an_error_in_one_process_is_sent_to_the_others(link, error, sent):
  with pytest.raises(type(error)), process.joined_processes({}):
    raise error
  assert link.sent == sent
