"""What a piece of work takes at its peak is counted, and what it has freed before is not."""

import numpy as np
import pytest

from sftrl_jax.programs.bench import memory_use
from sftrl_jax.programs.bench.memory_use import MemoryUse

MIB = 2**20


@pytest.mark.skipif(not memory_use.STATUS.is_file(), reason="the memory of a process is read from Linux")
def test_the_peak_is_what_was_held_at_once():
  held = np.ones(64 * MIB, np.uint8)
  del held
  before = MemoryUse.now()
  if before.peak < 0:
    pytest.skip("this process may not reset its peak")
  first = np.ones(32 * MIB, np.uint8)
  del first
  second = np.ones(32 * MIB, np.uint8)
  assert 32 * MIB <= before.increase() < 60 * MIB and second.any()


def test_without_linux_it_is_not_known(monkeypatch, tmp_path):
  monkeypatch.setattr(memory_use, "STATUS", tmp_path / "status")
  assert MemoryUse.now().increase() is None
