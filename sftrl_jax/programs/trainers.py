"""The program of each kind of training, by its verb."""

from sftrl_jax.programs import rl, sft

TRAINERS = {"sft": sft.run, "rl": rl.run}
