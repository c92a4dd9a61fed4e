r"""Sorting three numbers: does PPO keep more of sorting four than SFT does? A task, its base and its study in one file.

  sftrl rl --config=configs/examples/sort_numbers.py --workdir=runs/sort_rl
  sftrl sft --config=configs/examples/sort_numbers.py:sft --workdir=runs/sort_sft
  sftrl study --config=configs/examples/sort_numbers.py:study --workdir=runs/sort

Hardware: two CPU cores. Minutes: a few.
Result: greedy, two bases, equal FLOPs: PPO lifts three numbers from 70 to 95%, and four numbers fall from 53 to 36%.
SFT lifts three numbers to 100%, and four numbers fall to 13%. At the same success on three numbers, SFT is 5 points
ahead on four.
"""

import dataclasses
import random

from ml_collections import ConfigDict

from sftrl_jax.chat import Chat, Message
from sftrl_jax.envs.env import Verdict

State = tuple[tuple[str, ...], bool]   # the numbers, and whether the episode has ended


@dataclasses.dataclass(frozen=True)
class Sort:
  """The task. Its fields are the keys of config.env.

  counts: how many numbers a training prompt may have
  """

  counts: tuple[int, ...] = (3,)
  variant: str = "train"
  variants, codes, attempts = ("three", "four"), ("correct", "wrong"), 1
  words = ("SORT", "RIGHT", "WRONG", *map(str, range(20)))

  def reset(self, seed: int | str) -> tuple[State, Chat]:
    """The first state and chat of an episode; the same seed gives the same episode, in every process."""
    draw = random.Random(f"{self.variant} {seed}")
    count = {"three": 3, "four": 4}.get(self.variant) or draw.choice(self.counts)
    numbers = tuple(str(draw.randrange(20)) for _ in range(count))
    return (numbers, False), (Message("user", " ".join(["SORT", *numbers])),)

  def step(self, state: State, response: str) -> tuple[State, Verdict]:
    """Judges a response. Every string gets a verdict; only a state whose episode has ended is an error."""
    numbers, ended = state
    if ended:
      raise ValueError("the episode has ended: reset(seed) begins another")
    right = response == self.expert(state)
    return (numbers, True), Verdict(
        reward=float(right), terminated=True, truncated=False, correct=right, success=right,
        feedback="RIGHT" if right else "WRONG", chat=None, code="correct" if right else "wrong")

  def expert(self, state: State) -> str:
    """The correct response: what SFT learns from."""
    return " ".join(sorted(state[0], key=int))

  def careless(self, state: State, seed: int | str) -> str:
    """Any order. Only the base learns from it: data.careless mixes it into the demonstrations."""
    return " ".join(random.Random(str(seed)).sample(state[0], len(state[0])))


def get_config(choice="rl"):
  env, evals = dict(name=f"{__file__}:Sort"), dict(variants=("three", "four"))
  if choice == "study":
    return ConfigDict(dict(study=dict(
        name="Sort three numbers, then four", claim="PPO on three numbers keeps more of four than SFT does.",
        base=f"{__file__}:base", methods=dict(sft=f"{__file__}:sft", ppo=f"{__file__}:rl"),
        bases=2, jobs=2, flops=1.5e11, id="three", ood="four")))
  # lengths: the result above was made with rows of one length
  method = {"sft": dict(steps=400), "rl": dict(algorithm="ppo", steps=100, batch=256, compute=dict(lengths=1)),
            "base": dict(steps=800, env=dict(env, counts=(3, 4)), evals=dict(variants=()), data=dict(careless=0.5),
                         optimizer=dict(learning_rate=1e-3))}[choice or "rl"]
  return ConfigDict(dict(
      dict(batch=16, env=env, evals=evals, model=dict(layers=2, remat="none"),
           rollout=dict(prompt_tokens=6, feedback_tokens=1, max_new_tokens=5)), **method))
