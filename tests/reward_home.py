"""A workdir as a finished run of a reward model leaves it, of random parameters: nothing is trained."""

import json

import jax
import optax

from sftrl_jax.checkpoints import store
from sftrl_jax.models import DecoderConfig, build, heads, lora
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.parallel.mesh import MeshConfig
from sftrl_jax.programs.experiment.environment import make_env
from sftrl_jax.programs.start import initial_params
from sftrl_jax.text.tokenizer import words
from sftrl_jax.training.state import create

MODEL = dict(width=16, layers=1, heads=2, init_std=0.3)


def maker(env):
  """make(home, bias=None, rank=0) -> home, over the words of the environment of a section `env`.

  bias: of the score head. The parameters are stored only if it is given; else there is the directory of the step alone
  rank: of the adapters that the run has trained; 0: the model
  """

  def make(home, bias=None, rank=0):
    plain = dict(verb="preference", objective="reward", tokenizer=dict(name="words"), env=env, start="scratch", seed=0,
                 model=dict(name="decoder", **MODEL), bradley_terry=dict(layers=[]), lora=dict(rank=rank))
    (home / "checkpoints").mkdir(parents=True)
    for name, content in (("config", plain), ("progress", dict(phase="complete", step=60)), (
        "reward_scale", dict(mean=0.2, sd=2.0, lowest=-0.5, highest=9.0, count=96))):
      (home / f"{name}.json").write_text(json.dumps(content))
    if bias is None:
      (home / "checkpoints" / "60").mkdir()
    else:
      _save(home, bias, rank)
    return home

  def _save(home, bias, rank):
    model = build(DecoderConfig(vocab=words(make_env(env).words).size, **MODEL))
    head = {**heads.init(16), "kernel": jax.random.normal(jax.random.key(2), (16,)), "bias": jax.numpy.float32(bias)}
    trained = {"model": jax.jit(model.init)(jax.random.key(1))}
    if rank:
      section, mesh = lora.LoraConfig(rank=rank), meshes.make(MeshConfig(), jax.devices()[:1])
      base, fingerprint = initial_params.start_and_fingerprint("scratch", model, 0, mesh)
      (home / "base.json").write_text(json.dumps(dict(start="scratch", fingerprint=fingerprint)))
      adapters = lora.init(section, base, jax.random.key(3))
      trained = {"lora": jax.tree.map(lambda x: x + 0.1, adapters)}   # one factor begins as zeros
    state = create({**trained, "value": head}, optax.sgd(0.1))
    saver = store.manager(home)
    store.save(saver, 60, state, {})
    store.finish(saver)
    saver.close()

  return make
