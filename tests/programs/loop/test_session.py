"""What every run does: it can be stopped anywhere and gone on with, and the files tell one story."""

import json
import math
import pathlib
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sftrl_jax import paths
from sftrl_jax.checkpoints import hf
from sftrl_jax.metrics import Mean, Peak
from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import build as experiment_build, run_config
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.loop import run_state, session as session_loop
from sftrl_jax.programs.runtime.shutdown import Stop
from sftrl_jax.programs.start import initial_params


def arrays_of(workdir, step):
  """Every number of a checkpoint."""
  path = paths.absolute(workdir / "checkpoints" / str(step) / "state")
  return jax.device_get(ocp.StandardCheckpointer().restore(path))


class Stopped(Exception): ...


def timeless(lines):
  """Lines without what depends on the clock."""
  clocks = ("seconds", "timing_s", "throughput", "memory", "compute/chip_hours", "compile/count")
  return [{key: value for key, value in line.items() if not key.startswith(clocks)} for line in lines]


def assert_equal_runs(one, other, lines_of, step):
  """Bit for bit: every array of the checkpoint, every line of every file, each step once."""
  jax.tree.map(np.testing.assert_array_equal, arrays_of(one, step), arrays_of(other, step))
  for name in ("metrics.jsonl", "evals.jsonl", "episodes.jsonl"):
    assert timeless(lines_of(one, name)) == timeless(lines_of(other, name))


@pytest.fixture
def stop_after(monkeypatch):
  """stop_after(step, do): the run breaks off after that step is written down, when do(session) is done."""
  real = session_loop.after_step

  def arrange(step, do):
    def after_step(experiment, run_state, state, done, *rest):
      after = real(experiment, run_state, state, done, *rest)
      if done.position.step == step:
        after.store.wait_until_finished()
        do(after)
        raise Stopped
      return after
    monkeypatch.setattr(session_loop, "after_step", after_step)

  yield arrange
  monkeypatch.setattr(session_loop, "after_step", real)


@pytest.mark.parametrize("verb", ["sft", "rl", "lora", "grpo", "rl_guarded"])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(finished, tiny, run_of, lines_of, tmp_path, stop_after, verb):
  config = tiny(verb, checkpoint__every=1)
  torn = '{"step": 2, "tok'   # a line of the future
  stop_after(1, lambda session: (session.workdir / "metrics.jsonl").open("a").write(torn))
  with pytest.raises(Stopped):
    run_of(config, tmp_path)
  assert json.loads((tmp_path / "progress.json").read_text())["phase"] != "complete"
  stop_after(-1, None)
  run_of(config, tmp_path)
  steps = [line["step"] for line in lines_of(finished(verb), "metrics.jsonl")]
  assert_equal_runs(tmp_path, finished(verb), lines_of, steps[-1])
  assert [line["step"] for line in lines_of(tmp_path, "metrics.jsonl")] == steps


def test_metrics_between_two_lines_and_averaged_parameters_survive_a_stop(tiny, run_of, lines_of, tmp_path, stop_after):
  config = tiny("lora", steps=3, log__every=2, checkpoint__every=1, evals__variants="()")   # by schedule_free_adamw
  run_of(config, tmp_path / "straight")
  stop_after(1, lambda session: None)   # step 1 is in no line yet
  with pytest.raises(Stopped):
    run_of(config, tmp_path / "stopped")
  stop_after(-1, None)
  run_of(config, tmp_path / "stopped")
  jax.tree.map(np.testing.assert_array_equal, *(arrays_of(tmp_path / name, 3) for name in ("straight", "stopped")))
  straight, stopped = (timeless(lines_of(tmp_path / name, "metrics.jsonl")) for name in ("straight", "stopped"))
  assert straight == stopped and [line["step"] for line in straight] == [2, 3]


def test_settling_late_changes_nothing_but_the_clock(tiny, run_of, lines_of, tmp_path, monkeypatch):
  """Metrics that are fetched while the next step is computed stand in the same lines, between evaluations and saves."""
  config = tiny("sft", steps=7, log__every=2, checkpoint__every=3, evals__at="(0.6,)")
  late = []
  real = session_loop.settles_late
  monkeypatch.setattr(session_loop, "settles_late", lambda *given: late.append(real(*given)) or late[-1])
  run_of(config, tmp_path / "late")
  assert late[0] is False and all(late[1:])
  monkeypatch.setattr(session_loop, "settles_late", lambda *given: False)
  run_of(config, tmp_path / "at_once")
  assert_equal_runs(tmp_path / "late", tmp_path / "at_once", lines_of, 7)
  lines = lines_of(tmp_path / "late", "metrics.jsonl")
  assert [line["step"] for line in lines] == [2, 4, 6, 7]
  assert 0 < lines[0]["seconds"] <= lines[1]["seconds"] <= lines[2]["seconds"] <= lines[3]["seconds"]


