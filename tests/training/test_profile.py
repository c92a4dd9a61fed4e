"""Steps that are asked for are traced, neighbours into one trace, with their spans."""

import jax.numpy as jnp

from sftrl_jax.training.profile import Profile, span


def traces(home):
  return sorted(home.rglob("*.xplane.pb"))


def test_only_the_steps_that_are_asked_for_are_traced(tmp_path):
  told = []
  profile = Profile(tmp_path / "profile", (2, 3, 9), told.append)
  seen = []
  for number in range(1, 6):
    with profile.step(number), span("a span by this name"):
      jnp.ones(3).sum().block_until_ready()
    seen.append(len(traces(tmp_path)))
  assert seen == [0, 0, 1, 1, 1] and len(told) == 1
  content = traces(tmp_path)[0].read_bytes()
  assert b"a span by this name" in content and b"step" in content


def test_a_run_that_ends_inside_keeps_its_trace(tmp_path):
  profile = Profile(tmp_path, (1, 2), lambda _: None)
  with profile.step(1):
    jnp.ones(3).sum().block_until_ready()
  profile.close()
  assert len(traces(tmp_path)) == 1
  profile.close()   # nothing is open any more
