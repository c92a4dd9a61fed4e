"""The loss on held-out rows is a mean over their labels, however they are packed and cut into batches."""

import functools
import pathlib
import types

import flax.linen as nn
import jax
import pytest

from sftrl_jax.objectives.sft import sft_loss
from sftrl_jax.parallel import rules
from sftrl_jax.programs import settings, supply
from sftrl_jax.programs.setup import assemble
from sftrl_jax.programs.validation import make_measure
from sftrl_jax.training.score import make_score

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "sft" / "chat.py"


@pytest.fixture(scope="module")
def measured(one_device):
  """measured(**overrides) -> what a newborn model scores on the held-out rows; None without any."""
  def measure(**overrides):
    changed = {"data.length": "160", "model.layers": "1", "model.remat": "none", "batch": "8", "mesh.cpu_threads": "0",
               **overrides}
    parts = assemble(settings.resolve_for("sft", settings.load(f"{CONFIG}:smoke"), list(changed.items()),
                                          lambda _: None), "sft")
    loss = functools.partial(sft_loss, score=make_score(parts.model))
    with jax.set_mesh(parts.mesh), nn.logical_axis_rules(rules.activation_rules()):
      params = {"model": parts.model.init(jax.random.key(3))}
      session = types.SimpleNamespace(state=params, judged=lambda state: state)
      made = make_measure(parts, supply.of(parts), loss, session)
      return made and made(params)
  return measure


def test_packing_and_batches_change_nothing(measured):
  packed = measured(**{"data.validation": "0.4", "compute.microbatches": "2"})
  apart = measured(**{"data.validation": "0.4", "data.pack": "false", "compute.microbatches": "1", "batch": "4"})
  assert packed.keys() == {"eval/loss", "eval/mean_token_accuracy"}
  for name, value in packed.items():
    assert value == pytest.approx(apart[name], rel=1e-5)
  assert 5 < packed["eval/loss"] < 6   # bytes, guessed: log(260) is 5.56


def test_without_held_out_rows_nothing_is_measured(measured):
  assert measured() is None
