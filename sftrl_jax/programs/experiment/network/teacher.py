"""A teacher: the model of another run, or pretrained weights, whose distribution a policy learns."""

import dataclasses
from typing import Literal

from jax.sharding import Mesh

from sftrl_jax.models import Model
from sftrl_jax.objectives.groups import refuse_choices
from sftrl_jax.programs.config.errors import ConfigError, recorded
from sftrl_jax.programs.config.resolve import build
from sftrl_jax.programs.experiment.network.parts import build_model, build_tokenizer, network_of_run
from sftrl_jax.programs.experiment.sections import TokenizerConfig
from sftrl_jax.programs.start import checkpoint_ref, initial_params, pretrained
from sftrl_jax.text.tokenizer import Tokenizer

KEY = "config.teacher.start"


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
  """Whose distribution `algorithm=distill` and `sft.loss=distill` learn.

  start: a workdir of a run (WORKDIR@STEP where it still trains), or what else config.start takes: pretrained weights,
    also of a larger model; base:NAME, scratch or a mix are of this run's own model. Its tokenizer is that of this run
  demonstration: what the teacher of algorithm=distill reads before a row, and the policy does not: "expert" is the
    row's own prompt with the expert's response to it, an earlier exchange of the same chat; "" is nothing
  demonstration_tokens: of it at most; an episode with a longer one is left out (0: rollout.prompt_tokens +
    max_new_tokens)
  """

  start: str = ""
  demonstration: Literal["", "expert"] = ""
  demonstration_tokens: int = 0

  def __post_init__(self):
    refuse_choices(self)
    if self.demonstration_tokens < 0 or (self.demonstration_tokens and not self.demonstration):
      raise ValueError(f"demonstration_tokens is {self.demonstration_tokens}; it must be 0, or positive with "
                       "demonstration='expert'.")


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A teacher as its files describe it; its parameters are read by `load`.

  start: as of a run that begins there. seed: of a random start
  prefix_tokens: of the demonstration that it reads before a row, 0 where it reads none
  """

  start: str
  model: Model
  seed: int
  prefix_tokens: int = 0

  def abstract(self, mesh: Mesh) -> dict:
    """The shapes of its parameters with their shardings."""
    return initial_params.abstract_params(self.model, mesh)

  def load(self, mesh: Mesh) -> dict:
    """Its parameters on the mesh, f32; adapters are merged."""
    return initial_params.load_start(self.start, self.model, self.seed, mesh)


def describe(config: TeacherConfig, plain: dict, model: Model, tokenizer: Tokenizer, mesh: Mesh) -> Teacher | None:
  """The teacher that the section names, None without one. Nothing is loaded.

  plain: the config of the run; model, tokenizer: its own. ConfigError for a start that does not exist, and for another
  tokenizer.
  """
  if not config.start:
    return None
  about, home = f"{KEY} is {config.start!r}", checkpoint_ref.home_of(config.start)
  theirs, words, args = model, tokenizer, plain["tokenizer"].get("template_args", {})
  try:
    if checkpoint_ref.is_workdir(home):
      theirs, words = network_of_run(about, recorded(home), home, mesh)
      args = recorded(home)["tokenizer"].get("template_args", {})
    elif pretrained.weights(config.start) is not None:
      theirs, words = _network_of_weights(config.start, plain, mesh)
    initial_params.check_start(config.start, theirs)
  except ConfigError as error:
    raise ConfigError(f"{about}, which cannot be a teacher: {error}") from error
  if words != tokenizer or args != plain["tokenizer"].get("template_args", {}):
    raise ConfigError(f"{about}, whose tokenizer ({words.kind} of {words.size} ids, template_args {args}) is not that "
                      f"of this run ({tokenizer.kind} of {tokenizer.size} ids, template_args "
                      f"{plain['tokenizer'].get('template_args', {})}): it reads the ids that the policy samples, so "
                      "give both the same tokenizer and chat template.")
  rollout = plain["rollout"]
  most = config.demonstration_tokens or rollout["prompt_tokens"] + rollout["max_new_tokens"]
  return Teacher(config.start, theirs, plain["seed"], most if config.demonstration else 0)


def _network_of_weights(start: str, plain: dict, mesh: Mesh) -> tuple[Model, Tokenizer]:
  """(model, tokenizer) of pretrained weights, computed in the dtype of this run's own model."""
  section = pretrained.PretrainedConfig(plain["model"].get("dtype", "float32"), remat="none", flatten="auto")
  named = {**plain, "start": start, "model": {**plain["model"], "name": pretrained.NAME}}
  settings = dataclasses.replace(build(TokenizerConfig, plain["tokenizer"], "config.tokenizer"), name=pretrained.NAME)
  words = build_tokenizer(settings, None, start, None)
  return build_model(named, section, words, mesh, None), words
