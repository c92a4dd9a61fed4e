"""What tasks of lm-eval are asked of: a model with its tokenizer, over a mesh."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from sftrl_jax.models import Model
from sftrl_jax.parallel import rules
from sftrl_jax.programs.experiment.experiment import Experiment

CONTEXT = 8192   # tokens, of a model that does not say for how many it was trained; as `sftrl convert` writes it


@dataclasses.dataclass(frozen=True, eq=False)
class Decoder:
  """A model without its parameters.

  model: every row of its table of ids counts, as for other readers of the same weights
  """

  model: Model
  tokenizer: Any
  mesh: Mesh

  @classmethod
  def of(cls, experiment: Experiment) -> "Decoder":
    """The decoder that a run trains."""
    model = dataclasses.replace(experiment.model, ids=0, exact=False)
    return cls(model, experiment.tokenizer, experiment.mesh)

  @property
  def context(self) -> int:
    """Tokens that a row has at most, the last one, which is only predicted, not counted."""
    return self.model.config.context or CONTEXT


@contextlib.contextmanager
def on_mesh(decoder: Decoder) -> Iterator[None]:
  """The block runs under the mesh and the sharding rules of the decoder."""
  with jax.set_mesh(decoder.mesh), rules.applied():
    yield
