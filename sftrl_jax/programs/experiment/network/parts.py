"""The model and the tokenizer that a config describes: of the run itself, and of a run whose model it reads."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from sftrl_jax.envs.env import Env
from sftrl_jax.models import Model, build, kernels
from sftrl_jax.models.vision.config import VisionConfig
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.config.resolve import build as build_section
from sftrl_jax.programs.experiment.environment import make_env
from sftrl_jax.programs.experiment.sections import TokenizerConfig, model_section
from sftrl_jax.programs.start import pretrained
from sftrl_jax.text import tokenizer as tokenizers
from sftrl_jax.text.images import ImageReader, TiledReader
from sftrl_jax.text.pretrained import Pretrained, configured
from sftrl_jax.text.tokenizer import Tokenizer


def as_config_error(make: Callable[[], Any], above: str = "") -> Any:
  """make(), whose ValueError becomes a ConfigError that begins with `above`, the dotted name of a section."""
  try:
    return make()
  except ValueError as error:
    raise ConfigError(f"{above}{error}") from error


def build_model(plain: dict, section: Any, tokenizer: Tokenizer, mesh: Mesh, workdir: Path | None) -> Model:
  """The model of config.model, with a row of its tables for every id of the tokenizer.

  plain: the config; section: its section `model`, built; workdir: where a pretrained model is described once its run
  has begun. ConfigError where they do not agree.
  """
  if isinstance(section, pretrained.PretrainedConfig):
    section = pretrained.model_config(plain["start"], section, workdir)
  extra = getattr(section, "extra_ids", 0)   # which the head lacks; the id of pictures may be the first of them
  if section.vocab and section.vocab - extra < tokenizer.size - bool(extra):
    raise ConfigError(_too_small(plain, section.vocab, tokenizer.size))
  vocab = section.vocab or tokenizer.size + extra
  section = dataclasses.replace(section, vocab=vocab, **_image_id(section, tokenizer))
  model = build(section, tokenizer.size)
  as_config_error(lambda: kernels.chosen(model.config, mesh.devices.flat[0].platform), "config.model.")
  return model


def build_tokenizer(section: TokenizerConfig, env: Env, start: str, workdir: Path | None, model: Any = None
                    ) -> Tokenizer:
  """The tokenizer of config.tokenizer. env: whose words it has, if it is one of words; start, workdir: of the run.

  model: the section `model`, built: with one that reads pictures our tokenizers have an id that stands for them

  ConfigError for an unknown name, and for an environment without words.
  """
  image = isinstance(model, VisionConfig)
  name = section.name
  if name == pretrained.NAME:
    loaded = pretrained.tokenizer(start, workdir)
    return as_config_error(lambda: configured(loaded, section.template_args, section.assistant_tokens),
                           "config.tokenizer.")
  if name == "bytes":
    return tokenizers.byte(image)
  if name != "words":
    raise ConfigError(f"config.tokenizer.name is {name!r}; known: words, bytes, {pretrained.NAME}.")
  if not env.words:
    raise ConfigError("config.tokenizer.name is 'words', but this environment's text has no closed vocabulary: use its "
                      "compact style (--config.env.style=compact) or give your own one `words`, or use "
                      "--config.tokenizer.name=bytes.")
  return as_config_error(lambda: tokenizers.words(env.words, image))


def own_tokenizer_with_pictures(name: str, env: Env, model: dict) -> Tokenizer:
  """The tokenizer "words" or "bytes" of a run whose environment shows pictures. model: the section `model`, plain"""
  fields = {key: value for key, value in model.items() if key != "name"}
  section = build_section(model_section(model), fields, "config.model")
  image = isinstance(section, VisionConfig)
  tokenizer = tokenizers.words(env.words, image) if name == "words" else tokenizers.byte(image)
  if not image:
    return tokenizer
  return _reading(tokenizer, dataclasses.replace(section, vocab=tokenizer.size, **_image_id(section, tokenizer)))


def reading_pictures(tokenizer: Tokenizer, model: Model) -> Tokenizer:
  """The tokenizer with what the model reads of pictures; as it is for a model of text."""
  return _reading(tokenizer, model.config) if isinstance(model.config, VisionConfig) else tokenizer


def _reading(tokenizer: Tokenizer, config: VisionConfig) -> Tokenizer:
  sizes = config.image_id, config.image_tokens, config.image_height, config.image_width, config.images
  if not hasattr(config, "processor"):
    return dataclasses.replace(tokenizer, reader=ImageReader(*sizes))
  of_text = tokenizer.marks if isinstance(tokenizer, Pretrained) else (None, None)
  return dataclasses.replace(tokenizer, reader=TiledReader(*sizes, config.processor(), *of_text))


def _image_id(section: Any, tokenizer: Tokenizer) -> dict:
  """{"image_id"} of a model that reads pictures, by the tokenizer where the model does not say."""
  if not isinstance(section, VisionConfig):
    return {}
  own = getattr(tokenizer, "image", None)
  if section.image_id and own not in (None, section.image_id):
    raise ConfigError(f"config.model.image_id is {section.image_id}, but pictures have the id {own} in the tokenizer: "
                      "leave it at 0 to take the tokenizer's.")
  image_id = section.image_id or own
  if image_id is None:
    raise ConfigError(f"config.model.image_id is 0, but the {tokenizer.kind} tokenizer has no id for pictures: give "
                      "the id that its chat template writes for one.")
  return {"image_id": image_id}


def _too_small(plain: dict, vocab: int, ids: int) -> str:
  if plain["model"]["name"] == pretrained.NAME:
    return (f"config.start is {plain['start']!r}, whose tokenizer has {ids} ids but whose embedding only {vocab}: "
            "repair the files, or use --config.tokenizer.name=bytes.")
  return (f"config.model.vocab is {vocab}, but the tokenizer has {ids} ids: leave it at 0 to take the tokenizer's "
          "size.")


def network_of_run(about: str, plain: dict, home: Path, mesh: Mesh) -> tuple[Model, Tokenizer]:
  """(model, tokenizer) of the run in a workdir, with the fastest attention that the devices have here."""
  def of_run() -> tuple[Model, Tokenizer]:
    settings = build_section(TokenizerConfig, plain["tokenizer"], "config.tokenizer")
    env = make_env(plain["env"]) if settings.name == "words" else None   # whose vocabulary it is
    family = {key: value for key, value in plain["model"].items() if key != "name"}
    here = {"attention": "auto", "flatten": "auto", "remat": "none"}   # what is computed stays, for other devices
    section = build_section(model_section(plain["model"]), {**family, **here}, "config.model")
    tokenizer = build_tokenizer(settings, env, plain["start"], home, section)
    model = build_model(plain, section, tokenizer, mesh, home)
    return model, reading_pictures(tokenizer, model)

  try:
    return of_run()
  except (ConfigError, KeyError) as error:
    raise ConfigError(f"{about}, whose model cannot be built from its config.json: {error}") from error
