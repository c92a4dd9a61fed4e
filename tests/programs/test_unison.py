"""Processes that are not alike are told apart before anything is written."""

import pytest

from sftrl_jax.programs import unison

ALIKE = {"config": {"seed": 0, "optimizer": {"name": "adamw"}}, "code": "a" * 64, "files named by the config": {},
         "data": "", "versions": ["0.10.2", "0.10.2"], "devices of a process": 4}


def test_what_differs_is_named_with_its_processes():
  assert not unison.apart([ALIKE] * 3)
  other = {**ALIKE, "code": "b" * 64, "data": "c" * 64, "config": {"seed": 1, "optimizer": {"name": "adamw"}}}
  config, code, data = unison.apart([ALIKE, ALIKE, other])
  assert config == "config.seed is 0 in process 0, 1 in process 2: give all of them the same command."
  assert code.startswith("code: aaaaaaaaaaaa in processes 0, 1; bbbbbbbbbbbb in process 2: install the same revision")
  assert data.startswith("data: none in processes 0, 1; cccccccccccc in process 2")


@pytest.mark.parametrize("environment,processes,told", [
    ({}, 2, []), ({"TPU_WORKER_HOSTNAMES": "localhost"}, 2, []), ({"TPU_WORKER_HOSTNAMES": "a,b"}, 2, []),
    ({"TPU_WORKER_HOSTNAMES": "a,b,c"}, 2, ["the pod has 3 hosts, but 2 processes run"]),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": "2"}, 2, ["the pod has 4 hosts"])])
def test_every_host_of_the_pod_takes_part(environment, processes, told):
  found = unison.missing(processes, processes, environment)
  assert [line.startswith(start) for line, start in zip(found, told, strict=True)] == [True] * len(told)


def test_a_process_without_devices_is_missed():
  assert "only 1 of them have devices" in unison.missing(2, 1, {})[0]


def test_the_digest_of_the_code_follows_its_text(tmp_path):
  (tmp_path / "room").mkdir()
  (tmp_path / "room" / "a.py").write_text("x = 1\n")
  before = unison.code(tmp_path)
  assert before == unison.code(tmp_path)
  (tmp_path / "room" / "a.py").write_text("x = 2\n")
  assert before != unison.code(tmp_path)
