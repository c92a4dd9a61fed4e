"""Weights between two starts: the ends are the starts, bit for bit, and the middle is their mean."""

import jax
import numpy as np
import pytest

from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.start import checkpoint_ref, initial_params, mix


def test_a_mix_is_two_starts_and_a_share():
  assert mix.parse("mix:base:a, runs/b@3,0.25") == ("base:a", "runs/b@3", 0.25)
  assert mix.parse(str(mix.parse("mix:a,b,0.123456789"))).share == 0.123456789
  assert mix.parse("runs/mix:a") is mix.parse("scratch") is None
  for wrong, message in (
      ("mix:a,0.5", "A,B,0.5"), ("mix:a,b,c,0.5", "no comma"), ("mix:a,b,half", "A,B,0.5"),
      ("mix:a,,0.5", "'' is not a start"), ("mix:a,b,-0.1", "share is -0.1"), ("mix:a,b,nan", "share")):
    with pytest.raises(ConfigError, match=f"^config.start is '{wrong}'.*{message}"):
      mix.parse(wrong)


def test_shares_are_sorted_and_each_is_there_once():
  assert mix.parse_shares("1, 0,0.5,1") == (0.0, 0.5, 1.0)
  for wrong, message in (("0,,1", "no list"), ("half", "no list"), ("1.1", "has 1.1"), ("nan", "has nan")):
    with pytest.raises(ConfigError, match=message):
      mix.parse_shares(wrong)


def test_the_ends_are_the_starts_and_the_middle_their_mean(finished, tiny):
  experiment, workdir = build_experiment(tiny("sft"), "sft"), finished("sft")
  load = lambda start: jax.device_get(initial_params.load_start(start, experiment.model, 0, experiment.mesh))
  scratch, trained = load("scratch"), load(str(workdir))
  at = {share: load(f"mix:scratch,{workdir}@2,{share}") for share in (0, 0.5, 1)}
  jax.tree.map(np.testing.assert_array_equal, at[0], scratch)
  jax.tree.map(np.testing.assert_array_equal, at[1], trained)
  jax.tree.map(lambda x, a, b: np.testing.assert_allclose(x, (a + b) / 2, atol=1e-7), at[0.5], scratch, trained)
  best = checkpoint_ref.resolve_best(f"mix:{workdir}@best:rule_ood,{workdir}@1,0.5")
  assert best == f"mix:{workdir}@2,{workdir}@1,0.5"
  start = f"mix:scratch,{workdir},0.5"
  initial_params.check_start(start, experiment.model)
  wider = build(DecoderConfig(vocab=experiment.model.config.vocab, width=32, layers=1, heads=2, mlp="plain"))
  with pytest.raises(ConfigError, match=f"config.start is '{start}', whose two starts .* model.width = 16"):
    initial_params.check_start(start, wider)
