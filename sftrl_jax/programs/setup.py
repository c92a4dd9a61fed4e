"""The door: where a ConfigDict becomes the parts of a run, and the only place that reads one."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from sftrl_jax import places
from sftrl_jax.checkpoints.store import Checkpoint
from sftrl_jax.data.batches import example
from sftrl_jax.data.demonstrations import Demonstrations, demonstration, refuse
from sftrl_jax.data.rows import Rows
from sftrl_jax.envs import nothing
from sftrl_jax.models import DecoderConfig, Model, build as build_model, heads, kernels
from sftrl_jax.models.lora import Lora, init as init_adapters
from sftrl_jax.parallel import hosts, mesh as meshes, rules, undivided
from sftrl_jax.parallel.mesh import MeshConfig
from sftrl_jax.programs import algorithms, exports, own, pretrained
from sftrl_jax.programs.evaluate import Evals
from sftrl_jax.programs.lock import only_writer
from sftrl_jax.programs.mistakes import ConfigError, Refused, recorded
from sftrl_jax.programs.schema import OneOf, expanded
from sftrl_jax.programs.settings import build, differences, refuse_another
from sftrl_jax.programs.stop import Agreement, stopping
from sftrl_jax.programs.task import env_section, make_env, variant_env
from sftrl_jax.programs.watchdog import Watchdog, patience
from sftrl_jax.rollout.policy import Actor, Rollout
from sftrl_jax.rollout.sample import Sampling
from sftrl_jax.text import tokenizer as tokenizers
from sftrl_jax.text.render import render
from sftrl_jax.training import paths
from sftrl_jax.training.log import Log, LogConfig, write_json
from sftrl_jax.training.loop import Limits
from sftrl_jax.training.optimizer import Optimizer
from sftrl_jax.training.schedule import Schedule

PROBED = 8  # episodes of each variant, and examples, looked at before a run begins


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
  """How text becomes ids.

  name: "words" (the environment's own closed vocabulary), "bytes" (any text), or "pretrained" (the one that comes with
    config.start)
  """

  name: str = "words"


@dataclasses.dataclass(frozen=True)
class Compute:
  """How a batch is computed; none of it changes what is computed.

  microbatches: pieces of a batch whose activations exist at once
  logit_chunk: tokens of a row whose logits exist at once (0: all)
  """

  microbatches: int = 1
  logit_chunk: int = 0

  def __post_init__(self):
    if self.microbatches < 1:
      raise ValueError(f"microbatches is {self.microbatches}; it must be at least 1.")
    if self.logit_chunk < 0:
      raise ValueError(f"logit_chunk is {self.logit_chunk}; it must be 0 (all tokens) or positive.")


def model_section(settings: dict, name: str = "decoder"):
  """The fields of our decoder, what can be said of a pretrained one, or a family in the user's own file (a class
  derived from DecoderConfig)."""
  name = settings.get("name", name)
  if own.is_path(name):
    return own.family(name, DecoderConfig)
  known = {"decoder": DecoderConfig, pretrained.NAME: pretrained.Pretrained}
  if name not in known:
    raise ValueError(f"name is {name!r}; known: {', '.join(known)}, or path/to/file.py:Class of your own.")
  return known[name]


def data_section(settings: dict, path: str = ""):
  """Rows of one's own where a path says which, else demonstrations of the environment."""
  return Rows if isinstance(settings, dict) and settings.get("path", path) else Demonstrations


SHARED = {
    "seed": 0, "steps": int, "batch": int, "flops": 0.0, "max_nonfinite": 10, "start": "scratch", "env": env_section,
    "reward": "", "tokenizer": TokenizerConfig, "model": model_section, "lora": Lora, "rollout": Rollout,
    "evals": Evals, "optimizer": Optimizer, "schedule": Schedule, "compute": Compute, "mesh": MeshConfig,
    "checkpoint": Checkpoint, "log": LogConfig}
