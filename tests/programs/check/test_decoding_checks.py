"""Decoding against training. test_run_checks.py tests on a whole run that they agree; this file, that a difference is
seen."""

import types

import jax
import numpy as np
import pytest

from sftrl_jax.programs.check import decoding_checks, mask_checks
from sftrl_jax.programs.check.expert_episodes import CheckFailed
from sftrl_jax.programs.experiment.build import build_experiment


@pytest.fixture(scope="module")
def case(tiny):
  """(experiment, parameters, episodes that no model sampled: the expert's words as if they were)."""
  experiment = build_experiment(tiny("rl"), "rl")
  params = jax.jit(experiment.model.init)(jax.random.key(0))
  return experiment, params, [mask_checks.expert_episode(experiment, seed) for seed in range(8)]


def test_tokens_that_are_not_the_argmax_are_seen(case):
  with pytest.raises(CheckFailed, match=r"of \d+ greedy tokens are the argmax, the worst is .* of the logits' spread"):
    decoding_checks.check_greedy_tokens(*case)


def test_other_log_probabilities_are_seen(case):
  with pytest.raises(CheckFailed, match=r"differ by .* at most and .* on average \(allowed: .*, which is 0\.001 of"):
    decoding_checks.check_logprobs(*case)


@pytest.mark.parametrize("trained, decoded, coarser", [
    ("float32", "float32", "float32"), ("float32", "bfloat16", "bfloat16"), ("bfloat16", "float32", "bfloat16")])
def test_what_is_allowed_follows_the_coarser_dtype(trained, decoded, coarser):
  model = lambda dtype: types.SimpleNamespace(config=types.SimpleNamespace(dtype=dtype))
  experiment = types.SimpleNamespace(model=model(trained), actor=types.SimpleNamespace(decoder=model(decoded)))
  assert decoding_checks.coarser_dtype(experiment) == coarser


def test_the_gap_and_the_spread_are_those_of_the_whole_logits(case):
  experiment, params, episodes = case
  _, (inputs, targets_BT), _ = decoding_checks._rows(experiment, episodes)
  logits_BTV = np.asarray(experiment.model.logits(params, inputs.tokens_BT, inputs.positions_BT, inputs.segments_BT))
  gap_BT, spread_BT = decoding_checks._logit_gaps(experiment.model)(params, inputs, targets_BT)
  chosen_BT = np.take_along_axis(logits_BTV, np.asarray(targets_BT)[..., None], axis=-1)[..., 0]
  assert np.allclose(gap_BT, logits_BTV.max(-1) - chosen_BT, atol=1e-6)
  assert np.allclose(spread_BT, logits_BTV.std(-1), atol=1e-6)


def test_the_tolerance_follows_the_precision(monkeypatch):
  assert decoding_checks.tolerance("float32") == 1e-3 < decoding_checks.tolerance("bfloat16")
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  assert decoding_checks.tolerance("float32") == decoding_checks.tolerance("bfloat16")
