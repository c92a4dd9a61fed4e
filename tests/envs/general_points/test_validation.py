"""Checked fields are what they were, normalised; test_env.py and test_looks.py hold the errors."""

import dataclasses

import pytest

from sftrl_jax.envs.general_points import validation
from sftrl_jax.envs.general_points.env import GeneralPoints


@pytest.mark.parametrize("env", [GeneralPoints(), GeneralPoints(style="short", faces="diverse", shifts=("fake",)),
                                 GeneralPoints(vision=True, style="recite", noise=1)])
def test_checking_twice_changes_nothing(env):
  checked = validation.checked(env)
  assert dataclasses.replace(env, **checked) == env == GeneralPoints(**dataclasses.asdict(env))
  assert {"target", "variant", "vision"} <= set(checked)


def test_every_style_is_named_and_has_the_whole_interface():
  assert set(validation.CLOSED) <= set(validation.STYLES)
  for style in validation.STYLES.values():
    assert all(callable(getattr(style, name)) for name in ("prompt", "write", "read", "feedback", "action_start"))
