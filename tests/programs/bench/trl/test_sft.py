"""TRL's trainer learns from our examples and waits for its turn. Without trl some are skipped."""

import pytest

from sftrl_jax.programs.bench import run
from sftrl_jax.programs.bench.trl import sft as peer
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment

ALIKE = dict(model__mlp="gated", model__activation="silu", data__length=24, compute__microbatches=1)


@pytest.mark.parametrize("changed, key", [
    (dict(sft__loss="dft"), "config.sft.loss=nll"), (dict(lora__rank=2), "config.lora.rank=0"),
    (dict(optimizer__name="lion"), "config.optimizer.name=adamw")])
def test_what_trl_does_not_do_is_refused_with_the_way_out(tiny, changed, key):
  with pytest.raises(ConfigError, match=key):
    peer.refuse(build_experiment(tiny("sft", **ALIKE | changed), "sft"))


def test_cross_entropy_by_adamw_is_compared(tiny):
  peer.refuse(build_experiment(tiny("sft", **ALIKE), "sft"))


def test_its_steps_alternate_with_ours(tiny, small, capsys):
  pytest.importorskip("trl", reason="pip install 'sftrl-jax[peers]'")
  lines = run.run(tiny("sft", **ALIKE), "sft", against="trl", pairs=1)["lines"]
  assert [line["work"] for line in lines] == ["sft", "sft ragged"] and all(len(line["ratios"]) == 1 for line in lines)
  assert all(line["their_seconds"] > 0 for line in lines) and "peer: trl" in capsys.readouterr().out
