"""From a resolved config to an Experiment: the only place that reads a ConfigDict. Nothing is compiled or written."""

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sftrl_jax.data.batches import example
from sftrl_jax.data.demonstrations import DemonstrationsConfig, demonstration
from sftrl_jax.envs.env import Env, rewriting
from sftrl_jax.envs.expert_states import walk
from sftrl_jax.envs.referee import EpisodeError
from sftrl_jax.models import Model, exactly
from sftrl_jax.models.lora import init as init_adapters
from sftrl_jax.parallel import mesh as meshes, undivided
from sftrl_jax.parallel.mesh import MeshConfig
from sftrl_jax.programs.config import automatic
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.config.resolve import build
from sftrl_jax.programs.config.schema import expanded
from sftrl_jax.programs.experiment import length
from sftrl_jax.programs.experiment.environment import has_reward_model, make_env, variant_env
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.experiment.network.parts import as_config_error, build_model, build_tokenizer, reading_pictures
from sftrl_jax.programs.experiment.network.reward_model import describe
from sftrl_jax.programs.experiment.network.teacher import describe as describe_teacher
from sftrl_jax.programs.experiment.sections import model_section
from sftrl_jax.programs.start import pretrained, trainable
from sftrl_jax.rollout.actor import Actor
from sftrl_jax.rollout.sample import Sampling
from sftrl_jax.text.render import render
from sftrl_jax.training import algorithms
from sftrl_jax.training.optimizers import param_paths
from sftrl_jax.training.optimizers.optimizer import make_optimizer
from sftrl_jax.training.position import Limits
from sftrl_jax.training.preference_objectives import OBJECTIVES
from sftrl_jax.training.state import create, is_averaged

MOST_WORKERS = 1024   # threads of a process
PROBED = 8  # episodes of each variant, and examples, looked at before a run begins


def build_experiment(config: ConfigDict, verb: str, workdir: Path | None = None,
                     devices: Sequence[Any] | None = None, scored: bool = True) -> Experiment:
  """Builds every part of a run and checks that they agree.

  config: resolved, see experiment/run_config.py
  verb: a key of KINDS
  workdir: of the run, where a pretrained model is described once it has begun
  devices: of the mesh; all that are here, if left out. They may be described ones, for which one can only compile
  scored: whether episodes will be scored, so that a reward model and a teacher are looked at; off for a run that is
    only read

  Raises ConfigError naming key, value, rule and way out.
  """
  plain, kind = json.loads(json.dumps(config.to_dict())), KINDS[verb]
  sections = _build_sections(plain, kind.schema)
  _check_numbers(plain)
  _check_export(plain)
  env = make_env(plain["env"], plain["reward"], plain["own_reward"], has_reward_model(plain))
  _check_variants(plain, sections["evals"], env)
  tokenizer = build_tokenizer(sections["tokenizer"], env, plain["start"], workdir, sections["model"])
  mesh = _build_mesh(plain, sections["mesh"], devices)
  plain, sections = _without_auto(plain, sections, kind.schema, mesh)
  model = build_model(plain, sections["model"], tokenizer, mesh, workdir)
  tokenizer = reading_pictures(tokenizer, model)
  reward = describe(sections["reward_model"], tokenizer, plain["tokenizer"], mesh) if (
      scored and "reward_model" in sections) else None
  teacher = describe_teacher(sections["teacher"], plain, model, tokenizer, mesh) if (
      scored and "teacher" in sections) else None
  algorithm_config, rollout = sections.get(plain.get("algorithm")), sections["rollout"]
  actor = as_config_error(lambda: Actor(model, tokenizer, rollout, Sampling(rollout.max_new_tokens), env.attempts, mesh,
                                        algorithms.group_of(algorithm_config), rewriting(env),
                                        bool(sections["evals"].variants)))
  if sections["compute"].exact:
    model, actor = as_config_error(lambda: _exactly(actor, mesh))
  notes = as_config_error(lambda: undivided.check(_shapes(model), mesh)) if mesh.size > 1 else ()
  names = ("evals", "optimizer", "schedule", "ema", "compute", "lora", "checkpoint", "log")
  experiment = Experiment(plain, verb, mesh, env, tokenizer, model, actor, Limits(plain["steps"], plain["flops"]),
                          **{name: sections[name] for name in names}, data=sections.get("data"),
                          sft=sections.get("sft"), algorithm_config=algorithm_config,
                          objective_config=_objective_section(plain, sections), reward_model=reward, teacher=teacher,
                          notes=notes)
  as_config_error(lambda: kind.check(experiment))
  _check_probes(experiment)
  as_config_error(lambda: _probe(experiment))
  experiment = dataclasses.replace(experiment, usual_prompt=_usual_prompt(experiment))
  learner = as_config_error(lambda: kind.make_learner(experiment))
  notes = (*notes, *getattr(env, "notes", ()), *_mix_notes(experiment), *length.notes(experiment, learner))
  return dataclasses.replace(experiment, notes=notes)


