"""What group methods share: how tokens weigh, and which settings make no sense."""

import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.objectives.groups import weigh
from sftrl_jax.objectives.grpo import GRPOConfig
from sftrl_jax.objectives.rloo import RLOOConfig

# Episodes of 4, 1, 0 and 3 tokens.
MASK = jnp.asarray([[1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 1]], jnp.float32)


@pytest.mark.parametrize("mean, weights, count", [
    ("token", [1, 1, 0, 1], 8), ("sequence", [1 / 4, 1, 0, 1 / 3], 3), ("constant", [1, 1, 0, 1], 4 * 10)])
def test_tokens_weigh_by_the_mean_that_is_taken(mean, weights, count):
  """One token of an episode weighs `weights`; episodes without a token count only where everything is constant."""
  weights_BT, total = weigh(MASK, mean, 10)
  np.testing.assert_allclose(weights_BT, MASK * np.asarray(weights)[:, None], rtol=1e-6)
  assert total == count


@pytest.mark.parametrize("mean", ["token", "sequence", "constant"])
def test_pieces_of_a_batch_add_up(mean):
  whole, pieces = weigh(MASK, mean, 10), [weigh(MASK[row : row + 1], mean, 10) for row in range(4)]
  np.testing.assert_array_equal(whole[0], np.concatenate([weights_BT for weights_BT, _ in pieces]))
  assert whole[1] == sum(count for _, count in pieces)


@pytest.mark.parametrize("mean", ["token", "sequence", "constant"])
def test_nothing_weighs_nothing(mean):
  weights_BT, count = weigh(jnp.zeros((2, 3)), mean, 5)
  assert not weights_BT.any() and np.isfinite(count)


@pytest.mark.parametrize("section", [GRPOConfig, RLOOConfig])
@pytest.mark.parametrize("change, told", [
    ({"group": 1}, "group is 1; it must be at least 2"), ({"group": 0}, "group is 0"), ({"epochs": 0}, "epochs is 0"),
    ({"minibatches": 0}, "minibatches is 0"), ({"max_rounds": 0}, "max_rounds is 0"), ({"clip": 0}, "clip is 0"),
    ({"clip": 1.0}, "clip is 1.0"), ({"kl_coef": -1}, "kl_coef is -1"),
    ({"kl_target": 6.0}, "kl_target is 6.0, but kl_coef is 0"), ({"kl_horizon": 0}, "kl_horizon is 0"),
    ({"turn_gamma": 1.1}, "turn_gamma is 1.1"),
    ({"truncated": "drop"}, "truncated is 'drop'; it must be one of keep, mask"),
    ({"filter_by": "length"}, "filter_by is 'length'; it must be one of success, reward"),
    ({"overlong_buffer": -1}, "overlong_buffer is -1"), ({"overlong_penalty": -1.0}, "overlong_penalty is -1.0"),
    *(({name: float("nan")}, f"{name} is nan") for name in ("clip", "kl_coef", "turn_gamma", "overlong_penalty"))])
def test_what_makes_no_sense_is_refused(section, change, told):
  with pytest.raises(ValueError, match=f"^{told}"):
    section(**change)


@pytest.mark.parametrize("section, change, told", [
    (GRPOConfig, {"clip_high": -0.1}, "clip_high is -0.1"), (GRPOConfig, {"entropy_coef": -1}, "entropy_coef is -1"),
    (GRPOConfig, {"mean": "tokens"}, "mean is 'tokens'; it must be one of token, sequence, constant"),
    (GRPOConfig, {"kl": "both"}, "kl is 'both'"), (GRPOConfig, {"kl_estimator": "k1"}, "kl_estimator is 'k1'"),
    (RLOOConfig, {"ratio": "turn"}, "ratio is 'turn'; it must be one of sequence, token")])
def test_so_are_settings_of_one_method(section, change, told):
  with pytest.raises(ValueError, match=f"^{told}"):
    section(**change)


@pytest.mark.parametrize("mean", ["token", "sequence", "constant"])
def test_an_episode_in_several_rows_weighs_as_it_does_in_one(mean):
  """Row s * E + e is a part of episode e: its tokens weigh alike, and there are as many episodes."""
  whole_ET = np.asarray([[1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 1, 1], [0] * 6, [0, 0, 0, 1, 0, 0]], np.float32)
  parts_BT = np.concatenate([whole_ET[:, :3], whole_ET[:, 3:]])
  weights_ET, count = weigh(jnp.asarray(whole_ET), mean, 7)
  weights_BT, same = weigh(jnp.asarray(parts_BT), mean, 7, rows=2)
  np.testing.assert_allclose(np.concatenate([weights_BT[:4], weights_BT[4:]], axis=1), weights_ET, rtol=1e-6)
  assert same == count
