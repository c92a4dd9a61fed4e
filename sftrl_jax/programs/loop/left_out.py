"""Episodes that are spoiled or cut: counted by kind, explained once a kind, and no more than config.max_dropped left
out."""

from collections.abc import Mapping, Sequence

from sftrl_jax.envs import verdict_pool
from sftrl_jax.envs.referee import TaskError
from sftrl_jax.programs.config import user_files
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.rollout.episodes import Episode, Judging, Trouble
from sftrl_jax.rollout.scoring import UNREWARDED
from sftrl_jax.training.log import Log


def judging(experiment: Experiment, keep_unrewarded: bool = False) -> Judging:
  """How episodes of a run are judged. keep_unrewarded: evaluation measures success, which needs no reward."""
  config = experiment.config
  return Judging(config["verdict_seconds"], keep_unrewarded, verdict_pool.shared(config["verdict_workers"]))


def count(experiment: Experiment, before: Mapping[str, int], episodes: Sequence[Episode], when: str, log: Log
          ) -> dict[str, int]:
  """{kind: episodes so far}, `before` added; says the first trouble of a kind.

  when: `step 3` or an evaluation. TaskError where more than config.max_dropped episodes of a kind are left out, or all
  of these.
  """
  counts, most = dict(before), experiment.config["max_dropped"]
  for episode in episodes:
    trouble = episode.trouble
    if trouble is None:
      continue
    counts[trouble.kind] = counts.get(trouble.kind, 0) + 1
    if trouble.dropped and counts[trouble.kind] > most:
      raise TaskError(f"{trouble.message}\n  {when}: {trouble.kind} is {counts[trouble.kind]}, but config.max_dropped "
                      f"is {most}, the most episodes of a kind that are left out. {_way_out(experiment, trouble, log)}")
    log.say_once(trouble.kind, f"{when}: {_fate(trouble)} ({trouble.kind}): {trouble.message}")
  _refuse_abstaining(experiment, episodes, when, log)
  if episodes and all(episode.dropped and not episode.turns for episode in episodes):
    trouble = episodes[0].trouble
    raise TaskError(f"{trouble.message}\n  {when}: all {len(episodes)} episodes were left out, so there is nothing to "
                    f"learn or to measure. {_way_out(experiment, trouble, log)}")
  return counts


def _refuse_abstaining(experiment: Experiment, episodes: Sequence[Episode], when: str, log: Log) -> None:
  """TaskError where more episodes of an iteration lack a reward than config.own_reward.abstain_limit; one of an
  evaluation goes on without."""
  if not experiment.config.get("reward"):
    return
  limit = experiment.config["own_reward"]["abstain_limit"]
  lacking = [episode.trouble for episode in episodes
             if episode.dropped and not episode.turns and episode.trouble.kind == UNREWARDED]
  if len(lacking) > limit * len(episodes):
    raise TaskError(f"{lacking[0].message}\n  {when}: {len(lacking)} of {len(episodes)} episodes have no reward, but "
                    f"config.own_reward.abstain_limit is {limit:g}, the largest share that may lack one. "
                    f"{_way_out(experiment, lacking[0], log, 'own_reward.abstain_limit=SHARE')}")


def _fate(trouble: Trouble) -> str:
  return "an episode is left out" if trouble.dropped else "an episode ends there, truncated"


def _way_out(experiment: Experiment, trouble: Trouble, log: Log, limit: str = "max_dropped=N") -> str:
  """How to go on in the same workdir."""
  if trouble.kind == "dropped/prompt":
    return "With that key, or --config.max_dropped=N, the same command goes on from the last checkpoint."
  record = log.workdir / user_files.RECORD
  mended = f" (then delete {record}, which holds the hash of the file as it was)" if record.is_file() else ""
  return f"Mend that{mended}, or allow more with --config.{limit}: the same command goes on."
