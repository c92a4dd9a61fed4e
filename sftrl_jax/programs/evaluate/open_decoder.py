"""The decoder that tasks of lm-eval are asked of, from anything that `sftrl evaluate` and `sftrl sample` open."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from sftrl_jax.models import build
from sftrl_jax.parallel import hosts, mesh as meshes, rules
from sftrl_jax.parallel.mesh import MeshConfig
from sftrl_jax.programs.config.errors import ConfigError, as_path
from sftrl_jax.programs.evaluate.subject import Subject, of_run, output_of, without_run
from sftrl_jax.programs.experiment import saved_run
from sftrl_jax.programs.harness.decoder import Decoder
from sftrl_jax.programs.start import checkpoint_ref, initial_params, mix
from sftrl_jax.programs.start.open_model import open_model


@dataclasses.dataclass(frozen=True, eq=False)
class OpenedDecoder:
  """A decoder whose parameters are loaded when they are asked for.

  load: -> (params of its model on the mesh, step of the run or 0)
  output: (--workdir, step) -> where the lines go
  """

  decoder: Decoder
  load: Callable[[], tuple[dict, int]]
  output: Callable[[str, int], Path]


def open_decoder(source: str, overrides: Sequence[tuple[str, str]], spec: str = "", dtype: str = "") -> OpenedDecoder:
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


def _of_subject(subject: Subject, source: str) -> OpenedDecoder:
  experiment, ref = subject.experiment, subject.ref
  if saved_run.is_reward_model(experiment):
    raise ConfigError(f"{source} is a reward model, which scores texts and writes none: give the run of a policy.")

  def load() -> tuple[dict, int]:
    if ref is not None:
      # A run that is still training has another best step soon.
      step = hosts.led_by_first(lambda: ref.step)
      return saved_run.parameters(experiment, dataclasses.replace(ref, step=step))
    return initial_params.load_start(experiment.start, experiment.model, experiment.seed, experiment.mesh), 0

  return OpenedDecoder(Decoder.of(experiment), load, subject.output)


def _without_config(source: str, dtype: str) -> OpenedDecoder:
  mesh = meshes.make(MeshConfig())
  dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
  with jax.set_mesh(mesh), rules.applied():
    opened = open_model(source, dtype, mesh)
  if opened.tokenizer is None:
    raise ConfigError(f"{opened.path} has no tokenizer: put the files of one (tokenizer.json) beside the weights.")
  output = lambda workdir, _: as_path(workdir) if workdir else output_of(source)
  decoder = Decoder(build(opened.config), opened.tokenizer, mesh)
  return OpenedDecoder(decoder, lambda: (opened.params, 0), output)
