"""The decoder of a run counts every row of its table, and reads what its model was trained for."""

import dataclasses

import jax

from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.harness.decoder import CONTEXT, Decoder, on_mesh


def test_the_decoder_of_a_run(pair_config):
  experiment = build_experiment(pair_config("dpo"), "preference")
  decoder = Decoder.of(experiment)
  assert (decoder.tokenizer, decoder.mesh) == (experiment.tokenizer, experiment.mesh)
  assert decoder.model == dataclasses.replace(experiment.model, ids=0) and decoder.context == CONTEXT
  shorter = dataclasses.replace(experiment.model.config, context=77)
  assert dataclasses.replace(decoder, model=dataclasses.replace(decoder.model, config=shorter)).context == 77
  with on_mesh(decoder):
    assert jax.sharding.get_abstract_mesh().shape == decoder.mesh.shape
