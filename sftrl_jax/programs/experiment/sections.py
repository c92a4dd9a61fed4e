"""The sections of a config: which there are, and the dataclass behind each."""

import dataclasses
from typing import Literal

from sftrl_jax.checkpoints.store import CheckpointConfig
from sftrl_jax.data.demonstrations import DemonstrationsConfig
from sftrl_jax.data.pairs.rows import PairsConfig
from sftrl_jax.data.pairs.sampled import SampledPairsConfig
from sftrl_jax.data.rows import RowsConfig
from sftrl_jax.models import DecoderConfig
from sftrl_jax.models.lora import LoraConfig
from sftrl_jax.models.vision.idefics3 import Idefics3Config
from sftrl_jax.models.vision.mllama.model import MllamaConfig
from sftrl_jax.models.vision.tiny import TinyVisionConfig
from sftrl_jax.parallel.mesh import MeshConfig
from sftrl_jax.programs.config import user_files
from sftrl_jax.programs.config.automatic import AUTO
from sftrl_jax.programs.experiment.environment import env_section
from sftrl_jax.programs.own_reward.config import OwnRewardConfig
from sftrl_jax.programs.start import pretrained
from sftrl_jax.rollout.config import RolloutConfig
from sftrl_jax.training.log import LogConfig
from sftrl_jax.training.optimizers import catalogue
from sftrl_jax.training.optimizers.optimizer import OptimizerConfig
from sftrl_jax.training.optimizers.schedule import ScheduleConfig
from sftrl_jax.training.updates.ema import EmaConfig

catalogue.set_user_file_loader(user_files.optimizer)   # config.optimizer.name=path/to/file.py:function

_AT = (0.2, 0.4, 0.6, 0.8)
MOST_LENGTHS = 64


@dataclasses.dataclass(frozen=True)
class EvalsConfig:
  """What is measured along the way. Step 0 and the end always are.

  every: steps between evaluations (0: see at)
  at: shares of the run's steps or FLOPs after which it is evaluated, where every is 0
  variants: of the environment
  env: fields of the environment that differ from training's, for every variant
  probes: {name: {field of the environment: value}} of tasks from before this training, evaluated beside the variants to
    see what is forgotten: each the first variant's environment with these fields
  probe_tokens: most tokens of a probe's prompt, where they are more than rollout.prompt_tokens (0: as these)
  episodes: episodes a variant and temperature
  seed: the first episode's seed; the others follow, the same in every run that is to be compared
  temperatures: 0 is greedy
  kl: measure KL(policy || start) on the episodes at temperature 1
  kl_episodes: on so many of a variant's, the first ones (0: on all)
  log_episodes: greedy episodes a variant written to episodes.jsonl
  samples: episodes a seed at temperatures above 0, for pass@k and distinct solutions; rates are of the first of them
  expert_episodes: of so many episodes (at most all of them), the share of right greedy responses at every state that
    the expert comes through is measured too
  tasks: of lm-eval, or of files of your own, asked at the same points (pip install 'sftrl-jax[eval]'), into tasks.jsonl
  task_path: a directory of a user's own task files ("": none)
  task_limit: documents of a task, the first ones (0: all)
  task_shots: examples before each question (-1: the task's own number)
  task_chat: whether prompts of tasks are written by the model's chat template
  """

  every: int = 0
  at: tuple[float, ...] = _AT
  variants: tuple[str, ...] = ()
  env: dict = dataclasses.field(default_factory=dict)
  probes: dict[str, dict] = dataclasses.field(default_factory=dict)
  probe_tokens: int = 0
  episodes: int = 512
  seed: int = 1_000_000_000
  temperatures: tuple[float, ...] = (0.0, 1.0)
  kl: bool = True
  kl_episodes: int = 256
  log_episodes: int = 16
  samples: int = 1
  expert_episodes: int = 0
  tasks: tuple[str, ...] = ()
  task_path: str = ""
  task_limit: int = 0
  task_shots: int = -1
  task_chat: bool = False

  def __post_init__(self):
    if self.episodes < 1:
      raise ValueError(f"episodes is {self.episodes}; it must be at least 1.")
    if self.samples < 1:
      raise ValueError(f"samples is {self.samples}; it must be at least 1.")
    for name in ("every", "seed", "kl_episodes", "log_episodes", "expert_episodes", "probe_tokens", "task_limit"):
      if getattr(self, name) < 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")
    if self.task_shots < -1:
      raise ValueError(f"task_shots is {self.task_shots}; it must be -1 (the task's own number), 0 or more.")
    if len(set(self.tasks)) < len(self.tasks) or not all(name.strip() for name in self.tasks):
      raise ValueError(f"tasks is {self.tasks}; each must be the name of a task of lm-eval, once.")
    for name, fields in self.probes.items():
      if not name.isidentifier() or name in self.variants or not isinstance(fields, dict):
        raise ValueError(f"probes has {name!r}: {fields!r}, but a probe is a word that is no variant, and fields of "
                         "the environment: {'second_try': {'earlier': 1}}.")
    if self.probes and not self.variants:
      raise ValueError(f"probes is {self.probes}, but variants is (), beside which they are evaluated: add a variant.")
    if not all(0 < share < 1 for share in self.at):
      raise ValueError(f"at is {self.at}; it needs shares of the run between 0 and 1; its end is always evaluated.")
    if self.every and tuple(self.at) not in ((), _AT):   # the default may stay: nobody asked for it
      raise ValueError(f"every is {self.every} and at is {self.at}, but only one of them says when: use "
                       "--config.evals.at='()' or --config.evals.every=0.")
    if not self.temperatures or not all(0 <= temperature <= 100 for temperature in self.temperatures):
      raise ValueError(f"temperatures is {self.temperatures}; it needs at least one, each from 0 (greedy) to 100.")
    if self.samples > 1 and not any(self.temperatures):
      raise ValueError(f"samples is {self.samples}, but temperatures is {self.temperatures} and greedy episodes of a "
                       "seed are all alike: use --config.evals.samples=1, or add a temperature above 0.")
    if self.expert_episodes and all(self.temperatures):
      raise ValueError(f"expert_episodes is {self.expert_episodes}, but temperatures is {self.temperatures} and the "
                       "responses at the expert's states are greedy: add 0.0 to config.evals.temperatures, or use "
                       "--config.evals.expert_episodes=0.")


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
  """How text becomes ids.

  name: "words" (the environment's own closed vocabulary), "bytes" (any text), or "pretrained" (the one that comes with
    config.start)
  template_args: what the chat template gets besides messages, such as {'enable_thinking': False}, date_string or tools;
    training, rollouts, evaluation, sampling and exports of the run have them alike
  assistant_tokens: control tokens, such as <think>, that are such in what the assistant says; others are letters there
  """

  name: str = "words"
  template_args: dict = dataclasses.field(default_factory=dict)
  assistant_tokens: tuple[str, ...] = ()

  def __post_init__(self):
    for key in ("template_args", "assistant_tokens"):
      if getattr(self, key) and self.name != pretrained.NAME:
        raise ValueError(f"{key} is {getattr(self, key)!r}, but name is {self.name!r}, which has no chat template: use "
                         f"--config.tokenizer.name={pretrained.NAME}.")


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
  """How a batch is computed; none of it changes what is computed, but for rounding.

  microbatches: pieces of a batch whose activations exist at once; "auto" (as model.remat="auto"): the fastest choice
    that fits the memory, by the compiler; a run prints and records it
  logit_chunk: most tokens of a row whose logits exist at once (0: all, which computes them once and not twice)
  lengths: of RL, for how many lengths of its rows scoring and update are compiled: the k-th is k / lengths of the
    longest, and a microbatch is computed at the one that holds its rows. More of them compute less padding and take
    longer to compile (1: all rows at the longest)
  share_prompts: of GRPO and RLOO, compute the prompt of a group once for all its rows, where it is no short one beside
    the responses and a microbatch has whole groups on each device; else, and if False, a row is computed with its own
  exact: of RL, on one CPU device: log-probabilities of the sampler are those of the trainer to the bit, so that the
    ratio of an iteration's first minibatch is 1 (models/exact.py). Slower; a run ends with an error if they differ
  """

  microbatches: int | Literal["auto"] = 1
  logit_chunk: int = 0
  lengths: int = 4
  share_prompts: bool = True
  exact: bool = False

  def __post_init__(self):
    if self.microbatches != AUTO and self.microbatches < 1:
      raise ValueError(f"microbatches is {self.microbatches}; it must be at least 1.")
    if self.logit_chunk < 0:
      raise ValueError(f"logit_chunk is {self.logit_chunk}; it must be 0 (all tokens) or positive.")
    if not 1 <= self.lengths <= MOST_LENGTHS:
      raise ValueError(f"lengths is {self.lengths}; it must be from 1 (all rows at the longest) to {MOST_LENGTHS}: "
                       "each is compiled.")


