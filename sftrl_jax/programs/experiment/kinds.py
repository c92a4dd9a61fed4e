"""The kinds of training, and all that is particular to each. What they share is every other file of programs/.

To add one: a schema here, a check, a learner (learner.py), a program (programs/VERB.py, an entry of
programs/trainers.py), and the key of a config that names it (run_config.VERB_OF_KEY).
"""

import dataclasses
from collections.abc import Callable

from sftrl_jax.data.demonstrations import DemonstrationsConfig, refuse
from sftrl_jax.data.pairs.rows import PAIRS
from sftrl_jax.data.pairs.sampled import SampledPairsConfig
from sftrl_jax.data.rows import RowsConfig
from sftrl_jax.envs import nothing
from sftrl_jax.envs.env import Env, verifies
from sftrl_jax.objectives.sft import SFTConfig
from sftrl_jax.parallel import hosts, mesh as meshes
from sftrl_jax.programs.config.schema import OneOf
from sftrl_jax.programs.experiment.environment import has_reward_model
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.learner import (
  Learner,
  make_preference_learner,
  make_rl_learner,
  make_sft_learner,
)
from sftrl_jax.programs.experiment.network.reward_model import RewardModelConfig, refuse_critic
from sftrl_jax.programs.experiment.network.teacher import TeacherConfig
from sftrl_jax.programs.experiment.sections import SHARED, data_section, pairs_section
from sftrl_jax.training import algorithms
from sftrl_jax.training.preference_objectives import OBJECTIVES

NO_ENV = ("config.env.name is {name!r}, but {verb} needs something to learn from: choose an environment with "
          "--config.env.name=...{way_out}.")


@dataclasses.dataclass(frozen=True)
class Kind:
  """One kind of training.

  schema: {key: default, type or section} of its config, see config/schema.py
  check: Experiment -> None; ValueError where batch, sections, environment and mesh do not agree
  make_learner: Experiment -> Learner
  plays_episodes: whether a step of training plays episodes, so that rollouts are compiled even if nothing is evaluated
  """

  schema: dict
  check: Callable[[Experiment], None]
  make_learner: Callable[[Experiment], Learner]
  plays_episodes: bool


def _check_sft(experiment: Experiment) -> None:
  for source in filter(None, (experiment, experiment.second_source())):
    if not source.has_env and not isinstance(source.data, RowsConfig):
      raise ValueError(NO_ENV.format(name=nothing.NAME, verb="sft",
                                     way_out=", or give rows of your own with --config.data.path=FILE"))
    if isinstance(source.data, DemonstrationsConfig):
      refuse(source.env, source.data)
  _refuse_exact(experiment)
  _refuse_teacher(experiment, "sft.loss", experiment.sft.loss)
  if experiment.sft.loss == "psft":
    algorithms.refuse_indivisible("batch", experiment.batch, "sft.minibatches", experiment.sft.minibatches)
    _refuse_uncut(experiment, experiment.sft.minibatches)
  _refuse_uncut(experiment)


def _refuse_teacher(experiment: Experiment, key: str, method: str) -> None:
  """ValueError for a teacher that nothing learns from, for distillation without one, and for a demonstration that none
  can read. key: that names the method"""
  section = experiment.config["teacher"]
  for name in ("start", "demonstration"):
    if section[name] and method != algorithms.DISTILL:
      raise ValueError(f"config.teacher.{name} is {section[name]!r}, but {key} {method} has no teacher: leave it out, "
                       f"or use --config.{key}={algorithms.DISTILL}.")
  shown = section["demonstration"]
  if method == algorithms.DISTILL and not section["start"]:
    own = f"; one that reads a demonstration may be as this run begins, --config.teacher.start={experiment.start}"
    raise ValueError(f"config.{key} is {method!r}, but config.teacher.start is '': give the run whose distribution is "
                     f"learned, --config.teacher.start=WORKDIR, or pretrained weights{own if shown else ''}.")
  if shown and experiment.algorithm is None:
    raise ValueError(f"config.teacher.demonstration is {shown!r}, but a row of SFT holds several chats, with the "
                     "expert's own responses: leave it out, or use `sftrl rl` with --config.algorithm=distill.")
  if shown and experiment.tokenizer.reader is not None:
    raise ValueError(f"config.teacher.demonstration is {shown!r}, which is text, but config.model.name is "
                     f"{experiment.config['model']['name']!r}, which reads pictures: leave it out, or use a model of "
                     "text.")


def _check_preference(experiment: Experiment) -> None:
  for key in ("variants", "tasks") if experiment.head_layers is not None else ():
    if getattr(experiment.evals, key):
      raise ValueError(f"config.evals.{key} is {getattr(experiment.evals, key)}, but config.objective is "
                       f"{experiment.config['objective']!r}, which trains a model that scores and does not answer: use "
                       f"--config.evals.{key}='()'.")
  if experiment.head_layers and experiment.checkpoint.export_every:
    raise ValueError(f"config.bradley_terry.layers is {experiment.head_layers}, but the score of an export is linear: "
                     "use --config.bradley_terry.layers='()', or --config.checkpoint.export_every=0.")
  if isinstance(experiment.data, SampledPairsConfig):
    _check_sampled_pairs(experiment, experiment.data)
  _refuse_exact(experiment)
  _refuse_uncut(experiment)


