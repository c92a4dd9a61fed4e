"""Success of a policy on every named variant: one evaluator for SFT, RL and the verb `evaluate`."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax

from sftrl_jax.envs.env import Env
from sftrl_jax.inputs import Inputs
from sftrl_jax.metrics import Mean, masked_mean
from sftrl_jax.models import Model
from sftrl_jax.objectives.logprobs import kl
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.loop import left_out
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.episodes import JUDGING, Episode, Judging, blank_episodes, by_row
from sftrl_jax.rollout.exchange import PlayContext, play_together
from sftrl_jax.rollout.policy import Actor
from sftrl_jax.rollout.tally import Tally, tally, wilson
from sftrl_jax.training.log import Log, chat_json
from sftrl_jax.training.position import Position


@functools.cache
def kl_rows(model: Model) -> Callable[[dict, dict, Inputs, jax.Array], Mean]:
  """jit of (params, ref, inputs, mask_BT) -> exact KL(params || ref) in nats per sampled token, summed over rows."""

  def sum_kl(params: dict, ref: dict, inputs: Inputs, mask_BT: jax.Array) -> Mean:
    hidden = lambda p: model.hidden(p, inputs)
    kl_BT = kl(hidden(params), model.unembedding(params), hidden(ref), model.unembedding(ref), readout=model.readout)
    return masked_mean(kl_BT, mask_BT)

  return jax.jit(sum_kl)


def episodes_of(actor: Actor, decoding: Any, env: Env, seeds: Sequence[int], temperature: float, key: jax.Array,
                pause: Callable[[], None] = lambda: None, judging: Judging = JUDGING) -> list[Episode]:
  """Plays the seeds, `rollout.rows` at a time. pause: called before every turn."""
  context = PlayContext(env, actor, decoding, key, temperature, before_turn=pause, judging=judging)
  episodes, rows = [], actor.rollout.rows
  for first in range(0, len(seeds), rows):
    some = seeds[first : first + rows]
    numbers = range(first, first + len(some))
    episodes += play_together(context, numbers, some)[0]
  return episodes


def evaluate(experiment: Experiment, params: dict, start: dict, position: Position, log: Log,
             pause: Callable[[], None] = lambda: None) -> list[dict]:
  """One line of evals.jsonl a variant and temperature, written and returned. params, start: trees of `model`.

  The random numbers of episode i are the same at every step and in every run: what differs is the policy. An episode
  that is spoiled stays among the `episodes` of its line and counts as not solved, so that runs pair by episode; the
  line then has `troubles`, {kind: episodes}. One without a reward alone is missing in `reward` alone.
  """
  evals = experiment.evals
  decoding = experiment.actor.compiled.to_decoding(params)
  key, lines, began = jax.random.key(evals.seed), [], time.perf_counter()
  seeds = range(evals.seed, evals.seed + evals.episodes)
  todo = [(variant, temperature) for variant in evals.variants for temperature in evals.temperatures]
  for number, (variant, temperature) in enumerate(todo):
    log.progress("evaluate", position, f"evaluating {number + 1}/{len(todo)}")
    env = experiment.env_variant(variant)
    episodes = episodes_of(experiment.actor, decoding, env, seeds, temperature, key,
                           lambda: (log.heartbeat(), pause()), left_out.judging(experiment, keep_unrewarded=True))
    troubles = left_out.count(experiment, {}, episodes, f"evaluating {variant} at temperature {temperature:g}", log)
    counts = tally(episodes, env.codes)
    line = _line(experiment, position, variant, temperature, counts) | ({"troubles": troubles} if troubles else {})
    if evals.kl and temperature == 1.0:
      line["kl"] = float(_mean_kl(experiment, params, start, episodes))
    log.evaluation(line)
    lines.append(line)
    if temperature == 0.0:
      for episode in [episode for episode in episodes if episode.chat][: evals.log_episodes]:
        log.episode(episode_line(position.step, "eval", variant, temperature, episode))
  log.say(_summary(position, lines, time.perf_counter() - began))
  return lines


def _line(experiment: Experiment, position: Position, variant: str, temperature: float, counts: Tally) -> dict:
  return {"step": position.step, "variant": variant, "temperature": float(temperature),
          "seed": experiment.evals.seed, "attempts": experiment.env.attempts, "episodes": counts.episodes,
          "successes": counts.successes, "success": counts.success, "ci95": wilson(counts.successes, counts.episodes),
          "flops": position.total_flops, "seconds": round(position.seconds, 3), "first_success": counts.first_success,
          "outcomes": counts.outcomes, "codes": counts.codes, "reward": counts.reward,
          "response_length": counts.response_tokens / max(1, counts.responses)}


def _mean_kl(experiment: Experiment, params: dict, start: dict, episodes: list[Episode]) -> float:
  """Nats a response token, from the start, over the policy's own episodes at temperature 1."""
  rows, total, episodes = experiment.actor.rollout.rows, None, by_row(episodes)
  for first in range(0, len(episodes), rows):
    some = episodes[first : first + rows]
    blank = blank_episodes(rows - len(some))
    batch = collect.rows([*some, *blank], experiment.actor.row_len(), [()] * rows)
    placed = shard_rows(experiment.mesh, (batch.inputs, batch.mask_BT))
    mean = jax.device_get(kl_rows(experiment.model)(params, start, *placed))
    total = mean if total is None else total + mean
  return total.total / max(total.weight, 1.0)


def episode_line(step: int, kind: str, variant: str, temperature: float, episode: Episode) -> dict:
  """One line of episodes.jsonl."""
  return {"step": step, "kind": kind, "variant": variant, "temperature": float(temperature), "seed": episode.seed,
          "chat": chat_json((*episode.earlier, *episode.chat)), "rewards": episode.rewards,
          "codes": [turn.verdict.code for turn in episode.turns], "success": episode.success}


def _summary(position: Position, lines: list[dict], seconds: float) -> str:
  """One line a person reads at every evaluation. `sftrl evaluate` knows the step and not the FLOPs."""
  flops = f"  {position.total_flops:.2e} FLOPs" if position.total_flops or not position.step else ""
  rates = " ".join(f"{line['variant']}/T{line['temperature']:g} {100 * line['success']:.1f}%" for line in lines)
  troubles = sum((Counter(line.get("troubles")) for line in lines), Counter())
  counted = ", ".join(f"{kind} {count}" for kind, count in troubles.items())
  note = f"  {counted} of {sum(line['episodes'] for line in lines)} episodes" if counted else ""
  return f"step {position.step:>5}{flops}  {rates}{note}  ({seconds:.1f} s)"