def test_updates_that_are_not_finite_are_counted_in_order_when_steps_settle_late(tiny, run_of, tmp_path, monkeypatch):
  """The run ends when so many updates in a row were skipped, and says which step was the last good one."""
  config = tiny("sft", steps=12, max_nonfinite=3, optimizer__learning_rate=1e30, optimizer__clip=0.0,
                evals__variants="()")
  with pytest.raises(RuntimeError, match=r"in each of the last 3 steps .* the last good step is \d"):
    run_of(config, tmp_path)


@pytest.mark.parametrize("verb, flops, steps", [("sft", 4e7, 4), ("rl", 4.5e7, 3)])
def test_a_rate_goes_down_with_the_budget_and_a_run_that_was_stopped_has_the_same(tiny, run_of, lines_of, tmp_path,
                                                                                 stop_after, verb, flops, steps):
  config = tiny(verb, steps=1000, flops=flops, schedule__name="linear", schedule__warmup=0, evals__variants="()",
                checkpoint__every=1)
  run_of(config, tmp_path / "straight")
  stop_after(1, lambda session: None)
  with pytest.raises(Stopped):
    run_of(config, tmp_path / "stopped")
  stop_after(-1, None)
  run_of(config, tmp_path / "stopped")
  lines = lines_of(tmp_path / "straight", "metrics.jsonl")
  spent = [0.0, *(line["compute/total_flops"] / flops for line in lines[:-1])]
  assert len(lines) == steps
  if verb == "rl":
    assert [line["learning_rate"] / 3e-4 for line in lines] == pytest.approx([1 - share for share in spent], rel=1e-5)
  else:
    assert [line["learning_rate"] / 3e-4 for line in lines] == pytest.approx([1 - n / steps for n in range(steps)])
  assert_equal_runs(tmp_path / "straight", tmp_path / "stopped", lines_of, steps)


def test_a_longer_run_says_what_its_rate_does_and_which_key_keeps_the_old_one(tiny, run_of, lines_of, tmp_path, capsys):
  keys = dict(evals__variants="()", schedule__name="cosine", schedule__warmup=0, schedule__end=0.1)
  run_of(tiny("sft", steps=4, **keys), tmp_path / "4")
  shutil.copytree(tmp_path / "4", tmp_path / "kept")
  capsys.readouterr()
  run_of(tiny("sft", steps=8, **keys), tmp_path / "4")
  assert ("The schedule now spans 8 updates: the learning rate goes from 7e-05 back up to 0.00016; "
          "--config.schedule.updates=4 keeps the old one.") in capsys.readouterr().out
  run_of(tiny("sft", steps=8, schedule__updates=4, **keys), tmp_path / "kept")
  assert "schedule" not in capsys.readouterr().out
  rates = [line["learning_rate"] / 3e-4 for line in lines_of(tmp_path / "kept", "metrics.jsonl")]
  assert rates[3:] == pytest.approx([0.1 + 0.45 * (1 + math.cos(math.pi * 3 / 4)), 0.1, 0.1, 0.1, 0.1])


def test_an_evaluation_that_was_dropped_is_made_again(finished, tiny, run_of, lines_of, tmp_path, monkeypatch):
  kept, real = [], session_loop.evaluate
  monkeypatch.setattr(Stop, "set_savepoint", lambda self, save, between=False: kept.append(save))

  def evaluate(experiment, weights, position, *rest, **more):
    lines = real(experiment, weights, position, *rest, **more)
    if position.step == 1:
      kept[-1]()   # what the thread that heard SIGTERM does
      raise Stopped
    return lines

  monkeypatch.setattr(session_loop, "evaluate", evaluate)
  with pytest.raises(Stopped):
    run_of(tiny("sft"), tmp_path)
  path = tmp_path / "evals.jsonl"
  path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))   # not all variants were written
  monkeypatch.setattr(session_loop, "evaluate", real)
  run_of(tiny("sft"), tmp_path)
  assert_equal_runs(tmp_path, finished("sft"), lines_of, 2)


@pytest.fixture(scope="module")
def of_every_step(tiny, run_of, tmp_path_factory):
  """(config, workdir) of finished("sft") with a checkpoint after each step."""
  config, home = tiny("sft", checkpoint__every=1, checkpoint__keep=2), tmp_path_factory.mktemp("every")
  run_of(config, home)
  return config, home


