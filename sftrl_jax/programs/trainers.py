"""The program of each kind of training: `sftrl VERB` is `run` of programs/VERB.py."""

import importlib

from sftrl_jax.programs.experiment.kinds import KINDS

TRAINERS = {verb: importlib.import_module(f"sftrl_jax.programs.{verb}").run for verb in KINDS}
