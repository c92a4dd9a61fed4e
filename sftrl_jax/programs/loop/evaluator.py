"""Success of a policy on every named variant: one evaluator for SFT, RL and the verb `evaluate`."""

import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax

from sftrl_jax import trees
from sftrl_jax.envs.env import Counting, Env, counting_of, verifies
from sftrl_jax.inputs import Inputs
from sftrl_jax.metrics import Mean, masked_mean, merge
from sftrl_jax.models import Model, flops
from sftrl_jax.objectives.logprobs import kl_and_entropy
from sftrl_jax.parallel.mesh import rows as mesh_rows, shard_rows
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.loop import expert_accuracy, left_out
from sftrl_jax.programs.start.initial_params import param_shapes
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.actor import Actor
from sftrl_jax.rollout.episodes import JUDGING, Episode, Judging, blank_episodes, by_row
from sftrl_jax.rollout.exchange import PlayContext, begun_together, play_together
from sftrl_jax.rollout.scoring import Scorer
from sftrl_jax.rollout.segments import compile_all
from sftrl_jax.rollout.tally import Tally, distinct, pass_at, tally, wilson
from sftrl_jax.training.log import Log, chat_json
from sftrl_jax.training.position import Position
from sftrl_jax.training.updates.ema import of_weights


@functools.cache
def kl_rows(model: Model, chunk: int) -> Callable[[dict, dict, Inputs, jax.Array], dict[str, Mean]]:
  """jit of (params, ref, inputs, mask_BT) -> exact KL(params || ref) and entropy of params, {"kl", "entropy"}, in nats
  per sampled token, summed over rows. chunk: tokens of a row whose logits exist at once (0: all)"""

  def sum_kl(params: dict, ref: dict, inputs: Inputs, mask_BT: jax.Array) -> dict[str, Mean]:
    hidden = lambda p: model.hidden(p, inputs)
    kl_BT, entropy_BT = kl_and_entropy(hidden(params), model.unembedding(params), hidden(ref), model.unembedding(ref),
                                       chunk=chunk, readout=model.readout)
    return {"kl": masked_mean(kl_BT, mask_BT), "entropy": masked_mean(entropy_BT, mask_BT)}

  return jax.jit(sum_kl)


def actors(experiment: Experiment) -> list[Actor]:
  """The Actors that play variants and probes: that of the run, and one with longer prompts where probes need it."""
  longer = experiment.evals.probes and experiment.probe_actor is not experiment.actor
  return [experiment.actor, *([experiment.probe_actor] if longer else [])]


