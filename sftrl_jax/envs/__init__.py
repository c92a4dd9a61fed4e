"""Environments by name. A new one is a folder with a class that follows `env.Env`, and an entry here."""

from sftrl_jax.envs import nothing
from sftrl_jax.envs.document_labels import DocumentLabels
from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.envs.reading import Reading
from sftrl_jax.envs.triples import Triples
from sftrl_jax.envs.virl.env import VIRL

ENVS = {"general_points": GeneralPoints, "virl": VIRL, "document_labels": DocumentLabels, "reading": Reading,
        "triples": Triples, nothing.NAME: nothing.Nothing}
