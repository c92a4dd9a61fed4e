"""The peer of `sftrl bench --against=trl` in RL: iterations of TRL's GRPOTrainer, as its own loop runs them.

It is set up as its users would: transformers' generate, its default AdamW. Prompts are our ids as text, of a tokenizer
with a word for each id, so that both sides read the same ids and end at the same ones.
"""

import collections
import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sftrl_jax.objectives.grpo import GRPOConfig
from sftrl_jax.programs.bench import hf_peer
from sftrl_jax.programs.bench.paired_timing import Work
from sftrl_jax.programs.bench.trl import stepping
from sftrl_jax.programs.bench.trl.stepping import RATE, id_tokenizer, word
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.loop.rollout_batch import env_seed
from sftrl_jax.rollout.fitting import prompt_ids

PARTS = ("rollout", "verify", "score", "update")
LOSSES = {"token": "dapo", "sequence": "grpo", "constant": "dr_grpo"}   # by grpo.mean
# Methods of the trainer, and what their seconds are.
TIMED = {"_generate": "rollout", "_calculate_rewards": "verify", "_generate_and_score_completions": "before"}


@dataclasses.dataclass(frozen=True)
class Iteration:
  """One iteration as it was measured.

  parts: seconds of each of PARTS; tokens: of its responses; flops: {part or "iteration": computed}, of ours
  """

  parts: dict[str, float]
  tokens: int
  flops: dict[str, float] = dataclasses.field(default_factory=dict)

  def seconds(self, part: str) -> float:
    """Of a part, or of the whole "iteration"."""
    return sum(self.parts.values()) if part == "iteration" else self.parts[part]


def refuse(experiment: Experiment) -> None:
  """ConfigError for what the peer does not do, before anything is compiled."""
  section, optimizer, name = experiment.algorithm_config, experiment.optimizer, experiment.config.get("algorithm")
  if name != "grpo":
    raise ConfigError(f"--against=trl compares GRPO, but config.algorithm is {name!r}: use a config of GRPO, or time "
                      "this one without --against.")
  rules = (
      ("env.attempts", experiment.actor.turns, experiment.actor.turns == 1, "1", "TRL plays one turn here"),
      ("grpo.ratio", section.ratio, section.ratio == "token", "token", "ratios of tokens are compared"),
      ("grpo.surrogate", section.surrogate, section.surrogate == "clip", "clip", "the clipped surrogate is compared"),
      ("grpo.epochs", section.epochs, section.epochs == 1, "1", "one update an iteration is compared"),
      ("grpo.minibatches", section.minibatches, section.minibatches == 1, "1", "one update an iteration is compared"),
      ("grpo.max_rounds", section.max_rounds, section.max_rounds == 1, "1", "TRL plays one round"),
      ("grpo.kl", section.kl, not section.kl_coef or section.kl == "loss", "loss", "TRL adds the KL to the loss"),
      ("grpo.entropy_coef", section.entropy_coef, not section.entropy_coef, "0", "the loss is compared without it"),
      ("grpo.overlong_buffer", section.overlong_buffer, not section.overlong_buffer, "0", "TRL has no such penalty"),
      ("grpo.target_kl", section.target_kl, not section.target_kl, "0", "TRL has no such limit"),
      ("lora.rank", experiment.lora.rank, not experiment.lora.rank, "0", "whole models are compared"),
      ("optimizer.name", optimizer.name, optimizer.name == "adamw", "adamw", "AdamW is compared"))
  stepping.refuse_unlike(rules)


@contextlib.contextmanager
def iterations(experiment: Experiment, start: dict, threads: int, count: int, record: list[Iteration]
               ) -> Iterator[Work]:
  """Work that is one iteration of the trainer, at most `count` times.

  start: parameters of `model`, stacked; threads: of torch; record: gets what is measured of each iteration
  """
  clock = collections.Counter()

  def ended(whole: float) -> None:
    parts = {"rollout": clock["rollout"], "verify": clock["verify"],
             "score": clock["before"] - clock["rollout"] - clock["verify"], "update": whole - clock["before"]}
    record.append(Iteration(parts, clock["tokens"]))

  with tempfile.TemporaryDirectory() as folder:
    with stepping.quiet():
      trainer = _trainer(experiment, start, Path(folder), count, clock)
    for name, part in TIMED.items():
      setattr(trainer, name, _timed(getattr(trainer, name), part, clock))
    with stepping.steps(trainer, threads, clock.clear, ended) as work:
      yield work


