"""A run that ends writes what it has changed in the weights of its start, and is the same run as without."""

import json

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sftrl_jax import trees
from sftrl_jax.models import weight_change
from sftrl_jax.programs.experiment import saved_run
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.loop import weights_file
from sftrl_jax.programs.start import initial_params


def both_ends(home):
  """(experiment, start, end) of a run, read back."""
  experiment = build_experiment(saved_run.config_of(home, []), saved_run.verb_of(home), home)
  end = saved_run.parameters(experiment, saved_run.parse(str(home)))[0]
  return experiment, weights_file.load_start(experiment, home), end


def measured(start, end):
  """(whole distance, share of numbers that moved) of two trees, by numpy on all numbers at once."""
  flat = [np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])
          for tree in (start, end)]
  apart = np.abs(flat[1] - flat[0])
  return np.linalg.norm(apart), (apart > 1e-3 * np.maximum(*np.abs(flat))).mean()


@pytest.mark.parametrize("method", ["sft", "lora"])
def test_a_run_ends_with_what_it_changed(finished, tiny, run_of, tmp_path, method):
  """Of adapters, the model that they are merged into. The run does not hold its start, which is loaded again."""
  run_of(tiny(method, start=finished("sft"), evals__variants="()"), tmp_path)
  content = json.loads((tmp_path / "weights.json").read_text())
  _, start, end = both_ends(tmp_path)
  rows, sizes = content["rows"], {path: leaf.size for path, leaf in trees.leaves(end).items()}
  assert content["step"] == 2 and content["start"] == str(finished("sft"))
  distance, moved = measured(start, end)
  assert distance > 0 and np.sqrt(sum(row["distance"] ** 2 for row in rows)) == pytest.approx(distance)
  assert sum(row["moved"] for row in rows) / sum(sizes.values()) == pytest.approx(moved)
  assert {row["path"]: sum(each["numbers"] for each in rows if each["path"] == row["path"]) for row in rows} == sizes
  embed = next(row for row in rows if row["path"] == "embed")
  assert (embed["distance"] == 0) == (method == "lora")   # which adapts the projections alone
  q = next(row for row in rows if row["path"] == "layers/block/attn/q/kernel")
  assert min(q["left"], q["right"], q["spectrum"]) > 0 and q["part"] == "attention"


def test_a_random_start_and_a_large_model_are_not_compared(finished, tiny, tmp_path, monkeypatch):
  assert not (finished("sft") / "weights.json").exists()
  experiment = build_experiment(tiny("sft", start=finished("sft")), "sft", tmp_path)
  assert weights_file.is_compared(experiment)
  monkeypatch.setattr(weights_file, "MOST_NUMBERS", 100)
  assert not weights_file.is_compared(experiment)


def test_a_start_that_is_gone_does_not_end_the_run_and_one_that_is_held_is_not_loaded(finished, tiny, tmp_path):
  experiment, sayings = build_experiment(tiny("sft", start=finished("sft")), "sft", tmp_path), []
  experiment.config["start"] = str(tmp_path / "gone")
  weights_file.write_at_end(experiment, tmp_path, 2, {}, {}, sayings.append, lambda: None)
  assert "not compared with the start" in sayings[0] and not (tmp_path / "weights.json").exists()
  held = {"embed": np.ones((2, 3), np.float32)}
  weights_file.write_at_end(experiment, tmp_path, 2, held, held, sayings.append, lambda: None)
  assert json.loads((tmp_path / "weights.json").read_text())["rows"][0]["distance"] == 0 and len(sayings) == 1


def test_parameters_that_are_split_over_devices_give_the_same_rows(finished, tiny, tmp_path):
  experiment = build_experiment(tiny("sft", start=finished("sft")), "sft", tmp_path)
  start = initial_params.load_start(str(finished("sft")), experiment.model, 0, experiment.mesh)
  end = jax.tree.map(lambda leaf: leaf * 1.5 + 0.01, start)
  whole = weights_file.write(experiment, tmp_path / "whole.json", 1, start, end)
  mesh = Mesh(np.array(jax.devices()[:2]), ("x",))
  split = lambda leaf: jax.device_put(np.asarray(leaf), NamedSharding(
      mesh, PartitionSpec(*([None] * (leaf.ndim - 1)), "x")))
  assert weights_file.write(experiment, tmp_path / "split.json", 1, start, jax.tree.map(split, end)) == whole
  content = json.loads((tmp_path / "split.json").read_text())
  assert content["rows"] == whole and content["moved"] == weight_change.MOVED
