"""Peaks are numbers of this process; how large they are is nobody's business here."""

import os

from sftrl_jax.programs.bench import machine_peak


def test_peaks_are_measured_and_found_by_dtype():
  found = machine_peak.measure(long=0.0, megabytes=1)
  assert found.matmul("float32") == found.float32 > 0 and found.matmul("bfloat16") == found.bfloat16 > 0
  assert found.bandwidth > 0 and found.device and found.devices >= 1


def test_threads_are_those_that_were_decided_or_those_there_are(monkeypatch):
  monkeypatch.setenv("NPROC", "3")
  assert machine_peak.threads() == 3
  for nothing in ("", "0", "many"):
    monkeypatch.setenv("NPROC", nothing)
    assert 1 <= machine_peak.threads() <= os.cpu_count()
