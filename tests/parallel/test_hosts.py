"""The index of a process and its rows. tests/programs/experiment/test_hosts_agree.py runs several processes."""

import socket

import jax
import numpy as np
import pytest

from sftrl_jax.parallel import hosts, mesh as meshes
from sftrl_jax.parallel.hosts import ProcessInfo, Share, process_info
from sftrl_jax.parallel.mesh import MeshConfig

GIVEN = {"SFTRL_COORDINATOR": "10.0.0.2:8476", "SFTRL_PROCESSES": "4", "SFTRL_PROCESS": "1"}


def test_flags_come_before_the_environment_and_nothing_means_one_process():
  assert process_info({}, {}) is None and process_info({}, {"SFTRL_PROCESSES": "1"}) is None
  assert process_info({}, GIVEN) == ProcessInfo("10.0.0.2:8476", 4, 1)
  assert process_info({"--process": "3", "--config": "x.py"}, GIVEN) == ProcessInfo("10.0.0.2:8476", 4, 3)


@pytest.mark.parametrize("change,message", [
    ({"SFTRL_PROCESS": ""}, "but not --process .SFTRL_PROCESS.: several processes need all three"),
    ({"SFTRL_PROCESSES": "many"}, "'many'; it must be a whole number"),
    ({"SFTRL_COORDINATOR": "first"}, "must be HOST:PORT"),
    ({"SFTRL_PROCESS": "4"}, "with 4 processes it must be from 0 to 3")])
def test_an_impossible_place_among_the_processes_is_refused_by_name(change, message):
  with pytest.raises(ValueError, match=message):
    process_info({}, {**GIVEN, **change})
  with pytest.raises(ValueError, match="LOCAL_DEVICES is '0'"):
    hosts.join({}, {"LOCAL_DEVICES": "0"})


def test_a_port_that_is_taken_is_refused_by_the_first_process():
  """jax.distributed would end the process by SIGSEGV."""
  with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(ValueError, match=f"--coordinator .SFTRL_COORDINATOR. is '{address}'.* in use"):
      hosts.join({"--coordinator": address, "--processes": "2", "--process": "0"}, {})
  assert not jax.distributed.is_initialized()
  with pytest.raises(ValueError, match="cannot listen at port 70000"):
    hosts.join({"--coordinator": "127.0.0.1:70000", "--processes": "2", "--process": "0"}, {})


def test_one_process_agrees_with_itself_and_makes_every_row():
  assert not hosts.several() and hosts.is_first_process() and hosts.count() == 1
  assert hosts.gathered({"a": 1}) == [{"a": 1}] and hosts.any_process(True) and not hosts.any_process(False)
  assert hosts.led_by_first(lambda: 3) == 3
  mesh = meshes.make(MeshConfig(2, 2, 2))
  share = hosts.share(mesh)
  assert share.slots(5) == [0, 1, 2, 3, 4]
  rows = meshes.shard_rows(mesh, np.arange(8))
  for fetched in (hosts.own_rows(rows), hosts.whole_arrays(rows)):
    np.testing.assert_array_equal(fetched, np.arange(8))


def test_a_process_makes_the_rows_of_its_devices():
  share = Share(4, ((0, 1), (2, 3), (0, 1)))
  assert [share.slots(8, process) for process in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3]]
  assert share.slots(4, 1) == [2, 3]   # a smaller batch is cut the same way


def test_the_handler_of_the_preemption_service_is_asked_for_only_where_there_is_one():
  assert not jax.distributed.is_initialized()
  with pytest.raises(RuntimeError, match="does not hear SIGTERM"):
    hosts.preemption()