def _mix_notes(experiment: Experiment) -> tuple[str, ...]:
  """Where the rows of a batch come from that are not the run's own."""
  second = experiment.second_source()
  if second is None:
    return ()
  mix = experiment.data.mix
  source = getattr(second.data, "path", "") or "demonstrations" + "".join(
      f", {name} {keys}" for name, keys in (("data", mix.data), ("env", mix.env)) if keys)
  return (f"config.data.mix: {second.batch} of {experiment.batch} rows of every batch "
          f"({second.batch / experiment.batch:.1%}) are replay: {source}.",)


def _objective_section(plain: dict, sections: dict) -> Any:
  """The section of config.objective, None without one."""
  return sections[OBJECTIVES[plain["objective"]].key] if "objective" in plain else None


def _build_sections(plain: dict, schema: dict) -> dict:
  """{name: section} of all sections but env, which needs the reward too."""
  schema = expanded(plain, schema)
  sections = {name: build(kind, plain[name], f"config.{name}") for name, kind in schema.items()
              if isinstance(kind, type) and dataclasses.is_dataclass(kind) and name != "env"}
  family = {key: value for key, value in plain["model"].items() if key != "name"}
  sections["model"] = build(model_section(plain["model"]), family, "config.model")
  if "data" in schema:   # config.data.path, "" or a file, has chosen the class, which may have no such field
    chosen = schema["data"](plain["data"])
    fields = {key: value for key, value in plain["data"].items() if value or key != "path"}
    sections["data"] = build(chosen, fields, "config.data")
  return sections


def _without_auto(plain: dict, sections: dict, schema: dict, mesh: Mesh) -> tuple[dict, dict]:
  """Config and sections with the leanest value for each "auto", see config/automatic.py."""
  values = automatic.leanest(plain, meshes.rows(mesh))
  if not values:
    return plain, sections
  plain = automatic.with_values(plain, values)
  return plain, _build_sections(plain, schema)


def _build_mesh(plain: dict, section: MeshConfig, devices) -> Mesh:
  mesh = as_config_error(lambda: meshes.make(section, devices))
  for name, value in (("batch", plain["batch"]), ("rollout.rows", plain["rollout"]["rows"])):
    as_config_error(lambda name=name, value=value: meshes.refuse_uneven(name, value, mesh))
  return mesh


def _exactly(actor: Actor, mesh: Mesh) -> tuple[Model, Actor]:
  """The model in exact mode, and the actor with it."""
  if actor.rollout.refill:
    raise ValueError("config.compute.exact is True and config.rollout.refill too, but the columns of a cache are "
                     "positions in exact mode and a ring in refilled slots: use --config.rollout.refill=False.")
  longest = max(actor.row_len(bootstrap=True), *map(actor.cache_len, range(actor.turns)))
  model = exactly(actor.model, mesh.devices.flat[0].platform, mesh.size, actor.rollout.dtype, longest)
  return model, dataclasses.replace(actor, model=model)


