"""Success of a policy on every named variant: one evaluator for SFT, RL and the verb `evaluate`."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import jax

from sftrl_jax.metrics import masked_mean
from sftrl_jax.objectives.logprobs import kl
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.episodes import Episode
from sftrl_jax.rollout.exchange import play_together
from sftrl_jax.rollout.tally import Tally, tally, wilson
from sftrl_jax.training.log import chat_json

_AT = (0.2, 0.4, 0.6, 0.8)


@dataclasses.dataclass(frozen=True)
class Evals:
  """What is measured along the way. Step 0 and the end always are.

  every: steps between evaluations (0: see at)
  at: shares of the run's steps or FLOPs after which it is evaluated, where every is 0
  variants: of the environment
  env: fields of the environment that differ from training's, for every variant
  episodes: episodes a variant and temperature
  seed: the first episode's seed; the others follow, the same in every run that is to be compared
  temperatures: 0 is greedy
  kl: measure KL(policy || start) on the episodes at temperature 1
  shown: greedy episodes a variant written to episodes.jsonl
  """

  every: int = 0
  at: tuple[float, ...] = _AT
  variants: tuple[str, ...] = ()
  env: dict = dataclasses.field(default_factory=dict)
  episodes: int = 512
  seed: int = 1_000_000_000
  temperatures: tuple[float, ...] = (0.0, 1.0)
  kl: bool = True
  shown: int = 16

  def __post_init__(self):
    if self.episodes < 1:
      raise ValueError(f"episodes is {self.episodes}; it must be at least 1.")
    for name in ("every", "seed", "shown"):
      if getattr(self, name) < 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")
    if not all(0 < share < 1 for share in self.at):
      raise ValueError(f"at is {self.at}; it needs shares of the run between 0 and 1; its end is always evaluated.")
    if self.every and tuple(self.at) not in ((), _AT):   # the default may stay: nobody asked for it
      raise ValueError(f"every is {self.every} and at is {self.at}, but only one of them says when: use "
                       "--config.evals.at='()' or --config.evals.every=0.")
    if not self.temperatures or not all(0 <= temperature <= 100 for temperature in self.temperatures):
      raise ValueError(f"temperatures is {self.temperatures}; it needs at least one, each from 0 (greedy) to 100.")


@functools.cache
def kl_rows(model):
  """jit: exact KL per sampled token, summed over a batch of rows."""

  def run(params, ref, inputs, mask_BT):
    hidden = lambda p: model.hidden(p, inputs.tokens_BT, inputs.positions_BT, inputs.segments_BT)
    kl_BT = kl(hidden(params), model.unembedding(params), hidden(ref), model.unembedding(ref), ids=model.ids)
    return masked_mean(kl_BT, mask_BT)

  return jax.jit(run)


def run(source: str, overrides: Sequence[tuple[str, str]], workdir: str) -> list[dict]:
  """`sftrl evaluate WORKDIR[@step]`: every variant of a checkpoint, with --config.evals... of your own.

  Prints a table, and writes evals.jsonl and episodes.jsonl into `workdir` (default: WORKDIR/evaluate/<step>).
  """
  from sftrl_jax.programs import recorded
  return recorded.evaluate_recorded(source, overrides, workdir)


def episodes_of(actor, decoding, env, seeds: Sequence[int], temperature: float, key,
                pause: Callable[[], None] = lambda: None) -> list[Episode]:
  """Plays the seeds, `rollout.rows` at a time. pause: called before every turn."""
  episodes, rows = [], actor.rollout.rows
  for first in range(0, len(seeds), rows):
    some = seeds[first : first + rows]
    numbers = range(first, first + len(some))
    episodes += play_together(env, actor, decoding, key, temperature, numbers, some, pause=pause)[0]
  return episodes


def evaluate(parts, params, start, position, log, pause: Callable[[], None] = lambda: None) -> list[dict]:
  """One line of evals.jsonl a variant and temperature, written and returned. params, start: trees of `model`.

  The random numbers of episode i are the same at every step and in every run: what differs is the policy.
  """
  evals = parts.settings["evals"]
  decoding = parts.actor.compiled[2](params)
  key, lines, began = jax.random.key(evals.seed), [], time.perf_counter()
  seeds = range(evals.seed, evals.seed + evals.episodes)
  todo = [(variant, temperature) for variant in evals.variants for temperature in evals.temperatures]
  for number, (variant, temperature) in enumerate(todo):
    log.progress("evaluate", position, f"evaluating {number + 1}/{len(todo)}")
    env = parts.env_variant(variant)
    episodes = episodes_of(parts.actor, decoding, env, seeds, temperature, key, lambda: (log.fed(), pause()))
    counts = tally(episodes, env.codes)
    line = _line(parts, position, variant, temperature, counts)
    if evals.kl and temperature == 1.0:
      line["kl"] = float(_mean_kl(parts, params, start, episodes))
    log.evaluation(line)
    lines.append(line)
    if temperature == 0.0:
      for episode in episodes[: evals.shown]:
        log.episode(episode_line(position.step, "eval", variant, temperature, episode))
  log.say(_summary(position, lines, time.perf_counter() - began))
  return lines


def _line(parts, position, variant: str, temperature: float, counts: Tally) -> dict:
  return {"step": position.step, "variant": variant, "temperature": float(temperature),
          "seed": parts.settings["evals"].seed, "attempts": parts.env.attempts, "episodes": counts.episodes,
          "successes": counts.successes, "success": counts.success, "ci95": wilson(counts.successes, counts.episodes),
          "flops": position.total_flops, "seconds": round(position.seconds, 3), "first_success": counts.first_success,
          "outcomes": counts.outcomes, "codes": counts.codes, "reward": counts.reward,
          "response_length": counts.response_tokens / max(1, counts.responses)}


def row_length(parts, closing: bool = False) -> int:
  """Columns that hold any episode: prompt, every response, an <eos> and a message between; the last only a target."""
  rollout, turns = parts.actor.rollout, parts.actor.turns
  said = 1 + rollout.feedback_tokens
  return rollout.prompt_tokens + turns * rollout.max_new_tokens + (turns - 1) * said - 1 + (said + 1) * closing


def _mean_kl(parts, params, start, episodes) -> float:
  """Nats a response token, from the start, over the policy's own episodes at temperature 1."""
  rows, total = parts.actor.rollout.rows, None
  for first in range(0, len(episodes), rows):
    some = episodes[first : first + rows]
    blank = [Episode(0, (), (), False)] * (rows - len(some))
    batch = collect.rows([*some, *blank], row_length(parts), [()] * rows)
    placed = meshes.place(parts.mesh, (batch.inputs, batch.mask_BT))
    mean = jax.device_get(kl_rows(parts.model)(params, start, *placed))
    total = mean if total is None else total + mean
  return total.total / max(total.weight, 1.0)


def episode_line(step: int, kind: str, variant: str, temperature: float, episode: Episode) -> dict:
  """One line of episodes.jsonl."""
  return {"step": step, "kind": kind, "variant": variant, "temperature": float(temperature), "seed": episode.seed,
          "chat": chat_json(episode.chat), "rewards": episode.rewards,
          "codes": [turn.verdict.code for turn in episode.turns], "success": episode.success}


def _summary(position, lines: list[dict], seconds: float) -> str:
  """One line a person reads at every evaluation."""
  told = " ".join(f"{line['variant']}/T{line['temperature']:g} {100 * line['success']:.1f}%" for line in lines)
  return f"step {position.step:>5}  {position.total_flops:.2e} FLOPs  {told}  ({seconds:.1f} s)"


__all__ = ["Evals", "episode_line", "episodes_of", "evaluate", "row_length"]