def _timed(method: Callable, part: str, clock: collections.Counter) -> Callable:
  """The method, whose seconds are added to the clock."""

  def timed(*arguments: Any, **more: Any) -> Any:
    began = time.perf_counter()
    try:
      return method(*arguments, **more)
    finally:
      clock[part] += time.perf_counter() - began

  return timed


def _trainer(experiment: Experiment, start: dict, folder: Path, count: int, clock: collections.Counter) -> Any:
  """The trainer, on our weights and prompts. folder: empty, and there until the trainer is; clock: counts tokens."""
  import datasets
  import transformers
  import trl
  config, pieces = experiment.model.config, experiment.compute.microbatches
  model = hf_peer.load_model(folder / "model", config, start, "float32")
  model.generation_config.eos_token_id = list(experiment.actor.tokenizer.stops)
  section: GRPOConfig = experiment.algorithm_config
  arguments = trl.GRPOConfig(
      output_dir=str(folder / "trl"), report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
      use_cpu=model.device.type == "cpu", bf16=config.dtype == "bfloat16", dataloader_pin_memory=False,
      gradient_checkpointing=hf_peer.recomputes(config), max_steps=count, shuffle_dataset=False,
      per_device_train_batch_size=experiment.batch // pieces, gradient_accumulation_steps=pieces,
      num_generations=section.group, max_completion_length=experiment.actor.rollout.max_new_tokens,
      temperature=experiment.actor.rollout.temperature, beta=section.kl_coef, num_iterations=1, epsilon=section.clip,
      epsilon_high=section.clip_high or None, delta=section.dual_clip or None, loss_type=LOSSES[section.mean],
      scale_rewards="group" if section.scale else "none", mask_truncated_completions=section.truncated == "mask",
      learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=experiment.optimizer.clip,
      weight_decay=experiment.optimizer.weight_decay)
  trainer = trl.GRPOTrainer(model=model, args=arguments, reward_funcs=_reward(experiment, clock),
                            train_dataset=datasets.Dataset.from_list(prompts(experiment, count)),
                            processing_class=id_tokenizer(config.vocab, experiment.actor.tokenizer))
  trainer.remove_callback(transformers.PrinterCallback)   # of the metrics of the whole run
  return trainer


def prompts(experiment: Experiment, count: int) -> list[dict]:
  """{"prompt": ids as text, "seed": of the environment} of every group that `count` iterations play, in our order."""
  group, rows = experiment.actor.group, []
  for number in range(0, count * experiment.batch, group):
    seed = env_seed(experiment, number)
    _, chat = experiment.env.reset(seed)
    if any(message.image is not None for message in chat):
      raise ConfigError("--against=trl compares text, but the environment shows images: use a variant of text.")
    ids, trouble = prompt_ids(experiment.actor.tokenizer, chat, experiment.actor.rollout.prompt_tokens)
    if trouble:
      raise ConfigError(f"--against=trl plays all episodes: {trouble.message}")
    rows.append({"prompt": " ".join(map(word, ids)), "seed": seed})
  return rows


def _reward(experiment: Experiment, clock: collections.Counter) -> Callable[..., list[float]]:
  """The reward of the environment, as TRL calls it. Ids that our tokenizer lacks, which TRL may sample, say nothing."""
  tokenizer = experiment.actor.tokenizer

  def reward(completion_ids: list[list[int]], seed: list[str], **more: Any) -> list[float]:
    rewards = []
    for ids, episode_seed in zip(completion_ids, seed, strict=True):
      clock["tokens"] += len(ids)
      stopped = bool(ids) and ids[-1] in tokenizer.stops
      text = tokenizer.decode([number for number in (ids[:-1] if stopped else ids) if number < tokenizer.size])
      state, _ = experiment.env.reset(episode_seed)
      _, verdict = experiment.env.step(state, text)
      rewards.append(float(verdict.reward))
    return rewards

  return reward
