"""Pairs from an environment: two responses of the start to one prompt, ordered by the environment's rewards.

They are sampled before the first step, once, and written: WORKDIR/pairs.jsonl, in TRL's columns; WORKDIR/heldout/, a
file for each variant of which accuracy is measured; and last WORKDIR/pairs.json, the counts and FLOPs. From then on
the run is one on these files. Other runs take them by data.path and data.heldout, and are charged what they cost by
data.flops=recorded.

The prompts are those of RL with this seed, in their order, and a response's random numbers follow from its number. So
equal seeds give equal pairs, however many are decoded together, and a sampling that was interrupted begins again.
"""

import collections
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from sftrl_jax import paths
from sftrl_jax.data.lines import BadRow, Raw
from sftrl_jax.data.pairs.rows import PAIR_A_ROW, PairsConfig
from sftrl_jax.data.pairs.sampled import Judged, SampledPairsConfig, is_tie, preferred, row_of
from sftrl_jax.data.rows import RECORDED
from sftrl_jax.envs.env import Env
from sftrl_jax.envs.expert_states import OneResponse
from sftrl_jax.programs.config.errors import ConfigError, read_json
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.workdir import workdir_of
from sftrl_jax.programs.loop import left_out
from sftrl_jax.programs.runtime.shutdown import Stop
from sftrl_jax.programs.start import initial_params
from sftrl_jax.rollout.actor import Actor, Cost
from sftrl_jax.rollout.episodes import Episode
from sftrl_jax.rollout.exchange import PlayContext, begun_together, play_together
from sftrl_jax.rollout.segments import compile_all
from sftrl_jax.training.log import Log, write_json
from sftrl_jax.training.position import Position

FILE, HELDOUT, SUMMARY = "pairs.jsonl", "heldout", "pairs.json"


def with_pairs(experiment: Experiment, workdir: Path) -> Experiment:
  """The run on files of pairs, which are sampled first where config.data says so, and with data.flops as a number."""
  if not isinstance(experiment.data, SampledPairsConfig):
    return charged(experiment)
  data, summary = experiment.data, workdir / SUMMARY
  if not paths.is_here(workdir):
    raise ConfigError(f"config.data.path is '', but --workdir={workdir} is no directory of this machine, from which "
                      "pairs are read: sample them in a run that writes here, and give its pairs.jsonl as "
                      "config.data.path.")
  if not summary.is_file():
    initial_params.check_start(experiment.start, experiment.model, experiment.lora)
    with workdir_of(dataclasses.replace(experiment, notes=()), workdir) as (log, stop):
      _sample(experiment, data, workdir, log, stop)
  same = {field.name: getattr(data, field.name) for field in dataclasses.fields(PairsConfig)
          if hasattr(data, field.name) and field.name != "path"}
  heldout = str(workdir / HELDOUT) if data.variants else ""
  files = PairsConfig(**{**same, "path": str(workdir / FILE), "heldout": heldout, "flops": RECORDED})
  return charged(dataclasses.replace(experiment, data=files))


def charged(experiment: Experiment) -> Experiment:
  """The run with data.flops as a number. ConfigError where nothing records it, or where it is all that may be spent."""
  data = experiment.data
  flops = getattr(data, "flops", 0.0)
  if flops == RECORDED:
    path = Path(data.path)
    beside = (path if path.is_dir() else path.parent) / SUMMARY
    if not beside.is_file():
      raise ConfigError(f"config.data.flops is {RECORDED!r}, but there is no {beside}, which a run that samples pairs "
                        "writes: give the FLOPs as a number, or 0.")
    record = read_json(beside, "restore it, or give config.data.flops as a number")
    flops = record.get("flops") if isinstance(record, dict) else None
    if isinstance(flops, bool) or not isinstance(flops, (int, float)) or not 0 <= flops < float("inf"):
      raise ConfigError(f"{beside} says that its pairs cost {flops!r} FLOPs, which is no number of at least 0: restore "
                        "it, or give config.data.flops as a number.")
    experiment = dataclasses.replace(experiment, data=dataclasses.replace(data, flops=float(flops)))
  if flops and experiment.limits.flops and flops >= experiment.limits.flops:
    raise ConfigError(f"config.flops is {experiment.limits.flops:g}, but the data have cost {flops:g} (config.data."
                      "flops), which is charged to the run: nothing is left to train with. Use more.")
  return experiment


