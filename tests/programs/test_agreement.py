"""What decodes against what trains. That they agree is asked of a whole run in test_trial.py; here, that it would be
seen if they did not."""

import types

import jax
import numpy as np
import pytest

from sftrl_jax.programs import agreement, masks
from sftrl_jax.programs.course import Wrong
from sftrl_jax.programs.setup import assemble


@pytest.fixture(scope="module")
def case(tiny):
  """(parts, parameters, episodes that no model sampled: the expert's words as if they were)."""
  parts = assemble(tiny("rl"), "rl")
  return parts, jax.jit(parts.model.init)(jax.random.key(0)), [masks.spoken(parts, seed) for seed in range(8)]


def test_tokens_that_are_not_the_argmax_are_seen(case):
  with pytest.raises(Wrong, match=r"of \d+ greedy tokens are the argmax, the worst is .* of the logits' spread"):
    agreement.greedy_is_the_argmax(*case)


def test_other_log_probabilities_are_seen(case):
  with pytest.raises(Wrong, match=r"differ by .* at most and .* on average \(allowed: .*, which is 0\.001 of"):
    agreement.probabilities_agree(*case)


@pytest.mark.parametrize("trained, decoded, coarser", [
    ("float32", "float32", "float32"), ("float32", "bfloat16", "bfloat16"), ("bfloat16", "float32", "bfloat16")])
def test_what_is_allowed_follows_the_coarser_dtype(trained, decoded, coarser):
  model = lambda dtype: types.SimpleNamespace(config=types.SimpleNamespace(dtype=dtype))
  parts = types.SimpleNamespace(model=model(trained), actor=types.SimpleNamespace(decoder=model(decoded)))
  assert agreement.dtype(parts) == coarser


def test_the_gap_and_the_spread_are_those_of_the_whole_logits(case):
  parts, params, episodes = case
  _, (inputs, targets_BT), _ = agreement._rows(parts, episodes)
  logits_BTV = np.asarray(parts.model.logits(params, inputs.tokens_BT, inputs.positions_BT, inputs.segments_BT))
  gap_BT, spread_BT = agreement._ranked(parts.model)(params, inputs, targets_BT)
  chosen_BT = np.take_along_axis(logits_BTV, np.asarray(targets_BT)[..., None], axis=-1)[..., 0]
  assert np.allclose(gap_BT, logits_BTV.max(-1) - chosen_BT, atol=1e-6)
  assert np.allclose(spread_BT, logits_BTV.std(-1), atol=1e-6)


def test_the_tolerance_follows_the_precision(monkeypatch):
  assert agreement.tolerance("float32") == 1e-3 < agreement.tolerance("bfloat16")
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  assert agreement.tolerance("float32") == agreement.tolerance("bfloat16")
