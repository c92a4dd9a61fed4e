"""Measurements on a tiny scale."""

import pytest

from sftrl_jax.programs.bench import machine_peak, run


@pytest.fixture
def small(monkeypatch):
  monkeypatch.setattr(run, "PREFILL", (1, 8))
  monkeypatch.setattr(run, "DECODE", ((2, 8),))
  monkeypatch.setattr(run, "STEPS", 2)
  measure = machine_peak.measure
  monkeypatch.setattr(machine_peak, "measure", lambda: measure(0.0, 1))