def sampling_actor(experiment: Experiment) -> Actor:
  """The policy that gives both responses to a prompt: conversations of one turn, in groups of two."""
  actor = experiment.actor
  rollout = dataclasses.replace(actor.rollout, prompt_tokens=experiment.data.prompt_tokens or
                                actor.rollout.prompt_tokens)
  return dataclasses.replace(actor, rollout=rollout, turns=1, group=2, rewriting=None, ungrouped=False)


@dataclasses.dataclass
class Sample:
  """Pairs so far, as rows, and what became of all prompts: usable, ties, alike, unfinished, unreadable, left_out,
  reread (the text of a side has other ids than were sampled)."""

  rows: list[dict]
  counts: collections.Counter
  costs: list[Cost]
  reason: str = ""   # of the first unreadable pair

  def summary(self) -> dict[str, Any]:
    """What pairs.json holds of it."""
    count = max(1, len(self.rows))
    return {"pairs": len(self.rows), "prompts": self.counts["prompts"],
            **{name: self.counts[name] for name in COUNTS}, "turned": sum(row["turned"] for row in self.rows),
            "chosen_correct": sum(row["correct_chosen"] for row in self.rows) / count,
            "flops": sum((cost.flops for cost in self.costs), 0.0)}


COUNTS = {"ties": "responses of equal reward", "alike": "equal responses",
          "unfinished": "a response without its end (config.rollout.max_new_tokens)",
          "unreadable": "a pair that no row can hold", "left_out": "an episode that was left out",
          "reread": "text whose ids are not those that were sampled"}


def _sample(experiment: Experiment, data: SampledPairsConfig, workdir: Path, log: Log, stop: Stop) -> None:
  """Writes all files of a run's pairs."""
  actor, mesh = sampling_actor(experiment), experiment.mesh
  log.progress("compile", Position(), "sampling pairs", force=True)
  params = initial_params.load_start(experiment.start, experiment.model, experiment.seed, mesh)
  decoding = jax.block_until_ready(actor.compiled.to_decoding(params))
  del params
  compile_all(actor, decoding, log.heartbeat)

  def sample(env: Env, name: str, wanted: int, noise: float) -> Sample:
    context = PlayContext(OneResponse(env, data.points == "any"), actor, decoding, jax.random.key(experiment.seed), 1.0,
                          2, [], lambda: (log.heartbeat(), stop.sync_or_exit()), left_out.judging(experiment))
    result = sample_pairs(experiment, context, name, wanted, noise, log)
    log.say(f"{workdir}: {described(result, name)}")
    return result

  training = sample(experiment.env, "", data.pairs, data.noise)
  heldout = {}
  for variant in data.variants:
    result = sample(experiment.env_variant(variant), variant, data.heldout_pairs, 0.0)
    paths.make(workdir / HELDOUT)
    _write(workdir / HELDOUT / f"{variant}.jsonl", result.rows)
    heldout[variant] = result.summary()
  _write(workdir / FILE, training.rows)
  write_json(workdir / SUMMARY, {**training.summary(), "noise": data.noise, "ties_by": data.ties,
                                 "start": experiment.start, "seed": experiment.seed, "heldout": heldout})


def sample_pairs(experiment: Experiment, context: PlayContext, name: str, wanted: int, noise: float,
                 log: Log) -> Sample:
  """So many pairs, of the first prompts that give one. ConfigError where data.prompts_limit prompts give fewer.

  name: of a variant, "" for training, whose prompts are those of RL
  """
  data, result = experiment.data, Sample([], collections.Counter(), context.rollout_costs)
  limit, at_once, troubles = data.most_prompts(wanted), context.actor.rollout.rows // 2, {}
  when = f"sampling pairs{name and f' of {name}'}"
  while len(result.rows) < wanted:
    first = result.counts["prompts"]
    prompts = range(first, min(first + at_once, limit))
    if not prompts:
      raise ConfigError(_too_few(result, when, wanted, limit))
    log.progress("sample", Position(), f"{when}: {len(result.rows):,} of {wanted:,}")
    keys = [f"{f'heldout {name}' if name else experiment.seed} {number}" for number in prompts]
    episodes = _play(context, prompts, [key for key in keys for _ in range(2)])
    troubles = left_out.count(experiment, troubles, episodes, when, log)
    pairs = [_drafted(data, key, episodes[2 * place : 2 * place + 2], noise, result.counts)
             for place, key in enumerate(keys)]
    result.counts["prompts"] += len(prompts)
    _keep_readable(experiment, [pair for pair in pairs if pair], result)
  del result.rows[wanted:]
  return result


