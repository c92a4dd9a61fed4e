"""Synthetic studies of a task of many points, as the evaluator writes its lines: five points, two tries at each."""

import json

import numpy as np

VARIANTS = ("id", "city_ood", "rule_ood")
POINTS, TRIES, SHARES = 5, 2, (0.0, 0.1, 0.4, 1.0)
# The chance of a right response by method and variant at SHARES of the budget.
CHANCES = {
  ("sft", "id"): (.70, .93, .99, .995), ("ppo", "id"): (.70, .82, .93, .98),
  ("sft", "city_ood"): (.70, .85, .85, .80), ("ppo", "city_ood"): (.70, .80, .92, .97),
  ("sft", "rule_ood"): (.72, .80, .50, .20), ("ppo", "rule_ood"): (.72, .78, .88, .94),
}
UPDATES = {"sft": 2500, "ppo": 256}


def play(chance, seed, episodes):
  """(outcomes, right, responses, first right) of every episode. chance: of a right response."""
  ease = np.random.default_rng(7).normal(0, .08, episodes)
  random, outcomes, right, responses, first = np.random.default_rng(seed), [], [], [], 0
  for episode in range(episodes):
    most = correct = answers = 0
    for _ in range(POINTS):
      tries = random.random(TRIES) < np.clip(chance + ease[episode], 0, 1)
      took = int(np.argmax(tries)) + 1 if tries.any() else TRIES
      most, correct, answers, first = max(most, took), correct + tries.any(), answers + took, first + tries[0]
      if not tries.any():
        most = 0
        break
    outcomes.append(most)
    right.append(int(correct))
    responses.append(answers)
  return outcomes, right, responses, int(first)


def line(kind, variant, temperature, index, settings):
  """One line of evals.jsonl; kind: sft or ppo, settings: episodes, shift, budget, base, share of the updates."""
  chance = CHANCES[kind, variant][index] + settings["shift"] * (index / 3 if variant == "rule_ood" else 1)
  chance = np.clip(chance - .04 * (temperature > 0), 0.01, .999)
  seed = (settings["base"], VARIANTS.index(variant), index, int(temperature), kind == "sft" and index > 0)
  outcomes, right, responses, first = play(chance, seed, settings["episodes"])
  solved, answers = sum(o > 0 for o in outcomes), sum(responses)
  content = {
    "step": index * 100, "variant": variant, "temperature": temperature, "seed": 9, "attempts": TRIES,
    "episodes": len(outcomes), "successes": solved, "success": solved / len(outcomes), "ci95": [0.0, 1.0],
    "flops": SHARES[index] * settings["budget"], "outcomes": "".join(map(str, outcomes)),
    "codes": {"correct": first // POINTS, "action": len(outcomes) - first // POINTS, "illegal": 0},
    "responses": answers, "right": sum(right), "per_step": sum(right) / answers, "points": answers,
    "first_right": first, "legal": answers - index,
    "all_codes": {"correct": sum(right), "action": answers - sum(right) - index, "illegal": index},
    "episode_right": right, "episode_responses": responses, "attempts_of": "point",
    "updates": round(SHARES[index] * UPDATES[kind] * settings["updates"]), "paper_flops": 2 * settings["budget"]}
  if temperature:
    return content | {"kl": 0.3 * index * (1 if kind == "sft" else .2) * (2 if variant == "rule_ood" else 1),
                      "entropy": 1.0 / (1 + index), "pass_at": {"1": .5, "4": .8}, "distinct": 1.4}
  return content | {"expert_accuracy": float(chance), "expert_states": 40}


def write_run(directory, kind="ppo", base=0, episodes=64, finished=True, budget=2e12, updates=1.0, points=4, harm=0.0):
  """A run's workdir. harm: added to every chance, as from another start."""
  directory.mkdir(parents=True)
  shift = .03 * np.random.default_rng((3, base)).standard_normal() + harm
  settings = dict(episodes=episodes, shift=shift, budget=budget, base=base, updates=updates)
  lines = [line(kind, variant, temperature, index, settings) for index in range(points) for variant in VARIANTS
           for temperature in (0.0, 1.0)]
  (directory / "evals.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
  (directory / "metrics.jsonl").write_text(json.dumps({
      "step": 300, "seconds": 9.0, "compute/train_flops": budget, "compute/total_flops": budget}) + "\n")
  (directory / "config.json").write_text(json.dumps({
      "verb": "sft" if kind == "sft" else "rl", "seed": base, "flops": budget, "env": {"name": "virl"}}))
  (directory / "progress.json").write_text(json.dumps({
      "phase": "complete" if finished else "train", "done": 1 if finished else 0.4}))
  return directory


def write_study(directory, arms=("sft", "ppo"), bases=5, skip=(), content=None, **options):
  """A study; arms: names that begin with sft or ppo, or {name: options of write_run}. skip: runs left out."""
  arms = arms if isinstance(arms, dict) else {arm: {} for arm in arms}
  directory.mkdir(parents=True, exist_ok=True)
  (directory / "study.json").write_text(json.dumps({
      "name": "V-IRL", "claim": "RL generalizes.", "bases": list(range(bases)), "seeds": [0],
      "methods": {arm: arm.upper().replace("_", " ") for arm in arms}, "flops": 2e12, "id": "id", "ood": "rule_ood",
      "measure": "per_step", **(content or {})}))
  for base in range(bases):
    for arm, own in arms.items():
      name = f"base-{base}-{arm}-0"
      if name not in skip:
        write_run(directory / "runs" / name, arm.partition("_")[0], base, **options | own)
  return directory
