"""One decoder from anything that can be opened: the parameters of its files, and one error for what writes no text."""

import jax
import numpy as np
import pytest

from sftrl_jax.checkpoints import hf
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.evaluate.open_decoder import open_decoder
from sftrl_jax.programs.harness.decoder import CONTEXT, on_mesh
from sftrl_jax.programs.start import initial_params

TASK = "configs/general_points/ppo.py"
LITTLE = [("rollout.rows", "6"), ("mesh.cpu_threads", "0"), ("rollout.shrink", "()"), ("batch", "6"),
          ("ppo.minibatches", "1"), ("compute.microbatches", "1"), ("log.writers", "()")]


def assert_same(params, expected):
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), params, expected)


def test_a_step_of_a_run_is_opened_with_its_tokenizer(finished):
  home = finished("sft")
  opened = open_decoder(f"{home}@2", [])
  decoder = opened.decoder
  with on_mesh(decoder):
    params, step = opened.load()
    expected = initial_params.load_start(f"{home}@2", decoder.model, 0, decoder.mesh)
  assert_same(params, expected)
  assert step == 2 and opened.output("", 2) == home / "evaluate" / "2" and opened.output("x", 2).name == "x"
  assert decoder.tokenizer.kind == "words" and decoder.context == CONTEXT


def test_a_directory_of_hugging_face_needs_no_config(tiny_home):
  home = tiny_home()
  opened = open_decoder(str(home), [])
  decoder = opened.decoder
  with on_mesh(decoder):
    params, step = opened.load()
  assert_same(params, hf.load(home, "float32").params)
  assert (step, decoder.context, str(opened.output("", 0))) == (0, 48, f"runs/evaluate/{home.name}")
  assert not decoder.model.ids and decoder.model.config.vocab > decoder.tokenizer.size   # every row of the table counts
  assert open_decoder(str(home), [], dtype="bfloat16").load()[0]["embed"].dtype == "bfloat16"


def test_a_shipped_base_and_a_mix_get_the_model_of_a_config(one_device, monkeypatch):
  monkeypatch.setenv("NPROC", "1")
  halves, bases = [], ("base:general_points_0", "base:general_points_1")
  for source in (*bases, f"mix:{','.join(bases)},0.5"):
    opened = open_decoder(source, LITTLE, TASK)
    with on_mesh(opened.decoder):
      halves.append(np.asarray(opened.load()[0]["embed"]))
  np.testing.assert_allclose(halves[2], (halves[0] + halves[1]) / 2, atol=1e-6)


@pytest.mark.parametrize(("source", "overrides", "spec", "dtype", "message"), [
    ("base:general_points_0", [], "", "", "without a model and a tokenizer: add --config=FILE.py"),
    ("mix:a,b,0.5", [], "", "", "without a model and a tokenizer"),
    ("nowhere", [], "", "", "'nowhere' is neither the workdir of a run"),
    ("TINY", [("model.dtype", "bfloat16")], "", "", "no workdir, and no --config=FILE.py is given"),
    ("RUN", [("evals.episodes", "3")], "", "", "--config.evals.episodes is of episodes, and --tasks plays none"),
    ("RUN", [], TASK, "", "is for a model without a run"),
    ("TINY", [], "", "float16", "--dtype is 'float16'; it must be float32 or bfloat16")])
def test_what_cannot_be_opened_says_why(source, overrides, spec, dtype, message, finished, tiny_home):
  source = {"RUN": lambda: finished("sft"), "TINY": tiny_home}.get(source, lambda: source)()
  with pytest.raises(ConfigError, match=message):
    open_decoder(str(source), overrides, spec, dtype)


def test_a_reward_model_writes_nothing(pair_config, tmp_path):
  from sftrl_jax.programs import preference
  preference.run(pair_config("reward"), tmp_path / "reward")
  with pytest.raises(ConfigError, match="is a reward model, which scores texts and writes none"):
    open_decoder(str(tmp_path / "reward"), [])
