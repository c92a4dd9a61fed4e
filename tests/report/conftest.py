"""Synthetic studies: workdirs as runs write them, with a known truth."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

VARIANTS = ("id_seen", "id_unseen", "rule_ood")
PATHS = {
  ("sft", "id_seen"): (.33, .62, .82, .91, .95), ("ppo", "id_seen"): (.33, .45, .55, .62, .67),
  ("sft", "id_unseen"): (.33, .60, .78, .85, .88), ("ppo", "id_unseen"): (.33, .44, .54, .61, .66),
  ("sft", "rule_ood"): (.31, .31, .20, .10, .06), ("ppo", "rule_ood"): (.31, .34, .37, .39, .40),
}
FEEDBACK = {"correct": "OK", "value": "WRONG_VALUE", "misread": "WRONG_NUMBERS"}


def outcomes(random, rate, episodes, difficulty):
  """A digit an episode: right if its noisy difficulty is under the rate, two thirds of these at the first attempt."""
  right = difficulty + 0.15 * random.standard_normal(episodes) < np.quantile(difficulty, rate)
  attempt = 1 + (random.random(episodes) < .25) + (random.random(episodes) < .1)
  return "".join(str(int(a)) if r else "0" for r, a in zip(right, attempt, strict=True))


def evaluation(random, method, variant, temperature, point, episodes, shift, difficulty, flops):
  rate = float(np.clip(PATHS[method, variant][point] + shift - .02 * (temperature > 0), 0.01, .99))
  text = outcomes(random, rate, episodes, difficulty)
  right = sum(digit != "0" for digit in text)
  first = text.count("1")
  misread = int((episodes - first) * (0.8 * point / 4 if (method, variant) == ("sft", "rule_ood") else 0))
  codes = {"correct": first, "value": episodes - first - misread - 7, "numbers": 5, "misread": misread, "illegal": 2}
  line = {
    "step": point * 100,
    "variant": variant,
    "temperature": temperature,
    "seed": 5000,
    "attempts": 3,
    "episodes": episodes,
    "successes": right,
    "success": right / episodes,
    "ci95": [max(0, right / episodes - 0.03), min(1, right / episodes + 0.03)],
    "flops": flops,
    "seconds": 1.0,
    "first_success": first / episodes,
    "outcomes": text,
    "codes": codes,
    "response_length": 8.2,
  }
  if temperature:
    line["kl"] = point * (.11 if method == "sft" else .02) * (3 if variant == "rule_ood" and method == "sft" else 1)
  return line


def metric(random, method, step, last):
  line = {
    "step": step,
    "tokens": step * 800,
    "seconds": 0.2 * step,
    "grad_norm": 1 + random.random(),
    "learning_rate": 3e-4,
    "compute/train_flops": 2.4e12 * step / last * (1 if method == "sft" else 0.6),
    "nonfinite_steps": 0,
    "compile/count": 4,
    "compute/rollout_flops": 0 if method == "sft" else 0.48e12 * step / last,
    "compute/score_flops": 0,
    "compute/total_flops": 2.4e12 * step / last,
    "timing_s/update": 0.12,
    "timing_s/step": 0.2,
  }
  if method == "sft":
    return line | {
      "loss": 2 * 0.99**step + 0.1 * random.random(),
      "mean_token_accuracy": 1 - 0.5 * 0.99**step,
      "entropy": 0.3,
    }
  return line | {
    "objective/scores": step / last + 0.1 * random.random(),
    "policy/clipfrac_avg": 0.05,
    "policy/entropy_avg": 0.3,
    "policy/approxkl_avg": 0.01 * random.random(),
    "critic/vf_explained_var": 0.5,
    "timing_s/rollout": 0.05,
    "timing_s/verify": 0.01,
    "success": 0.4,
    "response_length/mean": 8.1,
  }


def episode(step, seed, code, success, text="NUMBERS 10 10 3 FORMULA ( 10 - 3 ) * 10"):
  chat = [{"role": "user", "text": "RULE 11 12 13 TARGET 24 CARDS cJ cQ c3"}, {"role": "assistant", "text": text},
          {"role": "user", "text": FEEDBACK.get(code, "ILLEGAL")}]
  return {"step": step, "kind": "eval", "variant": "rule_ood", "temperature": 0.0, "seed": seed, "chat": chat,
          "rewards": [1.0 if success else -.2], "codes": [code], "success": success}


def write_lines(path, lines):
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def config(method, base, seed, directory):
  shared = {
    "seed": seed,
    "start": str(directory / f"base-{base}"),
    "env": {"name": "general_points", "cards": 3, "faces": 10},
    "model": {"layers": 3, "width": 64},
    "flops": 2.4e12,
    "evals": {"episodes": 1024},
    "batch": 64,
    "optimizer": {"name": "adamw", "learning_rate": 3e-4},
  }
  own = {"verb": "sft"} if method == "sft" else {"verb": "rl", "algorithm": "ppo", "ppo": {"clip": .2, "epochs": 1}}
  return shared | own


def write_run(directory, method, base=0, seed=0, episodes=300, points=5, finished=True, spread=.03, flops_scale=1.0):
  """One run's workdir; `spread` is the standard deviation of the base's effect on the change of shifted success."""
  directory.mkdir(parents=True)
  random = np.random.default_rng((base, seed, method == "sft"))
  base_shift = spread * np.random.default_rng((77, base)).standard_normal()
  lines = []
  for variant in VARIANTS:
    difficulty = np.random.default_rng((5, VARIANTS.index(variant))).random(episodes)
    for temperature in (0.0, 1.0):
      for point in range(points):
        start_random = np.random.default_rng((base, VARIANTS.index(variant), int(temperature)))
        shift = base_shift * (point / 4 if variant == "rule_ood" else 1)
        lines.append(evaluation(random if point else start_random, method, variant, temperature, point, episodes, shift,
                                difficulty, flops_scale * 2.4e12 * point / 4))
  write_lines(directory / "evals.jsonl", sorted(lines, key=lambda line: line["step"]))
  write_lines(directory / "metrics.jsonl", [metric(random, method, step, 100 * (points - 1)) for step in
                                            range(1, 100 * (points - 1) + 1, 3)])
  write_lines(directory / "episodes.jsonl", [
    episode(0, 1, "value", False), episode(0, 2, "correct", True),
    episode(400, 1, "misread" if method == "sft" else "correct", method != "sft"),
    episode(400, 2, "misread" if method == "sft" else "correct", method != "sft")])
  (directory / "config.json").write_text(json.dumps(config(method, base, seed, directory.parent)))
  progress = {"phase": "complete" if finished else "train", "done": 1 if finished else 0.4}
  (directory / "progress.json").write_text(json.dumps(progress))
  return directory


def write_study(directory, bases=5, seeds=1, skip=(), **options):
  """A study of sft and ppo; `skip` names runs left out."""
  directory.mkdir(parents=True, exist_ok=True)
  content = {
    "name": "GeneralPoints on CPU",
    "claim": "SFT memorizes, RL generalizes: at equal compute RL keeps what SFT overwrites.",
    "bases": list(range(bases)),
    "seeds": list(range(seeds)),
    "methods": {"sft": "SFT", "ppo": "PPO"},
    "flops": 2.4e12,
    "id": "id_seen",
    "ood": "rule_ood",
    "disclosure": ["The learning rate was chosen after seeing base 0."],
    "command": "sftrl study --config=configs/study/general_points_cpu.py --workdir=runs/study",
    "hardware": "2 CPU cores",
  }
  (directory / "study.json").write_text(json.dumps(content))
  for base in range(bases):
    for method in ("sft", "ppo"):
      for seed in range(seeds):
        name = f"base-{base}-{method}-{seed}"
        if name not in skip:
          write_run(directory / "runs" / name, method, base, seed, **options)
  return directory


@pytest.fixture
def log_lines():
  """log_lines(directory, *lines) -> the run with these lines of metrics.jsonl at its end."""
  from sftrl_jax.report import read_workdir

  def append(directory, *lines):
    with open(directory / "metrics.jsonl", "a") as file:
      file.writelines(line + "\n" for line in lines)
    return read_workdir.read_run(directory)

  return append


@pytest.fixture
def make_run():
  return write_run


@pytest.fixture
def make_study():
  return write_study


@pytest.fixture(scope="session")
def whole_study(tmp_path_factory):
  """Five bases, two methods, nothing missing; not to be changed by a test."""
  return write_study(tmp_path_factory.mktemp("study"))


def _points():
  """tests/points_study.py, which no package holds."""
  path = pathlib.Path(__file__).parents[1] / "points_study.py"
  spec = importlib.util.spec_from_file_location("points_study", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture
def points():
  """points.write_run and points.write_study: workdirs of a task of many points."""
  return _points()


@pytest.fixture(scope="session")
def points_study(tmp_path_factory):
  """Five bases, SFT and PPO on a task of many points, with claims; not to be changed by a test."""
  claims = [{"method": "ppo", "sign": 1}, {"method": "sft", "sign": 1},
            {"method": "ppo", "variant": "id", "comparison": "", "least": 0.5},
            {"method": "sft", "variant": "id", "comparison": "", "least": 0.95},
            {"method": "ppo", "comparison": "sft", "measure": "success", "least": 0.6},
            {"method": "ppo", "temperature": 0.5, "sign": 1, "text": "At a temperature nobody played."}]
  return _points().write_study(tmp_path_factory.mktemp("points"), content={"claims": claims})


@pytest.fixture(scope="session")
def arms_study(tmp_path_factory):
  """Three bases, eight arms: two with budgets of their own, one from other bases, one unfinished, one not begun."""
  points = _points()
  arms = {"sft": {}, "sft_equal": {"updates": 0.1}, "sft_early": {"budget": 2e11}, "ppo": {},
          "ppo_half": {"budget": 1e12}, "ppo_clean": {"harm": -0.5}, "ppo_late": {"finished": False, "points": 3},
          "ppo_never": {}}
  return points.write_study(
      tmp_path_factory.mktemp("arms"), arms, 3, skip=[f"base-{base}-ppo_never-0" for base in range(3)],
      content={"notes": {arm: f"Why there is {arm}." for arm in arms}, "bases_of": {"ppo_clean": "ppo_clean"},
               "budgets": {"sft_early": {"flops": 2e11}, "ppo_half": {"flops": 1e12}},
               "claims": [{"method": "ppo_half", "comparison": "sft_early", "sign": 1}]})
