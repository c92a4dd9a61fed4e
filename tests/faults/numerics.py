"""N: numbers that are not finite, too large, or contradict one another."""

import math
import re

import numpy as np
from campaign import Failed
from inputs import chat, play, rl, sft, talks, tensors, tiny, write_safetensors


def finite(case, keys=("loss",)) -> list[dict]:
  """The lines of metrics; Failed if one of these numbers is not finite."""
  lines = case.lines()
  if not lines or any(not math.isfinite(line[key]) for line in lines for key in keys):
    raise Failed(f"not finite: {[line.get(keys[0]) for line in lines]}")
  return lines


def advised(case, output: str) -> None:
  """Failed unless the step that the message names has a checkpoint."""
  steps = re.findall(r"config\.start=run@(\d+)", output)
  missing = [step for step in steps if not (case.home / "run" / "checkpoints" / step / "meta").exists()]
  if missing or not (steps or "its start" in output):
    raise Failed(f"the message names {steps or 'no start'}; there is no checkpoint {missing}")


def N1(case):
  output = yield sft("optimizer.name=sgd", "optimizer.learning_rate=1e30", "optimizer.clip=0", "steps=40",
                     "checkpoint.every=1", "max_nonfinite=3")
  advised(case, output)


def N2(case):
  output = yield sft("optimizer.args.eps=0", "steps=30", "max_nonfinite=3", "checkpoint.every=1")
  advised(case, output)
  finite(case)


def N3(case):
  return play(case, reward="return float('inf')")


def N4(case):
  return play(case, reward="return 1e30 if next(N) == 5 else 0.0")


def N5(case):
  return play(case, reward="return 10**400")


def N6(case):
  return sft("optimizer.args.b1=1.0")


def N7(case):
  return sft("optimizer.args.eps=-1")


def N8(case):
  tiny(case.home / "tiny")
  weights = tensors()
  weights["model.layers.0.mlp.up_proj.weight"][3, 5] = np.nan
  write_safetensors(case.home / "tiny" / "model.safetensors", weights)
  return chat(case, talks(), "steps=20", "max_nonfinite=2")


def N9(case):
  yield rl("rollout.temperature=1e-6")
  finite(case)


def N10(case):
  words = play(case, "ppo.kl_coef=1e38", "optimizer.learning_rate=1e-2", "steps=20", "max_nonfinite=2",
               reward="return float(next(N) % 2)")
  return [word.replace("task.py:rl", "task.py:ppo") for word in words]


def N11(case):
  return sft("model.init_std=1e30", "steps=20", "max_nonfinite=2")


def N12(case):
  yield sft("optimizer.clip=1e-30")
  finite(case)


def N13(case):
  return sft("optimizer.args.b2=1.0")


def N14(case):
  return play(case, reward="return float('nan') if next(N) == 5 else 0.0")


def N15(case):
  yield rl("ppo.value_coef=0", "ppo.entropy_coef=0", "ppo.gae_lambda=0", "ppo.gamma=0")
  finite(case)
