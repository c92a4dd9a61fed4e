"""The section own_reward: what cannot be meant is refused."""

import pytest

from sftrl_jax.programs.own_reward.config import OwnRewardConfig


@pytest.mark.parametrize("settings, message", [
    (dict(seconds=0.0), "seconds is 0.0; it must be positive"), (dict(seconds=float("nan")), "seconds is nan"),
    (dict(start_seconds=-1.0), "start_seconds is -1.0"), (dict(output_kib=-1), "output_kib is -1; it must be 0"),
    (dict(batch=-1), "batch is -1"), (dict(memory_gib=-1.0), "memory_gib is -1.0"),
    (dict(abstain_limit=1.5), "abstain_limit is 1.5; it is a share"),
    (dict(memory_gib=2.0, process=False), "memory_gib is 2, but process is False")])
def test_what_cannot_be_meant_is_told(settings, message):
  with pytest.raises(ValueError, match=message):
    OwnRewardConfig(**settings)
