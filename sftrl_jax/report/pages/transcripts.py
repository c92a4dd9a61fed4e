"""One episode played by the start, SFT and RL: which one tells most, and its conversations as blocks."""

import dataclasses

from sftrl_jax.report import labels, read_workdir
from sftrl_jax.report.pages.blocks import Talks

LIMIT = 1600


@dataclasses.dataclass(frozen=True)
class Trio:
  """A hand by its seed and the episodes played on it: [(title, Episode)]; `counts` of logged hands by who was right."""
  run_names: tuple
  seed: int
  episodes: tuple
  right_only: int
  wrong_only: int
  logged: int


def by_seed(episodes, last):
  """Episodes of the first (the start, step 0) or the last step logged, by the seed of the hand."""
  steps = sorted({episode.step for episode in episodes})
  if not steps or (steps[0] != 0 and not last) or (last and steps[-1] == 0):
    return {}
  return {episode.seed: episode for episode in episodes if episode.step == steps[-1 if last else 0]}


def telling(start, sft, other):
  """How much a hand says: the method right where SFT is wrong first, most if the start was right too, or SFT misreads
  the rule.
  """
  if other.success and not sft.success:
    misread = bool(sft.codes) and sft.codes[0] in ("misread", "numbers")
    return 6 + 2 * start.success + misread
  if other.success != sft.success:
    return 4
  return 2 * (start.success != sft.success) + (start.codes != sft.codes)


def choose(study, method):
  """The most telling logged hand on the shifted variant over all bases and seeds, or None if nothing was logged."""
  best, score, right, wrong, logged = None, -1, 0, 0, 0
  for base in study.bases:
    for seed in study.seeds:
      pair = [study.runs.get((base, name, seed)) for name in (study.reference, method)]
      if None in pair:
        continue
      ours, theirs = (read_workdir.read_episodes(run.directory, study.ood) for run in pair)
      start, sft, other = by_seed(ours, False) or by_seed(theirs, False), by_seed(ours, True), by_seed(theirs, True)
      for hand in sorted(start.keys() & sft.keys() & other.keys()):
        logged += 1
        right += other[hand].success and not sft[hand].success
        wrong += sft[hand].success and not other[hand].success
        mark = telling(start[hand], sft[hand], other[hand])
        if mark > score:
          best, score = (tuple(run.name for run in pair), hand, (start[hand], sft[hand], other[hand])), mark
  if best is None:
    return None
  names, hand, episodes = best
  titles = ("start", study.reference_label, study.methods[method])
  return Trio(names, hand, tuple(zip(titles, episodes, strict=True)), int(right), int(wrong), logged)


def turns(episode):
  """(role, text, note) of a chat; a response's note is its verdict and reward, long texts are cut."""
  told, answered = [], 0
  for role, text in episode.chat:
    note = ""
    if role == "assistant":
      code = episode.codes[answered] if answered < len(episode.codes) else ""
      reward = f"reward {episode.rewards[answered]:g}" if answered < len(episode.rewards) else ""
      note, answered = ", ".join(part for part in (labels.plain(code, 40), reward) if part), answered + 1
    told.append((labels.plain(role, 20), labels.plain(text, LIMIT), note))
  return tuple(told)


def talks(episodes):
  """Conversations side by side from [(title, Episode)]."""
  return Talks(tuple((f"{title}, step {episode.step}: {'right' if episode.success else 'wrong'}", turns(episode))
                     for title, episode in episodes))
