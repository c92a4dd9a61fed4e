"""What every run does: it can be stopped anywhere and gone on with, and the files tell one story."""

import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sftrl_jax.metrics import Mean, Peak
from sftrl_jax.programs import run as runs
from sftrl_jax.programs.mistakes import ConfigError


def arrays_of(workdir, step):
  """Every number of a checkpoint."""
  path = (workdir / "checkpoints" / str(step) / "state").absolute()
  return jax.device_get(ocp.StandardCheckpointer().restore(path))


class Stopped(Exception):
  pass


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(finished, tiny, run_of, lines_of, tmp_path, monkeypatch, verb):
  workdir, after_step = tmp_path / "stopped", runs.after_step
  config = tiny(verb, checkpoint__every=1)

  def stop(parts, session, state, position, *rest):
    after = after_step(parts, session, state, position, *rest)
    if position.step == 1:
      after.store.wait_until_finished()
      (workdir / "metrics.jsonl").open("a").write('{"step": 2, "tok')   # a line of the future, torn
      raise Stopped
    return after

  monkeypatch.setattr(runs, "after_step", stop)
  with pytest.raises(Stopped):
    run_of(config, workdir)
  assert json.loads((workdir / "progress.json").read_text())["phase"] != "complete"
  monkeypatch.setattr(runs, "after_step", after_step)
  run_of(config, workdir)
  straight = finished(verb)
  jax.tree.map(np.testing.assert_array_equal, arrays_of(workdir, 2), arrays_of(straight, 2))
  assert [line["step"] for line in lines_of(workdir, "metrics.jsonl")] == [1, 2]
  evals = [(line["step"], line["variant"], line["temperature"]) for line in lines_of(workdir, "evals.jsonl")]
  assert len(evals) == len(set(evals))
  clocks = ("seconds", "timing_s", "compile/count")
  for name in ("metrics.jsonl", "evals.jsonl"):
    timeless = [[{k: v for k, v in line.items() if not k.startswith(clocks)} for line in lines_of(at, name)]
                for at in (workdir, straight)]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_a_finished_run_is_left_alone(finished, tiny, run_of, verb):
  workdir = finished(verb)
  state = lambda: {path: path.read_bytes() for path in sorted(workdir.rglob("*")) if path.is_file()}
  before = state()
  run_of(tiny(verb), workdir)
  assert state() == before


def test_another_config_is_refused_key_by_key(finished, tiny, run_of):
  workdir = finished("sft")
  before = (workdir / "config.json").read_text()
  with pytest.raises(ConfigError) as error:
    run_of(tiny("sft", optimizer__learning_rate=0.01, seed=3), workdir)
  assert "config.seed: 0 there, 3 now" in str(error.value) and "config.optimizer.learning_rate" in str(error.value)
  assert "config.batch" not in str(error.value) and (workdir / "config.json").read_text() == before
  with pytest.raises(ConfigError, match="a run of `sft`, not of `rl`"):
    run_of(tiny("rl"), workdir)


def test_metrics_of_several_updates_add_up_by_their_kind():
  metrics = [{"loss": Mean(np.float32(3.0 * n), np.float32(n)), "top": Peak(np.float32(n)), "nonfinite_steps": 1.0,
              "learning_rate": 0.5 * n} for n in (1, 3)]
  total = runs.add_up(metrics)
  assert (total["loss"].total, total["loss"].weight) == (12.0, 4.0)
  assert total["top"].top == 3 and total["nonfinite_steps"] == 2.0 and total["learning_rate"] == 1.0


def test_the_recorded_config_can_be_read_back(finished):
  assert runs.read_meta(finished("sft"))["verb"] == "sft"
