"""The parts of a run, built and checked: what every program takes."""

import dataclasses
from typing import Any

from jax.sharding import Mesh

from sftrl_jax.checkpoints.store import CheckpointConfig
from sftrl_jax.data.demonstrations import DemonstrationsConfig
from sftrl_jax.data.mix import mix_of
from sftrl_jax.data.pairs.rows import PairsConfig
from sftrl_jax.data.pairs.sampled import SampledPairsConfig
from sftrl_jax.data.rows import RowsConfig
from sftrl_jax.envs import nothing
from sftrl_jax.envs.env import Env
from sftrl_jax.models import Model
from sftrl_jax.models.attention import GroupLayout
from sftrl_jax.models.lora import LoraConfig
from sftrl_jax.objectives.sft import SFTConfig
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.config.resolve import build
from sftrl_jax.programs.experiment.environment import has_reward_model, make_env, variant_env
from sftrl_jax.programs.experiment.network.reward_model import RewardModel
from sftrl_jax.programs.experiment.network.teacher import Teacher
from sftrl_jax.programs.experiment.sections import ComputeConfig, EvalsConfig, data_section
from sftrl_jax.rollout.actor import Actor
from sftrl_jax.text.tokenizer import Tokenizer
from sftrl_jax.training.algorithms import ALGORITHMS, Algorithm, group_of
from sftrl_jax.training.log import LogConfig
from sftrl_jax.training.optimizers.optimizer import OptimizerConfig
from sftrl_jax.training.optimizers.schedule import ScheduleConfig
from sftrl_jax.training.position import Limits
from sftrl_jax.training.preference_objectives import OBJECTIVES, Objective
from sftrl_jax.training.updates.ema import EmaConfig


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Everything that a run is made of, before anything is compiled or written.

  config: the resolved config as JSON holds it, which a workdir records
  verb: the kind of training, a key of kinds.KINDS
  actor: the policy that plays episodes; it holds the section `rollout`
  evals ... log: the sections of those names, built
  data: the section `data` of training on rows, or None
  sft: the section `sft` of SFT, or None
  algorithm_config: the section of config.algorithm (ppo, grpo, ...), or None
  objective_config: the section of config.objective (dpo, reward), or None
  reward_model: that scores the episodes of RL, not yet loaded; None where the environment's rewards are learned from
  teacher: of distillation, not yet loaded; else None
  tasks: of lm-eval, that evaluations ask, loaded (harness/run_tasks.py); else None
  notes: sentences for a person, printed when the run begins
  usual_prompt: mean tokens of the first prompts of training, see `shared_prompts`; 0 where none was looked at
  """

  config: dict
  verb: str
  mesh: Mesh
  env: Env
  tokenizer: Tokenizer
  model: Model
  actor: Actor
  limits: Limits
  evals: EvalsConfig
  optimizer: OptimizerConfig
  schedule: ScheduleConfig
  ema: EmaConfig
  compute: ComputeConfig
  lora: LoraConfig
  checkpoint: CheckpointConfig
  log: LogConfig
  data: DemonstrationsConfig | RowsConfig | PairsConfig | SampledPairsConfig | None = None
  sft: SFTConfig | None = None
  algorithm_config: Any = None
  objective_config: Any = None
  reward_model: RewardModel | None = None
  teacher: Teacher | None = None
  tasks: Any = None
  notes: tuple[str, ...] = ()
  usual_prompt: float = 0.0

  @property
  def seed(self) -> int:
    return self.config["seed"]

  @property
  def batch(self) -> int:
    """Rows of an update of SFT or of preferences, episodes of an iteration of RL."""
    return self.config["batch"]

  @property
  def start(self) -> str:
    """Where the parameters come from, see programs/start/."""
    return self.config["start"]

  @property
  def algorithm(self) -> Algorithm | None:
    """The entry of training.algorithms.ALGORITHMS that config.algorithm names, or None."""
    return ALGORITHMS.get(self.config.get("algorithm"))

  @property
  def objective(self) -> Objective | None:
    """The entry of training.preference_objectives.OBJECTIVES that config.objective names, or None."""
    return OBJECTIVES.get(self.config.get("objective"))

  @property
  def head_layers(self) -> tuple[int, ...] | None:
    """Widths of the hidden layers of the head that is trained beside the model, of values or scores; None without."""
    if self.objective is not None:
      return self.objective.head_layers(self.objective_config)
    return self.algorithm_config.value_layers if self.algorithm is not None and self.algorithm.value_head else None

  @property
  def has_own_critic(self) -> bool:
    """Whether the value head reads a trunk of its own."""
    return getattr(self.algorithm_config, "critic", "shared") == "own"

  @property
  def prefix_tokens(self) -> int:
    """Columns of what a teacher alone reads before a row; 0 where it reads nothing else than the policy."""
    return self.teacher.prefix_tokens if self.teacher else 0

  @property
  def shared_prompts(self) -> GroupLayout | None:
    """How scoring and update of RL compute the prompt of a group once; None where rows are computed whole.

    Groups that stay together are padded to their longest row, where rows that are ordered by length are not: of
    responses with a mean of a fifth of their limit by a quarter of the limit (simulated, groups of 8). So prompts
    are shared where that saves more.
    """
    group, prompt = group_of(self.algorithm_config), self.actor.rollout.prompt_tokens - 1
    if group == 1 or not self.compute.share_prompts or self.whole_rows_because:
      return None
    saved, padded = (self.usual_prompt or prompt) * (1 - 1 / group), (self.actor.row_len() - prompt) / 4
    return GroupLayout(prompt, group) if saved >= padded else None

  @property
  def whole_rows_because(self) -> str:
    """Why the rows of a group can't share their prompt, "" if they can."""
    group, section, compute = group_of(self.algorithm_config), self.algorithm_config, self.compute
    shards = meshes.rows(self.mesh)
    rows = self.batch // section.minibatches // compute.microbatches
    if rows % (group * shards):
      return (f"a microbatch has {rows} rows on {shards} devices, which is no multiple of groups of {group} on each: "
              "change batch or compute.microbatches")
    if not self.model.shares_prompts:
      family = type(self.model).__name__
      return "compute.exact is True" if self.model.exact else f"{family} computes rows in its own way"
    if self.actor.episode_rows > 1:
      return "the environment rewrites its prompt"
    if self.actor.rollout.feedback_images:
      return "pictures may come after the prompt"
    return "" if self.actor.rollout.prompt_tokens > 1 else "rollout.prompt_tokens is 1"

  @property
  def reads_reference(self) -> bool:
    """Whether RL measures the KL to its start: where it is in the objective, and under every reward model, whose scores
    mean less the farther the policy is from what they were learned on."""
    return self.algorithm_config is not None and bool(self.algorithm_config.kl_coef or self.reward_model)

  @property
  def samples_from_start(self) -> bool:
    """Whether the model that a run begins with plays its episodes, and not the policy that it trains."""
    return getattr(self.algorithm_config, "sampler", "policy") == "start"

  @property
  def has_env(self) -> bool:
    """Whether there is an environment; a run may have rows of its own and nothing to play."""
    return self.config["env"]["name"] != nothing.NAME

  def with_batch(self, rows: int) -> "Experiment":
    """The run with batches of so many rows."""
    return dataclasses.replace(self, config={**self.config, "batch": rows})

  def second_source(self) -> "Experiment | None":
    """The run with the environment, the data and the rows of config.data.mix; None without. ConfigError, ValueError."""
    mix, plain = mix_of(self.data), self.config["data"] if self.data else {}
    if not mix.rows(self.batch):
      return None
    kind = data_section({**plain, **mix.data})
    if mix.env and kind is RowsConfig:
      raise ValueError(f"config.data.mix.env is {mix.env}, but the second source is the file {mix.data.get('path')!r}: "
                       "leave it out, or give mix.data keys of demonstrations.")
    data = build(kind, mix.settings(plain, kind), "config.data.mix.data")
    try:
      env = make_env({**self.config["env"], **mix.env})
    except ConfigError as error:
      raise ConfigError(f"config.data.mix.env is {mix.env}: {error}") from error
    return dataclasses.replace(self.with_batch(mix.rows(self.batch)), env=env, data=data)

  def env_variant(self, variant: str) -> Env:
    """The environment of one evaluation variant, or of a probe."""
    settings = {**self.config["env"], **self.evals.env}
    if variant in self.evals.probes:
      settings |= self.evals.probes[variant]
      variant = self.evals.probes[variant].get("variant", self.evals.variants[0])
    return variant_env(settings, variant, self.config["reward"], self.config["own_reward"],
                       has_reward_model(self.config))

  @property
  def probe_actor(self) -> Actor:
    """The policy that plays probes: that of the run, with room for their prompts."""
    if self.evals.probe_tokens <= self.actor.rollout.prompt_tokens:
      return self.actor
    rollout = dataclasses.replace(self.actor.rollout, prompt_tokens=self.evals.probe_tokens, shrink=())
    return dataclasses.replace(self.actor, rollout=rollout, group=1)
