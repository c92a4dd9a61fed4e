"""The section `own_reward` of a config."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class OwnRewardConfig:
  """How the function of config.reward is called.

  process: in a process of its own, which ends with the run, with all that the function starts, and begins anew where it
    dies or hangs; off calls it inside the run
  seconds: that one call may take; beyond it the responses of the call have no reward
  start_seconds: that importing the file may take
  memory_gib: address space of that process, 0 for no limit; beyond it Python raises MemoryError
  output_kib: of what the function prints, so much is shown; the rest is read and left out
  batch: responses of one call of a function of TRL's form; 0 for all of an iteration
  abstain_limit: share of an iteration's episodes that may lack a reward, because the function abstains or fails; beyond
    it the run stops
  """

  process: bool = True
  seconds: float = 60.0
  start_seconds: float = 300.0
  memory_gib: float = 0.0
  output_kib: int = 64
  batch: int = 0
  abstain_limit: float = 0.5

  def __post_init__(self):
    for name in ("seconds", "start_seconds"):
      if not 0 < getattr(self, name) < 1e6:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be positive, and below 1e6: a call that never ends "
                         "would keep the run waiting.")
    for name in ("memory_gib", "output_kib", "batch"):
      if getattr(self, name) < 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more.")
    if not 0 <= self.abstain_limit <= 1:
      raise ValueError(f"abstain_limit is {self.abstain_limit}; it is a share of an iteration's episodes, from 0 to 1.")
    if self.memory_gib and not self.process:
      raise ValueError(f"memory_gib is {self.memory_gib:g}, but process is False, and a run has no limit of its own: "
                       "use --config.own_reward.process=True, or 0.")
