"""A whole supervised run in small."""

import json
import math

from sftrl_jax.checkpoints import store as stores

CONTRACT = {"step", "tokens", "seconds", "compute/train_flops", "compute/rollout_flops", "compute/score_flops",
            "compute/total_flops", "loss", "grad_norm", "learning_rate", "mean_token_accuracy", "entropy",
            "nonfinite_steps", "compile/count", "timing_s/step", "throughput/tokens_per_second", "compute/chip_hours"}


def test_every_step_is_written_with_the_keys_of_the_contract(finished, lines_of):
  lines = lines_of(finished("sft"), "metrics.jsonl")
  assert [line["step"] for line in lines] == [1, 2]
  for line in lines:
    assert line.keys() >= CONTRACT and all(math.isfinite(value) for value in line.values())
    assert line["compute/total_flops"] == line["compute/train_flops"] > 0
    assert 0 < line["tokens"] <= line["step"] * 16 * 24 and not line["nonfinite_steps"]
  assert lines[0]["tokens"] < lines[1]["tokens"]
  assert lines[0]["compile/count"] == lines[1]["compile/count"]
  assert abs(lines[0]["loss"] - math.log(62)) < 0.7   # a newborn model knows next to nothing


def test_the_start_and_the_end_are_evaluated_and_the_run_is_complete(finished, lines_of):
  workdir = finished("sft")
  evals = lines_of(workdir, "evals.jsonl")
  steps = sorted({line["step"] for line in evals})
  assert steps[0] == 0 and steps[-1] == 2
  told = json.loads((workdir / "progress.json").read_text())
  assert told["phase"] == "complete" and told["done"] == 1.0
  config = json.loads((workdir / "config.json").read_text())
  assert config["verb"] == "sft" and config["model"]["width"] == 16 and config["seed"] == 0
  store = stores.manager(workdir)
  assert list(store.all_steps()) == [2]
  store.close()