def kl_batch(experiment: Experiment, actor: Actor) -> int:
  """Rows of one call of `kl_rows`. They have no more tokens than a microbatch of a train step, so that an evaluation
  needs no more memory, but one row for every shard of the mesh."""
  section = experiment.algorithm_config
  pieces = experiment.compute.microbatches * (1 if section is None else section.minibatches)
  tokens = experiment.batch * (experiment.data.length if section is None else actor.episode_rows * actor.row_len())
  shards = mesh_rows(experiment.mesh)
  up, down = (lambda rows: -(-rows // shards) * shards), (lambda rows: rows // shards * shards)
  return min(actor.rollout.rows, up(_kl_episodes(experiment) * actor.episode_rows),
             max(shards, down(tokens // pieces // actor.row_len())))


def _kl_episodes(experiment: Experiment) -> int:
  """Episodes, the first of a variant, on which KL is measured."""
  evals = experiment.evals
  return min(evals.kl_episodes or evals.episodes, evals.episodes)


def episodes_of(actor: Actor, decoding: Any, env: Env, seeds: Sequence[int], temperature: float, key: jax.Array,
                pause: Callable[[], None] = lambda: None, judging: Judging = JUDGING) -> list[Episode]:
  """Plays the seeds, `rollout.rows` at a time or, with refill, all. pause: called before every turn, or refill."""
  context = PlayContext(env, actor, decoding, key, temperature, before_turn=pause, judging=judging)
  return [episode for numbers in begun_together(actor, len(seeds))
          for episode in play_together(context, numbers, seeds[numbers.start : numbers.stop])[0]]


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
  """What is evaluated. params, start: trees of `model`; KLs are from the start, which is {} where none is measured.
  kind: of the params, "" or EMA, see `of_weights`"""

  params: dict
  start: dict
  kind: str = ""


def evaluate(experiment: Experiment, weights: Weights, position: Position, log: Log,
             pause: Callable[[], None] = lambda: None, updates: int = 0, scorer: Scorer | None = None) -> list[dict]:
  """One line of evals.jsonl a variant and temperature, written and returned.

  The random numbers of episode i are the same at every step and in every run: what differs is the policy. An episode
  that is spoiled stays among the `episodes` of its line and counts as not solved, so that runs pair by episode; the
  line then has `troubles`, {kind: episodes}. One without a reward alone is missing in `reward` alone. Where a seed is
  played several times (evals.samples), every rate is of the first time, whose random numbers are those of one.
  updates: of the optimizer so far
  scorer: whose rewards a run learns from; `proxy` is then their mean, and `reward` stays the environment's own
  """
  evals, actor = experiment.evals, experiment.actor
  decoding = actor.compiled.to_decoding(weights.params)
  key, lines, began = jax.random.key(evals.seed), [], time.perf_counter()
  seeds = range(evals.seed, evals.seed + evals.episodes)
  todo = [(variant, temperature) for variant in (*evals.variants, *evals.probes) for temperature in evals.temperatures]

  def play(actor: Actor, env: Env, seeds: Sequence[int], temperature: float = 0.0) -> list[Episode]:
    return episodes_of(actor, decoding, env, seeds, temperature, key, lambda: (log.heartbeat(), pause()),
                       left_out.judging(experiment, keep_unrewarded=True))

  for number, (variant, temperature) in enumerate(todo):
    log.progress("evaluate", position, f"evaluating {number + 1}/{len(todo)}")
    env, when = experiment.env_variant(variant), f"evaluating {variant} at temperature {temperature:g}"
    count = evals.samples if temperature else 1
    player = experiment.probe_actor if variant in evals.probes else actor
    played = play(player, env, [*seeds] * count, temperature)
    samples = [played[first : first + len(seeds)] for first in range(0, len(played), len(seeds))]
    troubles, *_ = [left_out.count(experiment, {}, episodes, when, log) for episodes in samples]
    counting, episodes = counting_of(env), samples[0]
    counts = tally(episodes, env.codes, counting)
    line = _line(experiment, position, of_weights(variant, weights.kind), temperature, counting, counts)
    line |= _responses(counts)
    if counts.episode_parts and counting.attempts_of == "point":   # else the first response is what is reported
      line["episode_parts"] = counts.episode_parts
    line |= {"attempts_of": counting.attempts_of, "updates": updates, "paper_flops": flops.by_paper(
        _parameter_count(experiment.model), position.read_tokens, position.buffer_tokens)}
    line |= {"probe": True} if variant in evals.probes else {}
    line |= {"troubles": troubles} if troubles else {}
    line |= {} if verifies(env) else {"verifies": False}   # no success is stated, so none of 0 is meant
    line |= _proxy(scorer, episodes) if scorer else {}
    rewards = [episode.rewards for episode in episodes if episode.turns]
    if rewards and all(None in each for each in rewards):
      line.pop("reward")   # the environment gave none
    if count > 1:
      line |= {"pass_at": pass_at(samples), "distinct": distinct(samples)}
    if evals.kl and temperature == 1.0:
      line |= _mean_kl(experiment, player, weights, episodes)
    if evals.expert_episodes and temperature == 0.0 and variant in evals.variants:
      accuracy, states = expert_accuracy.measure(experiment, variant, play)
      left_out.count(experiment, {}, states, f"{when} from the expert's states", log)
      line |= accuracy
    log.evaluation(line)
    lines.append(line)
    if temperature == 0.0:
      for episode in [episode for episode in episodes if episode.chat][: evals.log_episodes]:
        log.episode(episode_line(position.step, "eval", line["variant"], temperature, episode))
        log.pictures((*episode.earlier, *episode.chat))
  log.say(_summary(position, lines, time.perf_counter() - began))
  return lines


def compile_rollouts(experiment: Experiment, params: dict, after_each: Callable[[], None] = lambda: None) -> None:
  """Compiles every shape in which a run decodes, so that nothing compiles later. params: a tree of `model`."""
  decoding = experiment.actor.compiled.to_decoding(params)
  for actor in (*actors(experiment), *expert_accuracy.actors(experiment)):
    compile_all(actor, decoding, after_each)


@functools.cache
def _parameter_count(model: Model) -> int:
  return trees.size(param_shapes(model))


def _line(experiment: Experiment, position: Position, variant: str, temperature: float, counting: Counting,
          counts: Tally) -> dict:
  return {"step": position.step, "variant": variant, "temperature": float(temperature),
          "seed": experiment.evals.seed, "attempts": counting.attempts, "episodes": counts.episodes,
          "successes": counts.successes, "success": counts.success, "ci95": wilson(counts.successes, counts.episodes),
          "flops": position.total_flops, "seconds": round(position.seconds, 3), "first_success": counts.first_success,
          "outcomes": counts.outcomes, "codes": counts.codes, "reward": counts.reward,
          "response_length": counts.response_tokens / max(1, counts.responses)}


def _responses(counts: Tally) -> dict:
  """What a line says of responses and points, beside what it says of episodes."""
  return {"responses": counts.responses, "right": counts.right, "per_step": counts.per_step,
          "points": counts.points, "first_right": counts.first_right, "legal": counts.legal,
          "all_codes": counts.all_codes, "episode_right": list(counts.episode_right),
          "episode_responses": list(counts.episode_responses),
          **({"first_parts": counts.first_parts, "all_parts": counts.all_parts} if counts.all_parts else {})}


def _proxy(scorer: Scorer, episodes: list[Episode]) -> dict[str, float]:
  """{"proxy": the mean over episodes of the sum of the scorer's rewards}, and of `proxy_episodes`, those that have one;
  what the environment gave is kept beside."""
  scored = scorer(episodes)
  sums = [sum(rewards) for rewards in scored.rewards if rewards and None not in rewards]
  return {"proxy": sum(sums) / len(sums), "proxy_episodes": len(sums)} if sums else {"proxy_episodes": 0}


def _mean_kl(experiment: Experiment, actor: Actor, weights: Weights, episodes: list[Episode]) -> dict[str, float]:
  """{"kl": from the start, "entropy"} in nats a response token, over the first of the policy's own episodes at
  temperature 1, and {"kl_episodes"}: how many these are."""
  count = _kl_episodes(experiment)
  rows, total, parts = kl_batch(experiment, actor), None, by_row(episodes[:count])
  measure = kl_rows(experiment.model, experiment.compute.logit_chunk)
  for first in range(0, len(parts), rows):
    some = parts[first : first + rows]
    blank = blank_episodes(rows - len(some))
    batch = collect.rows([*some, *blank], actor.row_len(), [()] * rows, reader=experiment.tokenizer.reader)
    placed = shard_rows(experiment.mesh, (batch.inputs, batch.mask_BT))
    means = jax.device_get(measure(weights.params, weights.start, *placed))
    total = means if total is None else merge(total, means)
  return {"kl_episodes": count, **{name: float(mean.total / max(mean.weight, 1.0)) for name, mean in total.items()}}


def episode_line(step: int, kind: str, variant: str, temperature: float, episode: Episode) -> dict:
  """One line of episodes.jsonl."""
  gold = [turn.gold for turn in episode.turns]
  return {"step": step, "kind": kind, "variant": variant, "temperature": float(temperature), "seed": episode.seed,
          "chat": chat_json((*episode.earlier, *episode.chat)), "rewards": episode.rewards,
          "codes": [turn.verdict.code for turn in episode.turns], "success": episode.success,
          **({"gold": gold} if any(reward is not None for reward in gold) else {})}


def _summary(position: Position, lines: list[dict], seconds: float) -> str:
  """One line a person reads at every evaluation. `sftrl evaluate` knows the step and not the FLOPs."""
  flops = f"  {position.total_flops:.2e} FLOPs" if position.total_flops or not position.step else ""
  rates = " ".join(f"{line['variant']}/T{line['temperature']:g} {_rate(line)}" for line in lines)
  troubles = sum((Counter(line.get("troubles")) for line in lines), Counter())
  counted = ", ".join(f"{kind} {count}" for kind, count in troubles.items())
  note = f"  {counted} of {sum(line['episodes'] for line in lines)} episodes" if counted else ""
  return f"step {position.step:>5}{flops}  {rates}{note}  ({seconds:.1f} s)"


def _rate(line: dict) -> str:
  """Success, and the rate of right responses where an episode has many; the score where nobody says what is right."""
  if not line.get("verifies", True):
    return f"score {score_text(line)}"
  if line["attempts_of"] == "point":
    rates = [f"{name} {right / count:.1%}" for name, (right, count) in line.get("all_parts", {}).items()]
    rates = ", ".join([f"per step {line['per_step']:.1%}", *rates])
    return f"{100 * line['success']:.1f}% ({rates})"
  parts = [f"{name} {right.count('1') / max(1, len(right)):.1%}" for name, right in line.get("first_parts", {}).items()]
  return f"{100 * line['success']:.1f}%{' (first ' + ', '.join(parts) + ')' if parts else ''}"


def score_text(line: dict) -> str:
  """The mean reward of a line: the scorer's, else the environment's with its reward function; a dash without one."""
  score = line.get("proxy", line.get("reward"))
  return "–" if score is None else f"{score:.3g}"
