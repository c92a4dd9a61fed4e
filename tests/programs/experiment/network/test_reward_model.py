"""What a reward model must be, to be one of a run: every mistake is one error, before anything is loaded."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from sftrl_jax.inputs import right_pad
from sftrl_jax.models import DecoderConfig, lora
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.parallel.mesh import MeshConfig
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.environment import make_env
from sftrl_jax.programs.experiment.network.reward_model import RewardModelConfig, describe, refuse_critic
from sftrl_jax.programs.start import initial_params
from sftrl_jax.text.tokenizer import byte, words


@pytest.fixture(scope="module")
def described(tiny):
  """described(start, tokenizer=..., **config) -> what `describe` says of it for a policy with the words of `tiny`."""
  ours = words(make_env(tiny("rl").env.to_dict()).words)
  mesh = meshes.make(MeshConfig(), jax.devices()[:1])
  return lambda start, tokenizer=ours, **config: describe(RewardModelConfig(start=str(start), **config), tokenizer, {},
                                                          mesh)


def test_a_finished_run_is_described_with_its_last_step_and_its_scale(described, reward_home, tmp_path):
  home = reward_home(tmp_path / "run")
  for start in (home, f"{home}@60"):
    reward = described(start)
    assert (reward.step, reward.source, reward.layers, reward.lora) == (60, f"{home}@60", (), None)
    assert (reward.scale.sd, reward.model.config.width) == (2.0, 16) and reward.model.config.remat == "none"
  (home / "reward_scale.json").unlink()
  assert described(home, scale=False).scale is None
  assert described("") is None


def test_what_a_reward_model_has_cost_is_a_number_or_what_its_run_records(described, reward_home, tmp_path):
  home = reward_home(tmp_path / "run")
  assert (described(home).flops, described(home, flops=5.0).flops) == (0.0, 5.0)
  edit(home, "reward_scale.json", flops=7e9)
  assert described(home, flops="recorded").flops == 7e9
  for value in (None, True, -1, float("inf")):
    edit(home, "reward_scale.json", flops=value)
    with pytest.raises(ConfigError, match=r"reward_model.flops is 'recorded', but .* give the FLOPs as a number, or 0"):
      described(home, flops="recorded")
  with pytest.raises(ConfigError, match="names no reward model: give --config.reward_model.start=WORKDIR"):
    described("", flops="recorded")
  with pytest.raises(ValueError, match="flops is -1"):
    RewardModelConfig(flops=-1)


@pytest.mark.parametrize("change, message", [
    (lambda home: f"{home}/nothing", "which is no workdir of a run"),
    (lambda home: f"{home}@7", "has no checkpoint 7; steps there: 60"),
    (lambda home: (home / "checkpoints" / "50").mkdir() or f"{home}@50", "is of its last step 60.*scale=False"),
    (lambda home: (home / "reward_scale.json").unlink(), r"reward_scale.json is missing.*reward_model.scale=False"),
    (lambda home: edit(home, "reward_scale.json", sd="wide"), "reward_scale.json is damaged"),
    (lambda home: edit(home, "reward_scale.json", sd=0), "sd must be above 0"),
    (lambda home: edit(home, "reward_scale.json", lowest=10), "lowest at most highest"),
    (lambda home: edit(home, "progress.json", phase="train"), "its run is not finished"),
    (lambda home: (home / "progress.json").unlink(), "its run is not finished"),
    (lambda home: edit(home, "config.json", objective="dpo"), "of objective 'dpo', which has no score head"),
    (lambda home: edit(home, "config.json", verb="sft", objective=None), "a run of `sftrl sft`"),
    (lambda home: edit(home, "config.json", model=dict(widht=3)), "cannot be built from its config.json.*widht"),
    (lambda home: edit(home, "config.json", tokenizer=dict(name="bytes")), r"tokenizer \(bytes of 260 .* \(words of")])
def test_what_is_no_reward_model_is_one_error(described, reward_home, tmp_path, change, message):
  home = reward_home(tmp_path / "run")
  start = change(home)
  with pytest.raises(ConfigError, match=f"config.reward_model.start is .*{message}"):
    described(start if isinstance(start, str) else home)


def edit(home, name, **changes):
  path = home / name
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_policy_of_another_tokenizer_is_refused(described, reward_home, tmp_path):
  with pytest.raises(ConfigError, match="words of .* is not that of this run .bytes of 260 ids"):
    described(reward_home(tmp_path / "run"), tokenizer=byte())


def test_the_critic_begins_as_the_score_head_scaled_or_is_refused(described, reward_home, tmp_path):
  reward = described(reward_home(tmp_path / "run", bias=0.5))
  mesh = meshes.make(MeshConfig(), jax.devices()[:1])
  params, fingerprint = reward.load(mesh)
  assert fingerprint == reward.load(mesh)[1]
  head, critic, hidden_D = params["value"], reward.value_head(mesh), np.linspace(-1, 1, 16)
  raw = hidden_D @ np.asarray(head["kernel"], np.float64) + float(head["bias"])
  value = hidden_D @ np.asarray(critic["kernel"], np.float64) + float(critic["bias"])
  assert value == pytest.approx((raw - 0.2) / 2.0, rel=1e-5)
  policy = DecoderConfig(vocab=9, width=16, layers=1, heads=2)
  refuse_critic(True, reward, policy, ())
  refuse_critic(True, reward, dataclasses.replace(reward.model.config, remat="full", unroll=3), (), own=True)
  with pytest.raises(ValueError, match="config.reward_model.critic is True, but ppo.critic is 'own', and the reward"):
    refuse_critic(True, reward, policy, (), own=True)
  refuse_critic(False, None, policy, None)
  for arguments, message in (((None, policy, ()), "names no reward model"), ((reward, policy, None), "no value head"),
                             ((reward, policy, (8,)), r"\(width, layers\) \(16, \(\)\) and ppo's value head")):
    with pytest.raises(ValueError, match=f"config.reward_model.critic is True, but .*{message}"):
      refuse_critic(True, *arguments)


def test_a_reward_model_of_adapters_is_its_base_with_them(described, reward_home, tmp_path):
  home = reward_home(tmp_path / "run", bias=0.5, rank=2)
  reward, mesh = described(home), meshes.make(MeshConfig(), jax.devices()[:1])
  params, fingerprint = reward.load(mesh)
  assert reward.lora.rank == 2 and fingerprint == reward.load(mesh)[1] and params["value"]["bias"] == 0.5
  base, _ = initial_params.adapter_base(home, "scratch", reward.model, 0, mesh)
  adapters, _ = initial_params.load_adapters(home, 60, reward.model, mesh, reward.lora)
  inputs = right_pad([list(range(3, 15))], 12)
  hidden = jax.jit(lambda params: reward.model.hidden(params, inputs))
  merged = hidden(params["model"])
  np.testing.assert_allclose(merged, hidden(lora.attach(base, adapters, reward.lora)), atol=1e-4)
  assert np.abs(merged - hidden(base)).max() > 0.01
  (home / "base.json").unlink()
  with pytest.raises(ConfigError, match=r"base.json, which names their base, is missing"):
    reward.load(mesh)


def test_two_sources_of_rewards_are_one_too_many(tiny, reward_home, tmp_path):
  home = reward_home(tmp_path / "run")
  with pytest.raises(ConfigError, match="config.reward is .*words.py:by_words.* and config.reward_model.start"):
    build_experiment(tiny("rl", reward_model__start=home), "rl")