def _check_numbers(plain: dict) -> None:
  for name, value in (("batch", plain["batch"]), ("rollout.rows", plain["rollout"]["rows"])):
    if value < 1:
      raise ConfigError(f"config.{name} is {value}; it must be at least 1.")
  if plain["steps"] < 1 or plain["flops"] < 0:
    raise ConfigError(f"config.steps is {plain['steps']} and config.flops {plain['flops']}: steps must be at least 1, "
                      "flops 0 (no budget) or positive.")
  if plain["max_nonfinite"] < 1:
    raise ConfigError(f"config.max_nonfinite is {plain['max_nonfinite']}; it must be at least 1.")
  if plain["max_dropped"] < 0:
    raise ConfigError(f"config.max_dropped is {plain['max_dropped']}; it must be 0 (no episode is left out) or more.")
  if not 0 <= plain["verdict_seconds"] < 1e6:
    raise ConfigError(f"config.verdict_seconds is {plain['verdict_seconds']}; it must be 0 (no limit) or some seconds.")
  if not 1 <= plain["verdict_workers"] <= MOST_WORKERS:
    raise ConfigError(f"config.verdict_workers is {plain['verdict_workers']}; it must be 1 (one verdict after another) "
                      f"or more, at most {MOST_WORKERS}: each is a thread.")
  if plain.get("max_without_signal", 0) < 0:
    raise ConfigError(f"config.max_without_signal is {plain['max_without_signal']}; it must be 0 (never) or positive.")
  if plain["seed"] < 0:
    raise ConfigError(f"config.seed is {plain['seed']}; it must be 0 or more.")


def _check_export(plain: dict) -> None:
  """ConfigError where a run is to export a model that transformers has no name for."""
  every, name = plain["checkpoint"]["export_every"], plain["model"].get("name", "decoder")
  if every and name != pretrained.NAME:
    raise ConfigError(f"config.checkpoint.export_every is {every}, but config.model.name is {name!r}, a model that "
                      f"transformers does not know: begin from pretrained weights with "
                      f"--config.model.name={pretrained.NAME}, or leave it at 0.")


def _check_variants(plain: dict, evals, env: Env) -> None:
  for variant in evals.variants:
    if variant not in env.variants:
      raise ConfigError(f"config.evals.variants names {variant!r}, but {plain['env']['name']} has "
                        f"{', '.join(env.variants)}.")
    as_config_error(lambda variant=variant: _check_rows(
        env, variant_env({**plain["env"], **evals.env}, variant, plain["reward"], plain["own_reward"],
                         has_reward_model(plain)), variant))


def _check_probes(experiment: Experiment) -> None:
  for name in experiment.evals.probes:
    try:
      if name in experiment.env.variants:
        raise ValueError("the environment has a variant of that name: choose another.")
      _check_rows(experiment.env, experiment.env_variant(name), name)
    except ValueError as error:
      raise ConfigError(f"config.evals.probes.{name}: {error}") from error
  if experiment.compute.exact and experiment.probe_actor is not experiment.actor:
    raise ConfigError(f"config.evals.probe_tokens is {experiment.evals.probe_tokens}, but under config.compute.exact "
                      "all rows have those of config.rollout: raise config.rollout.prompt_tokens instead.")


def _check_rows(env: Env, variant: Env, name: str) -> None:
  """ValueError where the chats of a variant need other rows than those of training, for which all is compiled."""
  ours, theirs = rewriting(env), rewriting(variant)
  if (ours is None) != (theirs is None):
    raise ValueError(f"config.evals.env makes {name!r} {'rewrite its prompt' if theirs else 'keep one growing chat'}, "
                     "but config.env does not: give both the same style.")
  if ours and (theirs.rows > ours.rows or theirs.row_attempts > ours.row_attempts):
    raise ValueError(f"config.evals.env gives {name!r} up to {theirs.rows} chats of {theirs.row_attempts} responses, "
                     f"but config.env has {ours.rows} of {ours.row_attempts}: evaluate episodes that are no longer.")
  if variant.attempts > env.attempts:
    raise ValueError(f"config.evals.env gives {name!r} {variant.attempts} attempts, but config.env has {env.attempts}, "
                     "and rows and caches have room for these: evaluate with as many or fewer.")


def _probe(experiment: Experiment) -> None:
  """What compiling would have to wait for: a few texts against their room, and the optimizer's patterns against paths.

  `sftrl check` looks at hundreds of episodes; here the first ones show a mistake before a workdir is made.
  """
  envs = [(experiment.env, f"{experiment.seed} ")] if experiment.has_env else []
  envs += [(experiment.env_variant(variant), "") for variant in experiment.evals.variants]
  for env, prefix in envs:
    _probe_prompts(experiment, env, prefix)
  for probe in experiment.evals.probes:
    _probe_prompts(experiment, experiment.env_variant(probe), "", probe)
  if experiment.evals.expert_episodes:
    for variant in experiment.evals.variants:
      _probe_expert(experiment.env_variant(variant), experiment.evals.seed)
  _probe_examples(experiment)
  _probe_optimizer(experiment)