def model_section(settings: dict, name: str = "decoder") -> type:
  """The fields of our decoder or of the small model that reads pictures, what can be said of a pretrained one, or a
  family in the user's own file (a class derived from DecoderConfig)."""
  name = settings.get("name", name)
  if user_files.is_path(name):
    return user_files.family(name, DecoderConfig)
  known = {"decoder": DecoderConfig, "tiny_vlm": TinyVisionConfig, "idefics3": Idefics3Config, "mllama": MllamaConfig,
           pretrained.NAME: pretrained.PretrainedConfig}
  if name not in known:
    raise ValueError(f"name is {name!r}; known: {', '.join(known)}, or path/to/file.py:Class of your own.")
  return known[name]


def data_section(settings: dict, path: str = "") -> type:
  """Rows of one's own where a path says which, else demonstrations of the environment."""
  return RowsConfig if isinstance(settings, dict) and settings.get("path", path) else DemonstrationsConfig


def pairs_section(settings: dict, path: str = "") -> type:
  """Pairs of one's own where a path says which, else pairs of the start's responses to prompts of the environment."""
  return PairsConfig if isinstance(settings, dict) and settings.get("path", path) else SampledPairsConfig


SHARED = {
    "seed": 0, "steps": int, "batch": int, "flops": 0.0, "max_nonfinite": 10, "max_dropped": 100,
    "verdict_seconds": 120.0, "verdict_workers": 16, "start": "scratch", "env": env_section, "reward": "",
    "own_reward": OwnRewardConfig, "tokenizer": TokenizerConfig, "model": model_section, "lora": LoraConfig,
    "rollout": RolloutConfig, "evals": EvalsConfig, "optimizer": OptimizerConfig, "schedule": ScheduleConfig,
    "ema": EmaConfig, "compute": ComputeConfig, "mesh": MeshConfig, "checkpoint": CheckpointConfig, "log": LogConfig}