SCHEMAS = {"sft": {**SHARED, "data": data_section},
           "rl": {**SHARED, "algorithm": OneOf("ppo", {
               name: algorithm.section for name, algorithm in algorithms.ALGORITHMS.items()})}}


@dataclasses.dataclass(frozen=True)
class Parts:
  """What a run is made of. `settings` are the whole sections as built from the config; `notes` a person should read."""

  config: dict
  mesh: Any
  env: Any
  tokenizer: tokenizers.Tokenizer
  model: Model
  actor: Actor
  limits: Limits
  settings: dict
  notes: tuple[str, ...] = ()

  @property
  def plays(self) -> bool:
    """Whether there is an environment; a run may have rows of its own and nothing to play."""
    return self.config["env"]["name"] != nothing.NAME

  def env_variant(self, variant: str):
    """The environment of one evaluation variant."""
    return variant_env({**self.config["env"], **self.settings["evals"].env}, variant, self.config["reward"])


def assemble(config: ConfigDict, verb: str, workdir: Path | None = None, devices=None) -> Parts:
  """Builds every part and checks that they agree; nothing is written and nothing compiled.

  workdir: of the run, where a pretrained model is described once it has begun.
  devices: of the mesh; all that are here, if left out. They may be described ones, for which one can only compile.
  """
  plain = json.loads(json.dumps(config.to_dict()))
  schema = expanded(plain, SCHEMAS[verb])
  sections = {name: build(kind, plain[name], f"config.{name}") for name, kind in schema.items()
              if isinstance(kind, type) and dataclasses.is_dataclass(kind) and name != "env"}
  family = {key: value for key, value in plain["model"].items() if key != "name"}
  sections["model"] = build(model_section(plain["model"]), family, "config.model")
  if "data" in schema:
    sections["data"] = _data(plain["data"])
  exports.check(plain)
  if isinstance(sections["model"], pretrained.Pretrained):
    sections["model"] = pretrained.model_config(plain["start"], sections["model"], workdir)
  env = make_env(plain["env"], plain["reward"])
  tokenizer = _tokenizer(sections["tokenizer"].name, env, plain["start"], workdir)
  model_config = sections["model"]
  if model_config.vocab and model_config.vocab < tokenizer.size:
    raise ConfigError(_too_small(plain, model_config.vocab, tokenizer.size))
  model = build_model(dataclasses.replace(model_config, vocab=model_config.vocab or tokenizer.size), tokenizer.size)
  mesh = _told(lambda: meshes.make(sections["mesh"], devices))
  _said("config.model.", lambda: kernels.chosen(model.config, mesh.devices.flat[0].platform))
  rollout, evals = sections["rollout"], sections["evals"]
  sampling = Sampling(rollout.max_new_tokens)
  method = sections.get(plain.get("algorithm"))
  group = algorithms.group_of(method)
  actor = _told(lambda: Actor(model, tokenizer, rollout, sampling, env.attempts, mesh, group))
  for name, value in (("batch", plain["batch"]), ("rollout.rows", rollout.rows)):
    if value < 1:
      raise ConfigError(f"config.{name} is {value}; it must be at least 1.")
    _told(lambda name=name, value=value: meshes.refuse_uneven(name, value, mesh))
  for variant in evals.variants:
    if variant not in env.variants:
      raise ConfigError(f"config.evals.variants names {variant!r}, but {plain['env']['name']} has "
                        f"{', '.join(env.variants)}.")
    variant_env({**plain["env"], **evals.env}, variant, plain["reward"])
  _divides("batch", plain["batch"], "compute.microbatches", sections["compute"].microbatches)
  if plain["env"]["name"] == nothing.NAME and (verb != "sft" or not plain["data"]["path"]):
    raise ConfigError(f"config.env.name is {nothing.NAME!r}, but {verb} needs something to learn from: choose an "
                      "environment with --config.env.name=..."
                      + (", or give rows of your own with --config.data.path=FILE." if verb == "sft" else "."))
  if isinstance(sections.get("data"), Demonstrations):
    _told(lambda: refuse(env, sections["data"]))
  pieces = sections["compute"].microbatches
  if verb == "sft":
    _told(lambda: meshes.refuse_uneven("batch / compute.microbatches", plain["batch"] // pieces, mesh))
  if verb == "rl":
    _told(lambda: algorithms.check(plain["algorithm"], method, plain["batch"], pieces, rollout, mesh))
  if plain["steps"] < 1 or plain["flops"] < 0:
    raise ConfigError(f"config.steps is {plain['steps']} and config.flops {plain['flops']}: steps must be at least 1, "
                      "flops 0 (no budget) or positive.")
  if plain["max_nonfinite"] < 1:
    raise ConfigError(f"config.max_nonfinite is {plain['max_nonfinite']}; it must be at least 1.")
  if plain["seed"] < 0:
    raise ConfigError(f"config.seed is {plain['seed']}; it must be 0 or more.")
  limits = Limits(plain["steps"], plain["flops"])
  notes = _told(lambda: undivided.check(
      {"model": jax.eval_shape(lambda: model.init(jax.random.key(0)))}, mesh)) if mesh.size > 1 else ()
  parts = Parts(plain, mesh, env, tokenizer, model, actor, limits, sections, notes)
  _told(lambda: _probe(parts, verb))
  return parts


def _probe(parts: Parts, verb: str) -> None:
  """What compiling would have to wait for: a few texts against their room, and the optimizer's patterns against paths.

  `sftrl check` looks at hundreds of episodes; here the first ones tell of a mistake before a workdir is made.
  """
  prompts, most = parts.actor.rollout.prompt_tokens, 0
  for env, seed in [*([(parts.env, f"{parts.config['seed']} ")] if parts.plays else []), *(
      (parts.env_variant(variant), "") for variant in parts.settings["evals"].variants)]:
    most = max(most, *(len(render(parts.tokenizer, env.reset(f"{seed}{number}")[1])[0]) for number in range(PROBED)))
  if most > prompts:
    raise ValueError(f"config.rollout.prompt_tokens is {prompts}, but a prompt has {most} tokens: use "
                     f"--config.rollout.prompt_tokens={most} or more.")
  data = parts.settings.get("data")
  if isinstance(data, Demonstrations):
    ids = [example(parts.tokenizer, demonstration(parts.env, data, parts.config["seed"], number))[0]
           for number in range(PROBED)]
    if max(map(len, ids)) - 1 > data.length:
      raise ValueError(f"config.data.length is {data.length}, but an example has {max(map(len, ids))} tokens: use "
                       f"--config.data.length={max(map(len, ids)) - 1} or more.")
  optimizer, lora = parts.settings["optimizer"], parts.settings["lora"]
  if lora.rank and optimizer.name == "galore":
    raise ValueError("config.optimizer.name is 'galore', which is for whole matrices, but config.lora.rank is "
                     f"{lora.rank}: use another, for example adamw, or --config.lora.rank=0.")
  if lora.rank or optimizer.freeze or optimizer.factors:
    params = {"model": jax.eval_shape(parts.model.init, jax.random.key(0))}
    if lora.rank:
      params = {"lora": _said("config.lora.", lambda: jax.eval_shape(
          lambda key: init_adapters(lora, params["model"], key), jax.random.key(0)))}
    if verb == "rl" and algorithms.ALGORITHMS[parts.config["algorithm"]].value_head:
      params["value"] = jax.eval_shape(lambda: heads.init(parts.model.config.width))
    paths.check(params, optimizer.factors, optimizer.freeze)


def _data(settings: dict):
  """What SFT is shown, as its section says."""
  chosen = data_section(settings)
  fields = {key: value for key, value in settings.items() if chosen is Rows or key != "path"}
  return build(chosen, fields, "config.data")


def _divides(name: str, value: int, by_name: str, by: int) -> None:
  if value % by:
    raise ConfigError(f"config.{by_name} is {by}; it must divide config.{name} = {value}.")


def _told(make):
  try:
    return make()
  except ValueError as error:
    raise ConfigError(str(error)) from error


def _said(above: str, make):
  """make(), whose errors begin with a key of a section."""
  try:
    return make()
  except ValueError as error:
    raise ConfigError(f"{above}{error}") from error


def _too_small(plain: dict, vocab: int, ids: int) -> str:
  if plain["model"]["name"] == pretrained.NAME:
    return (f"config.start is {plain['start']!r}, whose tokenizer has {ids} ids but whose embedding only {vocab}: "
            "repair the files, or use --config.tokenizer.name=bytes.")
  return (f"config.model.vocab is {vocab}, but the tokenizer has {ids} ids: leave it at 0 to take the tokenizer's "
          "size.")


def _tokenizer(name: str, env, start: str, workdir: Path | None):
  if name == pretrained.NAME:
    return pretrained.tokenizer(start, workdir)
  if name == "bytes":
    return tokenizers.byte()
  if name != "words":
    raise ConfigError(f"config.tokenizer.name is {name!r}; known: words, bytes, {pretrained.NAME}.")
  if not env.words:
    raise ConfigError("config.tokenizer.name is 'words', but this environment's text has no closed vocabulary: use its "
                      "compact style (--config.env.style=compact) or give your own one `words`, or use "
                      "--config.tokenizer.name=bytes.")
  return _told(lambda: tokenizers.words(env.words))


@contextlib.contextmanager
def workdir_of(parts: Parts, verb: str, workdir: Path):
  """Holds the workdir for one writer, with its config recorded; yields (log, Stop). Under the mesh.

  Of several processes the first one holds it, and decides for all.
  """
  with contextlib.ExitStack() as held:
    try:
      hosts.led(lambda: _claim(parts, verb, workdir, held))
    except ValueError as error:
      raise Refused(str(error)) from error
    if not all(hosts.gathered((workdir / "config.json").is_file())):
      raise Refused(f"--workdir={workdir} is not one directory for all processes: give one on a file system that "
                        "they share, or gs://...")
    log = Log(workdir, parts.settings["log"], parts.limits, workdir.name, writes=hosts.leads())
    watchdog = Watchdog(patience(parts.settings["log"].watchdog_seconds, hosts.several()))
    log.fed = watchdog.fed
    for note in parts.notes:
      log.say(note)
    agreement = Agreement(*hosts.preemption()) if hosts.several() else None
    try:
      grace = parts.settings["checkpoint"].grace_seconds
      with (stopping(grace, agreement) as stop, jax.set_mesh(parts.mesh),
            nn.logical_axis_rules(rules.activation_rules())):
        yield log, stop
    finally:
      watchdog.close()
      log.close()


def _claim(parts: Parts, verb: str, workdir: Path, held: contextlib.ExitStack) -> None:
  """Takes the workdir for this run, or ConfigError: it is another's, or in another's hands."""
  record = {**parts.config, "verb": verb}
  if workdir.exists() and not workdir.is_dir():
    raise ConfigError(f"--workdir={workdir} is a file: give a directory, which is made if it is missing.")
  path = workdir / "config.json"
  if path.is_file():
    old = recorded(workdir)
    if old.get("verb") != verb:
      raise ConfigError(f"{workdir} holds a run of `{old.get('verb')}`, not of `{verb}`: use another --workdir.")
    refuse_another(old, record, workdir)
    own.refuse_changed(parts.config, workdir)
  places.make(workdir)
  held.enter_context(only_writer(workdir))
  if not path.is_file() or differences(recorded(workdir), record):
    write_json(path, record)
  own.record(parts.config, workdir)
  if parts.config["model"]["name"] == pretrained.NAME:
    pretrained.keep(workdir, parts.config["start"], parts.model.config, parts.tokenizer)


def complete(workdir: Path, parts: Parts) -> bool:
  """Whether the run in this workdir has reached the end that this config asks for."""
  path = workdir / "progress.json"
  told = json.loads(path.read_text()) if path.is_file() else {}
  return told.get("phase") == "complete" and told.get("steps") == parts.limits.steps and (
      told.get("flops") == parts.limits.flops)
