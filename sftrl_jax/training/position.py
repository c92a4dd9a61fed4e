"""How far a run is, and when an evaluation, a checkpoint or a line is due."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Position:
  """All counts of a run; with the train state it is all that a resume needs.

  FLOPs are of post-training only and cumulative over resumes; every computed position counts, padding included.
  """

  step: int = 0  # SFT updates or RL iterations done
  cursor: int | tuple[int, int] = 0  # examples or episodes read; a pair where there are two sources of rows
  tokens: int = 0  # trained on
  seconds: float = 0.0  # of steps, evaluation and compilation apart
  train_flops: float = 0.0
  rollout_flops: float = 0.0
  score_flops: float = 0.0
  skipped: int = 0  # latest steps in a row with a skipped update, because loss, gradient or update was not finite
  without_signal: int = 0  # latest steps of RL in a row whose rewards gave no advantage
  counts: dict[str, int] = dataclasses.field(default_factory=dict)  # {metric: training episodes left out or cut}
  read_tokens: int = 0  # by updates: D_train of the paper's formula for compute, see models/flops.py
  buffer_tokens: float = 0.0  # by rollouts without a cache: D_buffer of that formula

  @property
  def total_flops(self) -> float:
    """FLOPs of updates, rollouts and scoring."""
    return self.train_flops + self.rollout_flops + self.score_flops

  def ahead(self, cursor: int | tuple[int, int], tokens: int, seconds: float, *, train: float, rollout: float = 0.0,
            score: float = 0.0, counts: dict[str, int] | None = None) -> "Position":
    """The position after one more step, with these tokens, seconds and FLOPs of it. counts: as they are after it."""
    return Position(self.step + 1, cursor, self.tokens + tokens, self.seconds + seconds, self.train_flops + train,
                    self.rollout_flops + rollout, self.score_flops + score, self.skipped, self.without_signal,
                    self.counts if counts is None else counts, self.read_tokens, self.buffer_tokens)

  def with_tokens(self, read: int, buffer: float = 0.0) -> "Position":
    """The position with D_train and D_buffer of a step added, for the paper's formula."""
    return dataclasses.replace(self, read_tokens=self.read_tokens + read, buffer_tokens=self.buffer_tokens + buffer)

  def log(self) -> dict:
    """The first keys of a line of metrics.jsonl."""
    return {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 4),
            "compute/train_flops": self.train_flops, "compute/rollout_flops": self.rollout_flops,
            "compute/score_flops": self.score_flops, "compute/total_flops": self.total_flops, **self.counts}


@dataclasses.dataclass(frozen=True)
class Limits:
  """When a run ends: after `steps`, or at the first step that has spent `flops` (0: no budget)."""

  steps: int
  flops: float = 0.0

  def over(self, position: Position) -> bool:
    """Whether the run has ended."""
    return position.step >= self.steps or bool(self.flops and position.total_flops >= self.flops)

  def spent(self, position: Position) -> float:
    """The share of the budget that is spent, 0 where there is none."""
    return position.total_flops / self.flops if self.flops else 0.0

  def done(self, position: Position) -> float:
    """The share of the run that is done, in [0, 1]."""
    shares = [position.step / max(1, self.steps), self.spent(position)]
    return min(1.0, max(shares))


def due(every: int, position: Position, limits: Limits) -> bool:
  """Whether this is a multiple of `every` steps, or the end of the run. 0: only the end."""
  return limits.over(position) or bool(every and position.step % every == 0)


def due_at(shares: tuple[float, ...], before: Position, after: Position, limits: Limits) -> bool:
  """Whether the run has just crossed one of these shares of its length, or its end."""
  done_before, done_after = limits.done(before) + 1e-9, limits.done(after) + 1e-9
  return limits.over(after) or any(done_before < share <= done_after for share in shares)