def _check_sampled_pairs(experiment: Experiment, data: SampledPairsConfig) -> None:
  if not experiment.has_env:
    raise ValueError(f"config.data.path is '' and config.env.name {nothing.NAME!r}, but preferences are learned from "
                     f"pairs: give --config.data.path=FILE, with columns {PAIRS.needed}, or choose an environment with "
                     "--config.env.name=..., whose prompts the start answers.")
  if hosts.several():
    raise ValueError("config.data.path is '', but pairs are sampled by one process, and this is a run of several: "
                     "sample them in a run of one, and give all processes its pairs.jsonl as config.data.path.")
  rows = experiment.actor.rollout.rows
  if rows % 2:
    raise ValueError(f"config.rollout.rows is {rows}, but both responses of a pair are sampled together: use an even "
                     f"number, for example --config.rollout.rows={rows + 1}.")
  meshes.refuse_uneven("rollout.rows / 2", rows // 2, experiment.mesh)
  for variant in data.variants:
    if variant not in experiment.env.variants:
      raise ValueError(f"config.data.variants names {variant!r}, but {experiment.config['env']['name']} has "
                       f"{', '.join(experiment.env.variants)}.")


def _refuse_exact(experiment: Experiment, method: str = "") -> None:
  if experiment.compute.exact:
    raise ValueError(f"config.compute.exact is True, but {method or experiment.verb} compares with nothing that was "
                     "sampled: leave it at False.")


def _refuse_uncut(experiment: Experiment, minibatches: int = 1) -> None:
  pieces, rows = experiment.compute.microbatches, experiment.batch // minibatches
  name = "batch / sft.minibatches" if minibatches > 1 else "batch"
  algorithms.refuse_indivisible(name, rows, "compute.microbatches", pieces)
  meshes.refuse_uneven(f"{name} / compute.microbatches", rows // pieces, experiment.mesh)


def _check_rl(experiment: Experiment) -> None:
  if not experiment.has_env:
    raise ValueError(NO_ENV.format(name=nothing.NAME, verb="rl", way_out=""))
  _refuse_unrewarded(experiment.env, experiment.config)
  algorithms.check(experiment.config["algorithm"], experiment.algorithm_config, experiment.batch,
                   experiment.compute.microbatches, experiment.actor.rollout, experiment.mesh,
                   experiment.actor.episode_rows)
  name = experiment.config["algorithm"]
  algorithms.refuse_thought(name, experiment.algorithm_config, experiment.env)
  _refuse_teacher(experiment, "algorithm", name)
  experiment.algorithm.check(experiment)
  if not experiment.algorithm.compares:
    _refuse_exact(experiment, f"algorithm {name}")
  _check_reward_model(experiment)


def _check_reward_model(experiment: Experiment) -> None:
  section, reward = experiment.config["reward_model"], experiment.config["reward"]
  if section["start"] and reward:
    raise ValueError(f"config.reward is {reward!r} and config.reward_model.start {section['start']!r}, but a response "
                     "has one reward: leave one of them out.")
  if section["start"] and not experiment.algorithm.compares:
    raise ValueError(f"config.reward_model.start is {section['start']!r}, but algorithm "
                     f"{experiment.config['algorithm']} learns from no rewards: leave it out, or use "
                     "--config.algorithm=ppo.")
  refuse_critic(section["critic"], experiment.reward_model, experiment.model.config, experiment.head_layers,
                experiment.has_own_critic)
  if experiment.has_own_critic and experiment.lora.rank:
    raise ValueError(f"config.ppo.critic is 'own' and config.lora.rank {experiment.lora.rank}, but a critic's own "
                     "trunk is trained whole: use --config.ppo.critic=shared, or --config.lora.rank=0.")


def _refuse_unrewarded(env: Env, config: dict) -> None:
  if not verifies(env) and not config["reward"] and not has_reward_model(config):
    raise ValueError(f"config.env.name is {config['env']['name']!r}, which rewards no response: give a reward function "
                     "with --config.reward=path/to/file.py:function, or a reward model with "
                     "--config.reward_model.start=WORKDIR.")


KINDS = {
    "sft": Kind({**SHARED, "data": data_section, "sft": SFTConfig, "teacher": TeacherConfig}, _check_sft,
                make_sft_learner, plays_episodes=False),
    "rl": Kind({**SHARED, "max_without_signal": 300, "reward_model": RewardModelConfig, "teacher": TeacherConfig,
                "algorithm": OneOf("ppo", {
                    name: algorithm.section for name, algorithm in algorithms.ALGORITHMS.items()})},
               _check_rl, make_rl_learner, plays_episodes=True),
    "preference": Kind({**SHARED, "data": pairs_section, "objective": OneOf("dpo", {
        name: objective.section for name, objective in OBJECTIVES.items()}, {
        name: objective.key for name, objective in OBJECTIVES.items()})},
                       _check_preference, make_preference_learner, plays_episodes=False),
}
