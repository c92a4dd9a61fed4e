"""One episode played by the start, SFT and RL: which one separates them most, and its conversations as blocks."""

import dataclasses
from collections.abc import Sequence

from sftrl_jax.report.labels import plain
from sftrl_jax.report.pages.blocks import Transcripts, Turn
from sftrl_jax.report.read_workdir import read_episodes
from sftrl_jax.report.records import LoggedEpisode, Study

LONGEST_TEXT = 1600
MOST_PICTURES = 12   # of one conversation


@dataclasses.dataclass(frozen=True)
class EpisodeComparison:
  """One episode by its seed as the start, SFT and a method played it: [(title, LoggedEpisode)].

  `logged` counts the episodes that could be compared, `right_only` and `wrong_only` those on which the method alone or
  SFT alone was right.
  """

  run_names: tuple[str, ...]
  seed: int
  episodes: tuple[tuple[str, LoggedEpisode], ...]
  right_only: int
  wrong_only: int
  logged: int


def by_seed(episodes: Sequence[LoggedEpisode], last: bool) -> dict[int, LoggedEpisode]:
  """Episodes of the start (step 0) or, with `last`, of the last step logged, by their seed."""
  steps = sorted({episode.step for episode in episodes})
  if not steps or (steps[0] != 0 and not last) or (last and steps[-1] == 0):
    return {}
  return {episode.seed: episode for episode in episodes if episode.step == steps[-1 if last else 0]}


def _contrast(start: LoggedEpisode, sft: LoggedEpisode, method: LoggedEpisode) -> int:
  """How much an episode shows: most where the method is right and SFT wrong, the start was right, SFT misread."""
  if method.success and not sft.success:
    misread = bool(sft.codes) and sft.codes[0] in ("misread", "numbers")
    return 6 + 2 * start.success + misread
  if method.success != sft.success:
    return 4
  return 2 * (start.success != sft.success) + (start.codes != sft.codes)


def choose(study: Study, method: str) -> EpisodeComparison | None:
  """The logged episode of the shifted variant with the most contrast, over all bases and seeds; None if none is."""
  best, best_contrast, right_only, wrong_only, logged = None, -1, 0, 0, 0
  for base in study.bases:
    for seed in study.seeds:
      pair = [study.runs.get((base, name, seed)) for name in (study.reference, method)]
      if None in pair:
        continue
      of_sft, of_method = (read_episodes(run.directory, study.ood) for run in pair)
      starts = by_seed(of_sft, False) or by_seed(of_method, False)
      sft_ends, method_ends = by_seed(of_sft, True), by_seed(of_method, True)
      for episode in sorted(starts.keys() & sft_ends.keys() & method_ends.keys()):
        trio = (starts[episode], sft_ends[episode], method_ends[episode])
        logged += 1
        right_only += trio[2].success and not trio[1].success
        wrong_only += trio[1].success and not trio[2].success
        contrast = _contrast(*trio)
        if contrast > best_contrast:
          best, best_contrast = (tuple(run.name for run in pair), episode, trio), contrast
  if best is None:
    return None
  names, episode, trio = best
  titles = ("start", study.reference_label, study.methods[method])
  return EpisodeComparison(names, episode, tuple(zip(titles, trio, strict=True)), int(right_only), int(wrong_only),
                           logged)


def turns(episode: LoggedEpisode) -> tuple[Turn, ...]:
  """(role, text, note) of a chat; a response's note is its verdict and reward, long texts are cut. Of a message with a
  picture its PNG file is the fourth."""
  rows, answered, shown = [], 0, 0
  for place, (role, text) in enumerate(episode.chat):
    note = ""
    if role == "assistant":
      code = episode.codes[answered] if answered < len(episode.codes) else ""
      reward = f"reward {episode.rewards[answered]:g}" if answered < len(episode.rewards) else ""
      note, answered = ", ".join(part for part in (plain(code, 40), reward) if part), answered + 1
    picture = (episode.pictures[place],) if place in episode.pictures and shown < MOST_PICTURES else ()
    rows.append((plain(role, 20), plain(text, LONGEST_TEXT), note, *picture))
    shown += len(picture)
  return tuple(rows)


def transcripts(episodes: Sequence[tuple[str, LoggedEpisode]]) -> Transcripts:
  """Conversations side by side from [(title, LoggedEpisode)]."""
  return Transcripts(tuple((f"{title}, step {episode.step}: {'right' if episode.success else 'wrong'}", turns(episode))
                           for title, episode in episodes))
