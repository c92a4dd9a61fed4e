"""Pairs of a model's own responses, ordered by an environment's rewards: how many are wanted, and the row of a pair.

A row says which response is preferred, and by which rewards. These are no margins (`reward_chosen` is another column
than `score_chosen`): a pair of this kind stands for a person's choice, which has none.
"""

import dataclasses
import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

from sftrl_jax.chat import Chat
from sftrl_jax.data.rows import refuse_ranges

PROMPTS_A_PAIR = 20   # prompts that are answered for a wanted pair at most, where prompts_limit is 0


@dataclasses.dataclass(frozen=True)
class SampledPairsConfig:
  """Pairs from config.env: two responses of config.start to one prompt, sampled at temperature 1 before the first step,
  of which the environment rewards one more.

  pairs: how many are wanted
  prompts_limit: prompts that are answered for them at most, and for those of each variant (0: 20 a pair)
  ties: responses of equal reward are dropped, or a coin says which one is preferred
  noise: share of the pairs whose preference is turned round
  points: of an episode of many points: its first prompt, or any that the expert comes through
  prompt_tokens: longest prompt (0: config.rollout.prompt_tokens)
  variants: of the environment, of which pairs are held out: their rewards/accuracies are in evals.jsonl
  heldout_pairs: of each of these variants; they have no noise
  length: tokens of a packed row; a pair whose two sides have more is not used
  shuffle: another order in every pass, by the seed; off keeps the order of the prompts
  pack: several pairs a row; off is one pair a row, so that config.batch counts pairs
  validation: share of the pairs that is held out, of which eval/loss is measured
  """

  pairs: int = 1000
  prompts_limit: int = 0
  ties: Literal["drop", "coin"] = "drop"
  noise: float = 0.0
  points: Literal["first", "any"] = "first"
  prompt_tokens: int = 0
  variants: tuple[str, ...] = ()
  heldout_pairs: int = 1000
  length: int = 1024
  shuffle: bool = True
  pack: bool = True
  validation: float = 0.0

  flops, max_dropped = 0.0, 0.0   # of rows that are read from a file

  def __post_init__(self):
    for name in ("pairs", "heldout_pairs"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
    for name in ("prompts_limit", "prompt_tokens"):
      if getattr(self, name) < 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or positive.")
    for name, known in (("ties", ("drop", "coin")), ("points", ("first", "any"))):
      if getattr(self, name) not in known:
        raise ValueError(f"{name} is {getattr(self, name)!r}; it must be {' or '.join(known)}.")
    if not 0 <= self.noise <= 1:
      raise ValueError(f"noise is {self.noise}; it is a share of the pairs, from 0 to 1.")
    refuse_ranges(self, 4)

  def most_prompts(self, wanted: int) -> int:
    """Prompts that are answered for so many pairs at most."""
    return self.prompts_limit or PROMPTS_A_PAIR * wanted


class Judged(NamedTuple):
  """A response with its verdict."""

  text: str
  reward: float
  code: str
  correct: bool


def is_tie(responses: Sequence[Judged]) -> bool:
  """Whether two responses have one reward, sums of floats aside."""
  return round(responses[0].reward, 6) == round(responses[1].reward, 6)


def preferred(responses: Sequence[Judged], key: str, ties: str, noise: float) -> tuple[int, bool] | None:
  """(number of the preferred one of two responses, whether noise has turned it round); None for a tie that is dropped.

  key: of the prompt, from which the coin and the noise follow: a larger noise turns round the same pairs, and more
  ties, noise: as in SampledPairsConfig
  """
  coin, chance = random.Random(f"{key} coin"), random.Random(f"{key} noise")
  if is_tie(responses):
    if ties == "drop":
      return None
    first = int(coin.random() < 0.5)
  else:
    first = int(responses[1].reward > responses[0].reward)
  turned = chance.random() < noise
  return first ^ turned, turned


def row_of(chat: Chat, better: Judged, worse: Judged, key: str, turned: bool) -> dict:
  """A pair as a row that TRL reads, with what the environment says of both sides."""
  row = {"prompt": [{"role": message.role, "content": message.text} for message in chat]}
  sides = {"chosen": better, "rejected": worse}
  row |= {side: [{"role": "assistant", "content": judged.text}] for side, judged in sides.items()}
  for field in ("reward", "code", "correct"):
    row |= {f"{field}_{side}": getattr(judged, field) for side, judged in sides.items()}
  return row | {"seed": key, "turned": turned}
