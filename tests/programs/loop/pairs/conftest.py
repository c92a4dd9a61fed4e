"""A tiny run of a reward model on pairs that it samples itself."""

import pytest

REWARD = '''def by_words(chat, response, verdict):
  """A model from scratch is never right, but its responses differ."""
  return len(set(response.split())) / 8.0
'''


@pytest.fixture(scope="package")
def sampling_config(one_device, tmp_path_factory):
  """sampling_config(**overrides) -> the resolved config of a run of seconds that samples its pairs; __ is a dot."""
  from ml_collections import ConfigDict

  from sftrl_jax.programs.experiment import run_config
  reward = tmp_path_factory.mktemp("reward") / "words.py"
  reward.write_text(REWARD)
  base = dict(
      steps=2, batch=4, start="scratch", objective="reward", reward=f"{reward}:by_words", tokenizer=dict(name="words"),
      env=dict(name="general_points", target="any", cards=3, attempts=2, style="compact"),
      model=dict(width=16, layers=1, heads=2), rollout=dict(rows=16, prompt_tokens=11, max_new_tokens=48, segment=0),
      data=dict(pairs=12, variants=("id_seen", "rule_ood"), heldout_pairs=5, length=128),
      optimizer=dict(name="adamw", learning_rate=1e-2), log=dict(every=1, writers=(), report=False),
      mesh=dict(cpu_threads=0))

  def make(verb="preference", **overrides):
    changed = {key.replace("__", "."): str(value) for key, value in overrides.items()}
    return run_config.resolve_for(verb, ConfigDict(base), list(changed.items()), lambda _: None)

  return make


@pytest.fixture(scope="package")
def scored(sampling_config, tmp_path_factory):
  """(workdir of a whole run of a reward model on sampled pairs, its experiment)."""
  from sftrl_jax.programs import preference
  from sftrl_jax.programs.experiment.build import build_experiment
  home = tmp_path_factory.mktemp("scored") / "run"
  preference.run(sampling_config(), home)
  return home, build_experiment(sampling_config(), "preference", home)


@pytest.fixture(scope="package")
def score_of(scored):
  """score_of(prompt, response) -> the raw score of a text by the model that the run ended with, each scored alone."""
  import jax
  import numpy as np

  from sftrl_jax.chat import Message
  from sftrl_jax.inputs import right_pad
  from sftrl_jax.models import heads
  from sftrl_jax.programs.experiment import saved_run
  from sftrl_jax.programs.start.checkpoint_ref import CheckpointRef
  from sftrl_jax.text.render import render
  home, experiment = scored
  with jax.set_mesh(experiment.mesh):
    params, step = saved_run.parameters(experiment, CheckpointRef(home))
    head = saved_run.score_head(experiment, home, step)
  values = jax.jit(lambda inputs: heads.scalar({"kernel": head.kernel, "bias": head.bias},
                                               experiment.model.hidden(params, inputs)))

  def score(prompt, response):
    chat = tuple(Message(message["role"], message["content"]) for message in (*prompt, *response))
    ids = render(experiment.tokenizer, chat)[0]
    return float(np.asarray(values(right_pad([ids], 64)))[0, len(ids) - 1])

  return score