def _probe_prompts(experiment: Experiment, env: Env, prefix: str, probe: str = "") -> None:
  """Most of the first prompts fit; a run leaves out the few that do not, or that reset does not give."""
  actor, key = (experiment.probe_actor, "evals.probe_tokens") if probe else (experiment.actor, "rollout.prompt_tokens")
  most, (lengths, errors) = actor.rollout.prompt_tokens, _first_prompts(experiment, env, prefix)
  if len(errors) + sum(length > most for length in lengths) <= min(PROBED // 2, experiment.config["max_dropped"]):
    return
  if max(lengths, default=0) > most:
    raise ValueError(f"config.{key} is {most}, but a prompt{f' of probe {probe}' if probe else ''} has {max(lengths)} "
                     f"tokens: use --config.{key}={max(lengths)} or more.")
  raise errors[0]


def _first_prompts(experiment: Experiment, env: Env, prefix: str) -> tuple[list[int], list[EpisodeError]]:
  """(tokens of the first prompts, errors of those that reset does not give). prefix: of their seeds"""
  lengths, errors = [], []
  for number in range(PROBED):
    try:
      lengths.append(len(render(experiment.tokenizer, env.reset(f"{prefix}{number}")[1])[0]))
    except EpisodeError as error:
      errors.append(error)
  return lengths, errors


def _usual_prompt(experiment: Experiment) -> float:
  """Mean tokens of the first prompts of training, where groups may share theirs; else 0."""
  if algorithms.group_of(experiment.algorithm_config) == 1 or not experiment.compute.share_prompts:
    return 0.0
  lengths, _ = _first_prompts(experiment, experiment.env, f"{experiment.seed} ")
  return sum(lengths) / max(1, len(lengths))


def _probe_expert(env: Env, seed: int) -> None:
  """The expert comes through its first episodes; an episode that reset or step does not give is counted later."""
  for number in range(seed, seed + PROBED):
    with contextlib.suppress(EpisodeError):
      list(walk(env, number))


def _probe_examples(experiment: Experiment) -> None:
  """The first demonstrations fit into rows of config.data.length."""
  for source in filter(None, (experiment, experiment.second_source())):
    data = source.data
    if not isinstance(data, DemonstrationsConfig):
      continue
    longest = max(len(example(source.tokenizer, demonstration(source.env, data, source.seed, number))[0])
                  for number in range(PROBED))
    if longest - 1 > data.length:
      whose = "an example" if source is experiment else "an example of data.mix"
      raise ValueError(f"config.data.length is {data.length}, but {whose} has {longest} tokens: use "
                       f"--config.data.length={longest - 1} or more.")


def _probe_optimizer(experiment: Experiment) -> None:
  """Patterns of optimizer.factors, optimizer.freeze and lora.targets match parameters that are trained."""
  optimizer, lora = experiment.optimizer, experiment.lora
  if lora.rank and optimizer.name == "galore":
    raise ValueError("config.optimizer.name is 'galore', which is for whole matrices, but config.lora.rank is "
                     f"{lora.rank}: use another, for example adamw, or --config.lora.rank=0.")
  if experiment.ema.decay and is_averaged(jax.eval_shape(
      lambda params: create(params, make_optimizer(optimizer, lambda number: 1.0)), _shapes(experiment.model))):
    raise ValueError(f"config.ema.decay is {experiment.ema.decay:g}, but optimizer {optimizer.name} evaluates an "
                     "average of its own: use --config.ema.decay=0, or another optimizer.")
  if not (lora.rank or optimizer.freeze or optimizer.factors):
    return
  params = _shapes(experiment.model)
  if lora.rank:
    params = {"lora": as_config_error(lambda: jax.eval_shape(
        lambda key: init_adapters(lora, params["model"], key), jax.random.key(0)), "config.lora.")}
  params |= jax.eval_shape(lambda: trainable.value_head(experiment))
  param_paths.check(params, optimizer.factors, optimizer.freeze)


def _shapes(model: Model) -> dict:
  return {"model": jax.eval_shape(model.init, jax.random.key(0))}
