"""Checked fields are what they were, normalised; test_env.py and test_views.py hold the errors of most."""

import dataclasses

import pytest

from sftrl_jax.envs.virl import validation
from sftrl_jax.envs.virl.env import VIRL


@pytest.mark.parametrize("env", [VIRL(), VIRL(style="compact", legs=3, pool="all", space="mixed", rewards=[1, -1, -2]),
                                 VIRL(vision=True, style="compact", look="any", answer="signs")])
def test_checking_twice_changes_nothing(env):
  checked = validation.checked(env)
  assert dataclasses.replace(env, **checked) == env == VIRL(**dataclasses.asdict(env))
  assert {"legs", "variant", "vision", "answer"} <= set(checked)


def test_every_style_is_named_and_has_the_whole_interface():
  for style in validation.STYLES.values():
    assert all(callable(getattr(style, name)) for name in (
        "prompt", "write", "judge", "sees", "feedback", "action", "action_start"))


@pytest.mark.parametrize("fields, message", [
    (dict(answer="signs"), "^answer is 'signs', but vision is False"),
    (dict(answer="signs", vision=True), "^answer is 'signs', but style is 'paper'.*'compact'"),
    (dict(answer="sign", vision=True, style="compact"), "^answer is 'sign'.*signs")])
def test_signs_alone_need_a_picture_and_the_closed_style(fields, message):
  with pytest.raises(ValueError, match=message):
    VIRL(**fields)