def _play(context: PlayContext, prompts: range, seeds: Sequence[str]) -> list[Episode]:
  """Two episodes a prompt. seeds: of all episodes"""
  numbers = range(2 * prompts.start, 2 * prompts.stop)
  return [episode for places in begun_together(context.actor, len(numbers)) for episode in play_together(
      context, numbers[places.start : places.stop], seeds[places.start : places.stop])[0]]


def _drafted(data: SampledPairsConfig, key: str, episodes: Sequence[Episode], noise: float,
             counts: collections.Counter) -> tuple[dict, tuple[Episode, Episode]] | None:
  """(the row of two episodes of one prompt, the episodes, the preferred one first), None where they are no pair."""
  if any(episode.dropped for episode in episodes):
    counts["left_out"] += 1
    return None
  turns = [episode.turns[0] for episode in episodes]
  judged = [Judged(turn.response.text, float(turn.verdict.reward), turn.verdict.code, turn.verdict.correct)
            for turn in turns]
  if not all(turn.response.stopped for turn in turns):
    counts["unfinished"] += 1
    return None
  if judged[0].text == judged[1].text:
    counts["alike"] += 1
    return None
  choice = preferred(judged, key, data.ties, noise)
  counts["ties"] += is_tie(judged)
  if choice is None:
    return None
  first, turned = choice
  prompt = episodes[0].chat[: episodes[0].asked]
  if any(message.image is not None for message in prompt):
    raise ConfigError("This environment shows pictures, which rows of text cannot hold: choose a variant without.")
  return row_of(prompt, judged[first], judged[1 - first], key, turned), (episodes[first], episodes[1 - first])


def _keep_readable(experiment: Experiment, pairs: list[tuple[dict, tuple[Episode, Episode]]], result: Sample) -> None:
  """Adds the rows that a run on the file can use, and counts the others."""
  form = PairsConfig(path=FILE, length=experiment.data.length, pack=experiment.data.pack)
  raws = [Raw(FILE, number, row, tuple(row)) for number, (row, _) in enumerate(pairs)]
  for (_, drafted), (row, episodes) in zip(PAIR_A_ROW.examples(form, raws, experiment.tokenizer), pairs, strict=True):
    try:
      sides = PAIR_A_ROW.fitted(form, drafted, result.counts)
    except BadRow as error:
      result.counts["unreadable"] += 1
      result.reason = result.reason or str(error)
      continue
    sampled = [[*episode.turns[0].response.context, *episode.turns[0].response.tokens] for episode in episodes]
    result.counts["reread"] += any(list(ids) != before for (ids, _, _), before in zip(sides, sampled, strict=True))
    result.rows.append(row)


def described(sample: Sample, name: str) -> str:
  """What a person reads of sampled pairs."""
  summary = sample.summary()
  counts = ", ".join(f"{summary[kind]:,} {kind}" for kind in COUNTS if summary[kind])
  turned = f", {summary['turned']:,} turned round" if summary["turned"] else ""
  return (f"{summary['pairs']:,} pairs{name and f' of {name}'} from {summary['prompts']:,} prompts"
          f"{counts and f' ({counts})'}{turned}; the preferred response is correct in "
          f"{summary['chosen_correct']:.1%} of them; {summary['flops']:.2e} FLOPs.")


def _too_few(sample: Sample, when: str, wanted: int, limit: int) -> str:
  counts = ", ".join(f"{count:,} with {COUNTS[kind]}" for kind, count in sample.counts.items() if kind in COUNTS)
  first = f" The first unreadable pair {sample.reason}." if sample.reason else ""
  return (f"{when}: {limit:,} prompts (config.data.prompts_limit) gave {len(sample.rows):,} pairs of {wanted:,} that "
          f"are wanted: {counts}.{first} Ask for fewer (config.data.pairs, heldout_pairs), allow more prompts, or "
          "begin from a start whose responses to one prompt differ in their reward.")


def _write(path: Path, rows: list[dict]) -> None:
  paths.write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