@pytest.mark.parametrize("lost", ["damaged", "gone"])
def test_a_newest_step_that_is_lost_is_trained_again(finished, of_every_step, run_of, lines_of, tmp_path, capsys, lost):
  config, home = of_every_step
  shutil.copytree(home, tmp_path, dirs_exist_ok=True)
  newest = tmp_path / "checkpoints" / "2"
  if lost == "gone":   # of a complete run
    shutil.rmtree(newest)
  else:
    for path in newest.glob("state/ocdbt.process_*/d/*"):   # arrays, and indexes that only a merge reads
      content = bytearray(path.read_bytes())
      content[len(content) // 2] ^= 1
      path.write_bytes(content)
    (tmp_path / "progress.json").unlink()
  run_of(config, tmp_path)
  assert "going on from step 1" in capsys.readouterr().out
  assert (tmp_path / "checkpoints" / "2.corrupt").is_dir() == (lost == "damaged")
  assert_equal_runs(tmp_path, finished("sft"), lines_of, 2)


def test_a_run_that_is_no_longer_finite_stops_and_names_its_last_good_step(tiny, run_of, lines_of, tmp_path):
  config = tiny("sft", steps=9, max_nonfinite=3, checkpoint__every=1, evals__variants="()",
                optimizer__learning_rate=1e30, optimizer__clip=0.0, schedule__warmup=0)
  with pytest.raises(RuntimeError, match=r"last 3 steps .*the last good step is 1\. .*config.start=\S+@3 "):
    run_of(config, tmp_path)
  lines = lines_of(tmp_path, "metrics.jsonl")
  assert [line["nonfinite_steps"] for line in lines] == [0, 1, 1, 1]
  assert [line.get("alarm/nonfinite") for line in lines] == [None, 1, 1, 1]


def test_an_update_that_is_not_finite_is_skipped_and_the_advice_names_the_arguments(tiny, run_of, lines_of, tmp_path):
  """0 / 0 in an optimizer without epsilon: the words that a batch does not have have no gradient."""
  config = tiny("sft", steps=9, max_nonfinite=2, checkpoint__every=1, evals__variants="()", optimizer__args__eps=0.0)
  with pytest.raises(RuntimeError, match=r"last good step is 0\. .*gradient is finite, so .* config.optimizer.args"):
    run_of(config, tmp_path)
  lines = lines_of(tmp_path, "metrics.jsonl")
  assert [(line["nonfinite_steps"], line["loss"] < 5) for line in lines] == [(1, True)] * 2


def test_a_run_in_a_bucket_writes_what_one_on_this_machine_does(finished, afar, lines_of):
  home, moments = afar
  assert_equal_runs(home, finished("sft"), lines_of, 2)
  names = sorted(name.removeprefix("afar/") for name in moments[-1] if "/checkpoints/" not in name)
  assert [name for name in names if not name.startswith("tensorboard/")] == [
      "config.json", "episodes.00001.jsonl", "episodes.00002.jsonl", "evals.00001.jsonl", "evals.00002.jsonl",
      "labels.json", "metrics.00001.jsonl", "metrics.00002.jsonl", "progress.json"]
  assert len([name for name in names if name.startswith("tensorboard/")]) == 2
  files = [tuple(name for name in moment if name.endswith(".jsonl")) for moment in moments]
  assert len(set(files)) == 7   # each is written once
  for step in (1, 2):   # lines are safe before the checkpoint is complete
    complete = [f"afar/checkpoints/{step}/{paths.COMMIT}" in moment for moment in moments]
    assert len(files[complete.index(True)]) >= 3 * step


@pytest.mark.parametrize("last", ["checkpoints/1/", "checkpoints/2/"])
def test_a_fresh_machine_goes_on_from_a_bucket_with_no_line_lost_or_doubled(finished, afar, back_to, tiny, run_of,
                                                                            lines_of, last, capsys):
  """The old one is gone when all parts of a step are written, and not all of its checkpoint is."""
  home, moments = afar
  moment = [moment for moment in moments if f"afar/{last}{paths.COMMIT}" not in moment][-1]
  back_to(moment)
  assert len(lines_of(home, "metrics.jsonl")) >= int(last[-2])
  run_of(tiny("sft", checkpoint__every=1, log__writers="tensorboard"), home)
  assert ("going on from step 1" in capsys.readouterr().out) == (last == "checkpoints/2/")
  assert_equal_runs(home, finished("sft"), lines_of, 2)


def test_a_run_killed_before_its_first_checkpoint_leaves_no_point_twice(tiny, run_of, tmp_path):
  config = tiny("sft", evals__variants="()", log__writers="tensorboard")
  run_of(config, tmp_path)
  shutil.rmtree(tmp_path / "checkpoints")
  (tmp_path / "progress.json").unlink()
  run_of(config, tmp_path)
  (events,) = (tmp_path / "tensorboard").iterdir()
  assert events.read_bytes().count(b"grad_norm") == 2


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_a_finished_run_is_left_alone(finished, tiny, run_of, tmp_path, verb):
  workdir = shutil.copytree(finished(verb), tmp_path / "copy")   # other processes read the run itself
  state = lambda: {path: path.read_bytes() for path in sorted(workdir.rglob("*"))
                   if path.is_file() and path.name != "lock"}   # which names the process that was there last
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
  total = run_state.add_up(metrics)
  assert (total["loss"].total, total["loss"].weight) == (12.0, 4.0)
  assert total["top"].top == 3 and total["nonfinite_steps"] == 2.0 and total["learning_rate"] == 1.0


CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "general_points" / "sft.py"
CHANGES = {
    "model.name": "pretrained", "steps": "2", "flops": "0", "batch": "16", "evals.variants": "()", "log.every": "1",
    "log.writers": "()", "mesh.cpu_threads": "0", "checkpoint.export_every": "1", "lora.rank": "2",
    "optimizer.learning_rate": "0.03", "compute.microbatches": "1"}


@pytest.fixture(scope="module")
def exported(tiny, run_of, tmp_path_factory):
  """(config, workdir) of a finished run of adapters on a tiny model from a Hugging Face directory."""
  folder = tmp_path_factory.mktemp("exports")
  words = build_experiment(tiny("sft"), "sft").tokenizer.size
  born = DecoderConfig(vocab=words, width=16, layers=2, heads=2, kv_heads=1, mlp_dim=24)
  hf.save(folder / "source", born, jax.device_get(jax.jit(build(born).init)(jax.random.key(0))))
  config = run_config.resolve_for("sft", resolve.load(str(CONFIG)), [
      *CHANGES.items(), ("start", str(folder / "source"))], lambda _: None)
  run_of(config, folder / "run")
  return config, folder / "run"


def test_every_export_is_the_model_of_its_step_with_its_adapters_merged(exported):
  config, home = exported
  assert sorted(path.name for path in (home / "exports").iterdir()) == ["1", "2"]
  experiment = build_experiment(config, "sft", home)
  begun, eval_params = (initial_params.load_start(start, experiment.model, 0, experiment.mesh)
                        for start in (config.start, str(home)))
  first, last = (hf.load(home / "exports" / step) for step in "12")
  assert last.config == experiment.model.config
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), last.params, eval_params)
  moved = lambda a, b: [bool(np.any(x != y)) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)]
  assert any(moved(first.params, begun)) and any(moved(first.params, last.params))
  np.testing.assert_array_equal(last.params["embed"], begun["embed"])


