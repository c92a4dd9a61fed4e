"""The numbers of a rollout."""

import pytest

from sftrl_jax.rollout.config import RolloutConfig


@pytest.mark.parametrize("settings, key", [
    (dict(rows=0), "rows"), (dict(prompt_tokens=0), "prompt_tokens"), (dict(feedback_tokens=0), "feedback_tokens"),
    (dict(max_new_tokens=0), "max_new_tokens"), (dict(temperature=0.0), "temperature"),
    (dict(shrink=(1.0,)), "shrink"), (dict(segment=-1), "segment"),
    (dict(feedback_images=-1), "feedback_images"), (dict(feedback_images=1, carry=False), "feedback_images")])
def test_wrong_settings_name_their_key(settings, key):
  with pytest.raises(ValueError, match=f"^{key} is"):
    RolloutConfig(**settings)
