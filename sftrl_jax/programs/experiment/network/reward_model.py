"""A learned reward: the model of a finished run of `sftrl preference` with config.objective=reward, and its scale.

The run leaves WORKDIR/reward_scale.json: mean and standard deviation of its raw scores of answers that it has learned
from, and the lowest and highest of them once they are scaled. A scaled score is (r - mean) / sd, so that coefficients
of a KL mean the same whatever the reward model is.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from sftrl_jax import paths
from sftrl_jax.checkpoints import store
from sftrl_jax.checkpoints.checksum import checksums, sha256
from sftrl_jax.data.rows import RECORDED
from sftrl_jax.models import DecoderConfig, Model, heads
from sftrl_jax.models.lora import LoraConfig
from sftrl_jax.parallel import rules
from sftrl_jax.programs.config.errors import ConfigError, recorded
from sftrl_jax.programs.experiment.network.parts import network_of_run
from sftrl_jax.programs.start import checkpoint_ref, initial_params
from sftrl_jax.text.tokenizer import Tokenizer

SCALE, NONE = "reward_scale.json", "none"
KEY = "config.reward_model.start"


@dataclasses.dataclass(frozen=True)
class RewardModelConfig:
  """Learning from a reward model's scores in the place of the environment's rewards, which stay measured beside.

  start: the workdir of a finished run of `sftrl preference` with objective=reward, or WORKDIR@STEP of its last step
    ("": the environment's own rewards). Its tokenizer and chat template are those of this run
  scale: the reward is (r - mean) / sd by WORKDIR/reward_scale.json, in standard deviations of the scores of its
    training answers; off is the raw score r
  missing_eos: the reward, in place of the score, of a response that max_new_tokens has cut before its end; "none"
    scores it as any other
  critic: ppo's value head begins as the score head, scaled alike; both then have the same width and hidden layers. It
    reads the policy's trunk, or with ppo.critic="own" one that begins as the reward model's, of the same kind of model
  flops: that the reward model has cost, charged with the first step; recorded: all of its run, its pairs included, as
    WORKDIR/reward_scale.json says
  """

  start: str = ""
  scale: bool = True
  missing_eos: float | Literal["none"] = NONE
  critic: bool = False
  flops: float | Literal["recorded"] = 0.0

  def __post_init__(self):
    if self.flops != RECORDED and not self.flops >= 0:
      raise ValueError(f"flops is {self.flops}; it must be 0 (it has cost nothing), positive, or {RECORDED!r}.")


@dataclasses.dataclass(frozen=True)
class RewardScale:
  """mean, sd: of raw scores. lowest, highest: of scaled ones, of the same answers."""

  mean: float
  sd: float
  lowest: float
  highest: float


@dataclasses.dataclass(frozen=True)
class RewardModel:
  """A reward model as its workdir describes it; its parameters are read by `load`.

  config: the section of the run that it scores
  home, step: its workdir, and the checkpoint there
  seed: of its run
  layers: widths of its score head's hidden layers
  lora: the adapters that its run has trained; None where it trained the model
  scale: None where it is missing, and config.scale is off
  flops: charged to the run that it scores
  """

  config: RewardModelConfig
  home: Path
  step: int
  seed: int
  model: Model
  layers: tuple[int, ...]
  lora: LoraConfig | None
  scale: RewardScale | None
  flops: float = 0.0

  @property
  def source(self) -> str:
    """WORKDIR@STEP, from the root."""
    return f"{paths.absolute(self.home)}@{self.step}"

  def abstract(self, mesh: Mesh) -> dict:
    """The shapes of {"model", "value"} with their shardings."""
    shapes = {"model": initial_params.param_shapes(self.model), **self._head_shapes()}
    return initial_params.abstract_with(shapes, rules.shardings(shapes, mesh))

  def load(self, mesh: Mesh) -> tuple[dict, str]:
    """({"model", "value"} on the mesh, a checksum of what is stored). ConfigError where the base of adapters is gone.

    Adapters are merged into their base.
    """
    head = self._head(mesh)
    if self.lora:
      params, _, fingerprint = initial_params.load_with_adapters(self.home, self.step, self.model, mesh, self.lora)
    else:
      params = store.restore_params(self.home, self.step, self.abstract(mesh)["model"])[0]
      fingerprint = sha256(checksums(params))
    return {"model": params, "value": head}, sha256([fingerprint, checksums(head)])

  def value_head(self, mesh: Mesh) -> dict:
    """The score head with the scale in it: its values are scaled scores."""
    head, scale = self._head(mesh), self.scale
    if scale is None or not self.config.scale:
      return head
    return {**head, "kernel": head["kernel"] / scale.sd, "bias": (head["bias"] - scale.mean) / scale.sd}

  def _head_shapes(self) -> dict:
    return {"value": jax.eval_shape(lambda: heads.init(self.model.config.width, self.layers))}

  def _head(self, mesh: Mesh) -> dict:
    shapes = self._head_shapes()
    abstract = initial_params.abstract_with(shapes, rules.shardings(shapes, mesh))
    return store.restore_params(self.home, self.step, abstract["value"], root="value")[0]


def describe(config: RewardModelConfig, tokenizer: Tokenizer, policy: dict, mesh: Mesh) -> RewardModel | None:
  """The reward model that the section names, None without one. Nothing is loaded.

  tokenizer: of the policy; policy: its section `tokenizer`
  ConfigError for what is no finished run of a reward model, for another tokenizer, and for a scale that is missing.
  """
  if not config.start and config.flops:
    raise ConfigError(f"config.reward_model.flops is {config.flops!r}, but config.reward_model.start names no reward "
                      "model: give --config.reward_model.start=WORKDIR, a finished run of a reward model.")
  if not config.start:
    return None
  about = f"{KEY} is {config.start!r}"
  home = checkpoint_ref.home_of(config.start)
  if not checkpoint_ref.is_workdir(home):
    raise ConfigError(f"{about}, which is no workdir of a run: train a reward model with `sftrl preference "
                      "--config.objective=reward`, and give its --workdir.")
  ref, plain = checkpoint_ref.parse(config.start, about), recorded(home)
  step = ref.step
  if ref.ema:
    raise ConfigError(f"{about}, but the score head and the scale of a reward model are those of its parameters and "
                      "not of their average: leave :ema out.")
  if plain.get("verb") != "preference" or plain.get("objective") != "reward":
    kind = f"of objective {plain['objective']!r}" if plain.get("objective") else f"of `sftrl {plain.get('verb')}`"
    raise ConfigError(f"{about}, a run {kind}, which has no score head: give one of `sftrl preference "
                      "--config.objective=reward`.")
  last = checkpoint_ref.steps_of(home, about)[-1]
  _refuse_unfinished(about, home, last)
  if step is not None and step != last and config.scale:
    raise ConfigError(f"{about}, but {SCALE} there is of its last step {last}: use --{KEY}={home}@{last}, or raw "
                      "scores with --config.reward_model.scale=False.")
  model, theirs = network_of_run(about, plain, home, mesh)
  given = plain["tokenizer"].get("template_args", {})
  if theirs != tokenizer or given != policy.get("template_args", {}):
    raise ConfigError(f"{about}, whose tokenizer ({_named(theirs)}, template_args {given}) is not that of this run "
                      f"({_named(tokenizer)}, template_args {policy.get('template_args', {})}): it reads the ids that "
                      "the policy samples, so give both runs the same tokenizer and chat template.")
  scale = _scale(about, home) if config.scale or (home / SCALE).is_file() else None
  return RewardModel(config, home, last if step is None else step, plain["seed"], model,
                     tuple(plain["bradley_terry"]["layers"]), initial_params.adapters_of(home), scale,
                     _charged(about, config, home))


def _charged(about: str, config: RewardModelConfig, home: Path) -> float:
  """config.reward_model.flops as a number. ConfigError where nothing is recorded."""
  if config.flops != RECORDED:
    return config.flops
  try:
    flops = json.loads((home / SCALE).read_text())["flops"]
    if isinstance(flops, bool) or not isinstance(flops, (int, float)) or not 0 <= flops < math.inf:
      raise ValueError(f"flops is {flops!r}")
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ConfigError(f"{about} and config.reward_model.flops is {RECORDED!r}, but {home / SCALE} does not say what it "
                      f"has cost ({error}): give the FLOPs as a number, or 0.") from error
  return float(flops)


def refuse_critic(critic: bool, reward: RewardModel | None, policy: DecoderConfig,
                  layers: tuple[int, ...] | None, own: bool = False) -> None:
  """ValueError where `critic`, config.reward_model.critic, cannot be done. layers: of the policy's value head, None
  without one; own: whether that has a trunk of its own."""
  if not critic:
    return
  about = "config.reward_model.critic is True, but"
  if reward is None:
    raise ValueError(f"{about} config.reward_model.start names no reward model: give one, or leave critic at False.")
  if layers is None:
    raise ValueError(f"{about} this algorithm has no value head: use --config.algorithm=ppo, or leave it at False.")
  theirs, ours = (reward.model.config.width, reward.layers), (policy.width, tuple(layers))
  if theirs != ours:
    raise ValueError(f"{about} the score head has (width, layers) {theirs} and ppo's value head {ours}: use "
                     f"--config.ppo.value_layers=\"{reward.layers}\" on a trunk of the same width, or leave it at "
                     "False.")
  if own and _computed(reward.model.config) != _computed(policy):
    raise ValueError(f"{about} ppo.critic is 'own', and the reward model is another kind of model than the policy: its "
                     "trunk cannot be the critic's. Use models whose config.model is the same, "
                     "--config.ppo.critic=shared, or leave reward_model.critic at False.")


def _computed(config: DecoderConfig) -> DecoderConfig:
  """The config without what only says how the same is computed."""
  return dataclasses.replace(config, **{name: getattr(DecoderConfig, name) for name in (
      "attention", "flatten", "remat", "unroll")})


def _refuse_unfinished(about: str, home: Path, last: int) -> None:
  try:
    progress = json.loads((home / "progress.json").read_text())
    done = progress.get("phase") == "complete" and progress.get("step") == last
  except (OSError, ValueError, AttributeError):
    done = False
  if not done:
    raise ConfigError(f"{about}, but its run is not finished (progress.json): finish it with the command that began "
                      "it.")


def _scale(about: str, home: Path) -> RewardScale:
  """What is in reward_scale.json. ConfigError where it is missing or damaged."""
  path = home / SCALE
  try:
    record = json.loads(path.read_text())
    numbers = {field.name: float(record[field.name]) for field in dataclasses.fields(RewardScale)}
  except OSError as error:
    raise ConfigError(f"{about}, but {path} is missing, which a run of a reward model writes at its end: run its "
                      "command again, or use raw scores with --config.reward_model.scale=False.") from error
  except (ValueError, KeyError, TypeError) as error:
    raise ConfigError(f"{about}, but {path} is damaged ({error}): restore it, or delete it and run the command of that "
                      "run again.") from error
  scale = RewardScale(**numbers)
  if not all(map(math.isfinite, numbers.values())) or scale.sd <= 0 or scale.lowest > scale.highest:
    raise ConfigError(f"{about}, but {path} holds {numbers}: sd must be above 0, lowest at most highest, and all of "
                      "them finite. A reward model whose scores are all alike has learned nothing.")
  return scale


def _named(tokenizer: Any) -> str:
  return f"{tokenizer.kind} of {tokenizer.size} ids"