def test_an_export_that_was_lost_is_made_when_the_run_goes_on(exported, run_of, tmp_path):
  config, home = exported
  again = shutil.copytree(home, tmp_path / "again")
  shutil.rmtree(again / "exports" / "2")
  (again / "progress.json").unlink()
  run_of(config, again)
  read = lambda home: (home / "exports" / "2" / "model.safetensors").read_bytes()
  assert read(again) == read(home)


def test_a_run_in_a_bucket_leaves_the_same_there(exported, run_of, bucket):
  config, home = exported
  there = paths.as_path("gs://bucket/exported/run")
  run_of(config, there)
  for name in ("exports/1/model.safetensors", "exports/2/model.safetensors", "exports/2/config.json",
               "pretrained/config.json", "base.json"):
    assert (there / name).read_bytes() == (home / name).read_bytes(), name
  experiment = build_experiment(config, "sft", there)
  begun, eval_params = (initial_params.load_start(start, experiment.model, 0, experiment.mesh)
                        for start in (str(there), str(home)))
  jax.tree.map(np.testing.assert_array_equal, begun, eval_params)


def test_only_pretrained_models_are_exported():
  experiment_build._check_export({"checkpoint": {"export_every": 0}, "model": {"name": "decoder"}})
  experiment_build._check_export({"checkpoint": {"export_every": 9}, "model": {"name": "pretrained"}})
  with pytest.raises(ConfigError, match="export_every is 9, but config.model.name is 'decoder'.*model.name=pretrained"):
    experiment_build._check_export({"checkpoint": {"export_every": 9}, "model": {"name": "decoder"}})
