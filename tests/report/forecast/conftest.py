"""Workdirs whose success is a known sigmoid of the FLOPs."""

import json

import numpy as np
import pytest

from sftrl_jax.forecast.sigmoid import sigmoid

# start, end, FLOPs half way, steepness
TRUTHS = {("sft", "id_seen"): (0.3, 0.95, 3e11, 1.6), ("ppo", "id_seen"): (0.3, 0.8, 8e11, 1.4),
          ("sft", "rule_ood"): (0.3, 0.04, 6e11, 2.0), ("ppo", "rule_ood"): (0.3, 0.42, 7e11, 1.5)}
FLOPS = 2e12
CHIP_HOURS = 1e-12   # of a FLOP


def rate(truth, flops):
  start, end, midpoint, steepness = truth
  return start + (end - start) * float(sigmoid(np.array(flops), np.array(midpoint), np.array(steepness)))


def write_lines(path, lines):
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_sigmoid_run(directory, method="sft", shares=(0, .1, .2, .35, .5, .75, 1), finished=True, seed=0, truths=None,
                      episodes=512):
  """A run that was evaluated at these shares of FLOPs, of which it has a budget."""
  directory.mkdir(parents=True)
  random, lines = np.random.default_rng((seed, method == "sft")), []
  for variant in ("id_seen", "rule_ood"):
    for share in shares:
      right = int(random.binomial(episodes, rate((truths or TRUTHS)[method, variant], share * FLOPS)))
      outcomes = "1" * right + "0" * (episodes - right)
      lines.append({"step": round(1000 * share), "variant": variant, "temperature": 0.0, "seed": 5000, "attempts": 1,
                    "episodes": episodes, "successes": right, "success": right / episodes, "flops": share * FLOPS,
                    "outcomes": outcomes, "codes": {"correct": right, "value": episodes - right}})
  write_lines(directory / "evals.jsonl", sorted(lines, key=lambda line: line["step"]))
  spent = max(shares) * FLOPS
  write_lines(directory / "metrics.jsonl", [{"step": 1000, "seconds": 60.0, "compute/total_flops": spent,
                                             "compute/chip_hours": spent * CHIP_HOURS}])
  verb = "sft" if method == "sft" else "rl"
  (directory / "config.json").write_text(json.dumps({"verb": verb, "flops": FLOPS, "steps": 10**6, "seed": seed}))
  phase = {"phase": "complete", "done": 1} if finished else {"phase": "train", "done": max(shares)}
  (directory / "progress.json").write_text(json.dumps(phase))
  return directory


@pytest.fixture
def sigmoid_run():
  return write_sigmoid_run


@pytest.fixture
def sigmoid_study():
  """sigmoid_study(directory, methods, bases, **options of every run) -> directory"""
  def write(directory, methods=("sft", "ppo"), bases=3, **options):
    directory.mkdir(parents=True)
    (directory / "study.json").write_text(json.dumps({
        "name": "Sigmoids", "bases": list(range(bases)), "seeds": [0], "flops": FLOPS, "id": "id_seen",
        "ood": "rule_ood", "methods": {method: method.upper() for method in methods}}))
    for base in range(bases):
      for method in methods:
        kind = method if method in ("sft", "ppo") else "ppo"
        write_sigmoid_run(directory / "runs" / f"base-{base}-{method}-0", kind, seed=base, **options)
    return directory
  return write
