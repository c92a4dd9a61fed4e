"""The decoder that tasks of lm-eval are asked of, from anything that `sftrl evaluate` and `sftrl sample` open."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from sftrl_jax.models import Model, build
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.parallel.mesh import MeshConfig
from sftrl_jax.programs.config.errors import ConfigError, as_path
from sftrl_jax.programs.evaluate.subject import Subject, of_run, output_of, without_run
from sftrl_jax.programs.experiment import saved_run
from sftrl_jax.programs.start import checkpoint_ref, initial_params, mix
from sftrl_jax.programs.start.open_model import open_model

CONTEXT = 8192   # tokens, of a model that does not say for how many it was trained; as `sftrl convert` writes it


@dataclasses.dataclass(frozen=True, eq=False)
class Decoder:
  """A model whose parameters are loaded when they are asked for.

  model: every row of its table of ids counts, as for other readers of the same weights
  load: -> (params of `model` on the mesh, step of the run or 0)
  output: (--workdir, step) -> where the lines go
  """

  model: Model
  tokenizer: Any
  mesh: Mesh
  load: Callable[[], tuple[dict, int]]
  output: Callable[[str, int], Path]

  @property
  def context(self) -> int:
    """Tokens that a row has at most, the last one, which is only predicted, not counted."""
    return self.model.config.context or CONTEXT


def open_decoder(source: str, overrides: Sequence[tuple[str, str]], spec: str = "", dtype: str = "") -> Decoder:
  """The decoder that FROM names. ConfigError for what cannot be opened, and for a model that writes no text.

  source: WORKDIR[@STEP|@best:VARIANT], a Hugging Face directory or id, adapters of PEFT, a .gguf file or smollm2; with
    a spec, anything that config.start takes
  overrides: ((dotted key, text), ...) of the config of a run, or of the spec
  spec: FILE.py[:choice], whose model, tokenizer and mesh a model without a run gets
  dtype: of activations, and of the parameters of a model without a config ("": float32 on CPUs, else bfloat16)
  """
  for key, _ in overrides:
    if key.partition(".")[0] == "evals":
      raise ConfigError(f"--config.{key} is of episodes, and --tasks plays none: leave it out.")
  if dtype not in ("", "float32", "bfloat16"):
    raise ConfigError(f"--dtype is {dtype!r}; it must be float32 or bfloat16.")
  changes = [*overrides, *([("model.dtype", dtype)] if dtype else [])]
  if spec:
    return _of_subject(without_run(source, changes, spec), source)
  if checkpoint_ref.is_workdir(checkpoint_ref.home_of(source)):
    return _of_subject(of_run(source, changes), source)
  if source == "scratch" or source.startswith(("base:", mix.PREFIX)):
    raise ConfigError(f"{source} names parameters without a model and a tokenizer: add --config=FILE.py, which has "
                      "them.")
  if overrides:
    raise ConfigError(f"--config.{overrides[0][0]} changes the config of a run, but {source} is no workdir, and no "
                      "--config=FILE.py is given.")
  return _without_config(source, dtype)


@contextlib.contextmanager
def on_mesh(decoder: Decoder) -> Iterator[None]:
  """The block runs under the mesh and the sharding rules of the decoder."""
  with jax.set_mesh(decoder.mesh), rules.applied():
    yield


def _of_subject(subject: Subject, source: str) -> Decoder:
  experiment, ref = subject.experiment, subject.ref
  if saved_run.is_reward_model(experiment):
    raise ConfigError(f"{source} is a reward model, which scores texts and writes none: give the run of a policy.")

  def load() -> tuple[dict, int]:
    if ref is not None:
      return saved_run.parameters(experiment, ref)
    return initial_params.load_start(experiment.start, experiment.model, experiment.seed, experiment.mesh), 0

  model = dataclasses.replace(experiment.model, ids=0, exact=False)
  return Decoder(model, experiment.tokenizer, experiment.mesh, load, subject.output)


def _without_config(source: str, dtype: str) -> Decoder:
  mesh = meshes.make(MeshConfig())
  dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
  with jax.set_mesh(mesh), rules.applied():
    opened = open_model(source, dtype, mesh)
  if opened.tokenizer is None:
    raise ConfigError(f"{opened.path} has no tokenizer: put the files of one (tokenizer.json) beside the weights.")
  output = lambda workdir, _: as_path(workdir) if workdir else output_of(source)
  return Decoder(build(opened.config), opened.tokenizer, mesh, lambda: (opened.params, 0), output)
