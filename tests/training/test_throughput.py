"""How fast a step was, from what it spent and how long it took."""

import dataclasses
import types

import jax
import pytest

from sftrl_jax.parallel import chips
from sftrl_jax.training import throughput
from sftrl_jax.training.position import Position


@pytest.fixture
def four_v5e(monkeypatch):
  monkeypatch.setattr(jax, "device_count", lambda: 4)
  monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(device_kind="TPU v5 lite")])


BEFORE = Position(step=1, tokens=1000, seconds=10.0, train_flops=1e12, rollout_flops=1e12)
AFTER = BEFORE.ahead(0, 2000, 2.0, train=6e12, rollout=1e12, score=1e12)


def test_shares_are_of_all_chips_peaks(four_v5e):
  chip = chips.TPUS["v5e"]
  metrics = throughput.of_step(BEFORE, AFTER, 2.0, updating=1.0, rolling=0.5, read=8e9)
  assert metrics["throughput/tokens_per_second"] == 1000
  assert metrics["throughput/tflops_per_device"] == pytest.approx(8 / 2 / 4)
  assert metrics["throughput/mfu"] == pytest.approx(8e12 / (2 * 4 * chip.flops))
  assert metrics["throughput/update_mfu"] == pytest.approx(6e12 / (1 * 4 * chip.flops))
  assert metrics["throughput/decode_bandwidth"] == pytest.approx(8e9 / 0.5 / 4 / chip.bandwidth)
  assert throughput.chip_hours(AFTER) == pytest.approx(12 * 4 / 3600)
  assert throughput.summary(metrics) == "1.0k tok/s, MFU 1%"


def test_a_cpu_has_no_peak_that_we_know():
  metrics = throughput.of_step(BEFORE, dataclasses.replace(AFTER, tokens=1100), 2.0, rolling=0.5, read=8e9)
  assert not [name for name in metrics if "mfu" in name or name.endswith("decode_bandwidth")]
  assert metrics["throughput/decode_bytes_per_second"] == 16e9 and throughput.summary(metrics) == "50 tok/s"
  assert throughput.summary({}) == ""
