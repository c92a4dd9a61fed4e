"""The section `rollout` of a config."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
  """How episodes are played.

  rows: conversations decoded together
  prompt_tokens: longest prompt
  feedback_tokens: longest message of the verifier, with the tokens that the chat template adds
  feedback_images: most pictures of such a message, which are read beside the cache that `carry` keeps
  max_new_tokens: longest response, its <eos> included
  temperature: of training rollouts and their log-probabilities
  carry: keep the cache from turn to turn; off, every turn reads the whole chat again, as it always does where the
    environment rewrites its prompt
  shrink: sizes, as shares of `rows`, to which the batch is cut once enough conversations have ended
  segment: tokens sampled at once (0: a whole response). Before the next ones, rows whose response has ended leave the
    batch, which is then cut to the smallest of `shrink` and by halves below it, to an eighth of `rows`; the cache that
    is read has room for what is written, and doubles
  refill: slots whose response has ended are taken by the next prompts of all that an iteration or an evaluation plays.
    Responses longer than `segment` and than a quarter of the limit go on in slots of their own, a quarter as many.
    `shrink` is then for the last ones alone. It is not for a cache that is carried over turns. Off by default, for it
    changes log-probabilities in their last bits: the columns that a token attends over stand in another order
  dtype: of decoding, weights and cache ("": as in training); bfloat16 halves both, and the sampler's log-probabilities
    then differ from the trainer's, see sampling/sampling_logp_difference
  gather: every device has whole matrices (but for tensor) while it decodes; off, they stay split over fsdp too
  """

  rows: int = 256
  prompt_tokens: int = 64
  feedback_tokens: int = 16
  feedback_images: int = 0
  max_new_tokens: int = 64
  temperature: float = 1.0
  carry: bool = True
  shrink: tuple[float, ...] = (0.75, 0.5)
  segment: int = 64
  refill: bool = False
  dtype: Literal["", "float32", "bfloat16"] = ""
  gather: bool = False

  def __post_init__(self):
    object.__setattr__(self, "shrink", tuple(self.shrink))
    for name in ("rows", "prompt_tokens", "feedback_tokens", "max_new_tokens"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
    if self.feedback_images < 0 or (self.feedback_images and not self.carry):
      raise ValueError(f"feedback_images is {self.feedback_images} and carry {self.carry}; it must be 0, or at least 1 "
                       "with carry=True: without, a turn reads all pictures of the chat.")
    if self.segment < 0:
      raise ValueError(f"segment is {self.segment}; it must be positive, or 0 for a whole response.")
    if not 0 < self.temperature <= 100:
      raise ValueError(f"temperature is {self.temperature}; training rollouts need one above 0 and at most 100, for "
                       "example 1.0.")
    if any(not 0 < share < 1 for share in self.shrink):
      raise ValueError(f"shrink is {self.shrink}; its shares must lie between 0 and 1, for example (0.75, 0.5).")
    if self.dtype not in ("", "float32", "bfloat16"):
      raise ValueError(f"dtype is {self.dtype!r}; it must be float32, bfloat16, or '' for that of training.")
