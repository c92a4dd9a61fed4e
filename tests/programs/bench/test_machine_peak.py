"""Peaks are measured; no test depends on how large they are."""

import os

from sftrl_jax.programs.bench import machine_peak


def test_peaks_are_measured_by_dtype():
  peak = machine_peak.measure(long=0.0, megabytes=1)
  assert peak.matmul("float32") == peak.float32 > 0 and peak.matmul("bfloat16") == peak.bfloat16 > 0
  assert peak.bandwidth > 0 and peak.device and peak.devices >= 1


def test_threads_are_those_of_the_config_or_of_the_process(monkeypatch):
  monkeypatch.setenv("NPROC", "3")
  assert machine_peak.threads() == 3
  for nothing in ("", "0", "many"):
    monkeypatch.setenv("NPROC", nothing)
    assert 1 <= machine_peak.threads() <= os.cpu_count()
