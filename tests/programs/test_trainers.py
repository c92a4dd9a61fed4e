"""A kind of training and its program have one name."""

from sftrl_jax.programs import rl, sft
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.trainers import TRAINERS


def test_every_kind_of_training_has_the_program_of_its_name():
  assert set(TRAINERS) == set(KINDS)
  assert TRAINERS["sft"] is sft.run and TRAINERS["rl"] is rl.run
