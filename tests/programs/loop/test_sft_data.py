"""Training on rows of one's own: told before the first step, gone on with exactly, refused if the file has changed."""

import functools
import json
import pathlib
import types

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sftrl_jax.main import main
from sftrl_jax.objectives.sft import sft_loss
from sftrl_jax.parallel import rules
from sftrl_jax.programs import sft
from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.loop import session as session_loop, sft_data
from sftrl_jax.programs.loop.sft_data import make_measure
from sftrl_jax.programs.runtime.shutdown import Stop
from sftrl_jax.training.score import make_score

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "sft" / "chat.py"
SMALL = {"batch": "4", "data.length": "160", "steps": "4", "checkpoint.every": "2", "log.writers": "()",
         "mesh.cpu_threads": "0", "model.layers": "1", "model.remat": "none", "compute.microbatches": "1",
         "evals.at": "(0.5,)"}


@pytest.fixture
def config(one_device, tmp_path):
  """config(**overrides) -> the little chats on a tiny decoder that reads bytes; __ is a dot. The file is a copy."""
  path = tmp_path / "chats.jsonl"
  path.write_bytes(CONFIG.with_name("chat_sample.jsonl").read_bytes())

  def make(**overrides):
    changed = {**SMALL, "data.path": str(path), **{key.replace("__", "."): str(value)
                                                   for key, value in overrides.items()}}
    return run_config.resolve_for("sft", resolve.load(f"{CONFIG}:smoke"), list(changed.items()), lambda _: None)
  make.path = path
  return make


class Stopped(Exception):
  pass


def story(lines_of, workdir):
  """The lines of metrics.jsonl without what depends on the clock."""
  clocks = ("seconds", "timing_s", "throughput", "memory", "compute/chip_hours", "compile/count")
  return [{key: value for key, value in line.items() if not key.startswith(clocks)}
          for line in lines_of(workdir, "metrics.jsonl")]


def arrays_of(workdir, step):
  path = (workdir / "checkpoints" / str(step) / "state").absolute()
  return jax.device_get(ocp.StandardCheckpointer().restore(path))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  """The workdir and output of a run with held-out rows that nobody stopped, trained by the first test that asks."""
  return {"workdir": tmp_path_factory.mktemp("straight") / "run", "told": ""}


def trained(straight, config, capsys):
  if not straight["told"]:
    sft.run(config(data__validation=0.2, log__every=2), straight["workdir"])
    straight["told"] = capsys.readouterr().out
  return straight["workdir"], straight["told"]


def test_a_run_tells_what_it_read_and_measures_what_it_held_out(straight, config, lines_of, capsys):
  workdir, told = trained(straight, config, capsys)
  assert "32 read, 32 kept, 0 dropped (0.0%)" in told and "6 examples, for eval/loss" in told
  assert told.index("32 read") < told.index("programs compiled")
  lines = lines_of(workdir, "metrics.jsonl")
  assert [line["step"] for line in lines] == [0, 2, 4]
  assert all(0 < line["eval/loss"] < 10 and 0 <= line["eval/mean_token_accuracy"] <= 1 for line in lines)
  assert lines[-1]["eval/loss"] < lines[0]["eval/loss"] and "loss" not in lines[0]
  assert len({line["compile/count"] for line in lines}) == 1   # nothing is compiled once it trains
  record = json.loads((workdir / "data.json").read_text())
  assert (record["read"], record["format"], record["packed"]["held"]) == (32, "messages", 6)
  assert "[[100 degrees" in record["example"]


def test_a_run_that_was_stopped_goes_on_bit_for_bit(straight, config, lines_of, tmp_path, capsys, monkeypatch):
  """Once in an evaluation, once between two steps, in the middle of a pass: the same rows follow in the same order, and
  every line is there once."""
  workdir, _ = trained(straight, config, capsys)
  settled = config(data__validation=0.2, log__every=2, checkpoint__every=1)
  step, evaluation, kept, save, stops = session_loop.after_step, session_loop._evaluate, Stop.set_savepoint, {}, [2, 3]

  def keeping(stop, what, between=False):
    save["now"] = what
    kept(stop, what, between)

  def dropping(experiment, session, log, stop):
    session = evaluation(experiment, session, log, stop)   # its line is written, but the state saved is that of before
    if session.position.step == 2 == stops[0]:
      save["now"]()
      raise Stopped
    return session

  def stopping(experiment, run_state, state, done, *rest):
    run_state = step(experiment, run_state, state, done, *rest)
    if done.position.step == 3 == stops[0]:
      run_state.store.wait_until_finished()
      raise Stopped
    return run_state

  monkeypatch.setattr(Stop, "set_savepoint", keeping)
  monkeypatch.setattr(session_loop, "_evaluate", dropping)
  monkeypatch.setattr(session_loop, "after_step", stopping)
  for _ in (2, 3):
    with pytest.raises(Stopped):
      sft.run(settled, tmp_path / "stopped")
    stops.pop(0)
  monkeypatch.undo()
  sft.run(settled, tmp_path / "stopped")
  assert story(lines_of, tmp_path / "stopped") == story(lines_of, workdir)
  jax.tree.map(np.testing.assert_array_equal, arrays_of(tmp_path / "stopped", 4), arrays_of(workdir, 4))


def test_changed_data_are_refused_and_nothing_is_touched(config, tmp_path):
  workdir = tmp_path / "run"
  sft.run(config(steps=1), workdir)
  before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
  rows = config.path.read_text().splitlines()
  config.path.write_text("\n".join(rows[1:]))
  with pytest.raises(ConfigError, match="begun with other data: .* gave 32 examples then .* 31 now"):
    sft.run(config(), workdir)
  config.path.write_text("\n".join([rows[1], rows[0], *rows[2:]]))   # another order is other data
  with pytest.raises(ConfigError, match="begun with other data"):
    sft.run(config(), workdir)
  assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before
  config.path.write_text("\n".join(rows))
  (workdir / sft_data.RECORD).write_text("{")
  with pytest.raises(ConfigError, match="data.json is damaged"):
    sft.run(config(), workdir)


def test_demonstrations_follow_from_the_config_and_are_not_recorded(tiny):
  made = sft_data.make_sft_data(build_experiment(tiny("sft"), "sft"))
  assert made.record == {} and made.held is None and made.summary == ""
  batch, cursor = made.batches(3)
  assert batch.targets_BT.shape == (16, 23) and cursor > 3


BAD = {
    "empty": (b"", "has no rows: it is empty"),
    "bad UTF-8": (b'{"text": "ok"}\n{"text": "\xff"}\n', "rows.jsonl, row 2: byte 11 of the line (0xff) is no UTF-8"),
    "no answer": (b'{"messages": [{"role": "user", "content": "q"}]}', "row 1, column messages: has no message of"),
    "unknown columns": (b'{"question": "q"}', "row 1: has the columns 'question', but needs `messages`"),
    "nested": (b'{"messages": [{"role": "assistant", "content": [1]}]}', "column messages[0].content[0]: is a number"),
    "unknown role": (b'{"messages": [{"role": "bot", "content": "a"}]}', "column messages[0].role: is 'bot'"),
    "NUL": (b'{"text": "a\0"}', "row 1: byte 12 of the line is NUL"),
    "an escaped NUL": (b'{"text": "a\\u0000"}', "row 1, column text: has a NUL at character 2"),
    "50 MB": (b'{"text": "' + b"x" * 50_000_000 + b'"}', "row 1: the line has 50,000,012 bytes"),
    "an array": (b'[{"text": "a"}]', "row 1: begins with '['"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_error_and_nothing_is_written(case, config, tmp_path, capsys, monkeypatch):
  written, told = BAD[case]
  (tmp_path / "rows.jsonl").write_bytes(written)
  monkeypatch.chdir(tmp_path)
  before = sorted(tmp_path.rglob("*"))
  overrides = [f"--config.{key}={value}" for key, value in SMALL.items()]
  assert main(["sft", f"--config={CONFIG}:smoke", "--workdir=run", "--config.data.path=rows.jsonl", *overrides]) == 1
  said = capsys.readouterr()
  assert said.err.startswith("error: ") and said.err.count("error: ") == 1 and told in said.err, said.err
  assert "debug" not in said.err and sorted(tmp_path.rglob("*")) == before


def test_a_pass_over_rows_apart_and_the_batches_of_a_supply(config):
  experiment = build_experiment(config(data__pack=False, data__shuffle=False), "sft")
  made = sft_data.make_sft_data(experiment)
  batch, cursor = made.batches(0)
  assert cursor == 4 and set(np.asarray(batch.inputs.segments_BT).max(axis=1)) == {1}
  first, _ = made.corpus.example(0)
  assert batch.inputs.tokens_BT[0][: len(first) - 1].tolist() == first[:-1].tolist()
  assert jax.tree.all(jax.tree.map(np.array_equal, batch, made.batches(0)[0]))


def test_nothing_to_play_and_nothing_to_read_is_told(config, capsys):
  for overrides, told in ((dict(data__path=""), "or give rows of your own with --config.data.path=FILE"),
                          (dict(evals__variants="('id_seen',)"), "config.evals.variants names 'id_seen'")):
    with pytest.raises(ConfigError, match=told):
      build_experiment(config(**overrides), "sft")


def test_a_path_turns_any_config_into_one_of_rows(config, monkeypatch, tmp_path):
  """Demonstrations go with their settings, but for those that rows have too, and the note says both; the path is the
  same from any directory."""
  monkeypatch.chdir(tmp_path)
  notes = []
  task = resolve.load(str(CONFIG.parents[1] / "general_points" / "sft.py"))
  own = run_config.resolve_for("sft", task, [("data.length", "99"), ("data.path", "chats.jsonl")], notes.append)
  assert own.data.path == str(config.path) and own.data.length == 99 and own.data.pack and "attempts" not in own.data
  assert notes == ["data.path: Demonstrations -> chats.jsonl; kept: length=23"]
  task.data.attempts = (1.0,)
  longer = run_config.resolve_for("sft", {**task, "data": {**task.data, "length": 256}}, [("data.path", "chats.jsonl")],
                                  notes.append)
  assert longer.data.length == 256 and notes[1].endswith("chats.jsonl; kept: length=256; dropped: attempts")
  del task.data["length"]   # what the file does not set is the default of rows
  assert run_config.resolve_for("sft", task, [("data.path", "chats.jsonl")], notes.append).data.length == 1024
  task.data.length = 23
  shown = run_config.resolve_for("sft", task, [], notes.append)
  assert shown.data.path == "" and shown.data.length == 23 and "pack" not in shown.data
  hub = run_config.resolve_for("sft", task, [("data.path", "owner/name"), ("data.split", "test")], notes.append)
  assert (hub.data.path, hub.data.split) == ("owner/name", "test")
  with pytest.raises(ConfigError, match="config.data.pack is not a key of config.data. Valid: path, length, points"):
    run_config.resolve_for("sft", task, [("data.pack", "false")], notes.append)


def test_it_can_be_checked_before_it_is_run(config, monkeypatch, capsys, tmp_path):
  monkeypatch.chdir(tmp_path)
  words = [f"--config.{key}={value}" for key, value in SMALL.items()]
  before = sorted(tmp_path.rglob("*"))
  assert main(["check", f"--config={CONFIG}:smoke", f"--config.data.path={config.path}", *words]) == 0
  said = capsys.readouterr().out
  assert "ok      the rows are trained: Data: " in said and "32 read, 32 kept" in said and "All 2 checks passed" in said
  config.path.write_text('{"text": 3}')
  assert main(["check", f"--config={CONFIG}:smoke", f"--config.data.path={config.path}", *words]) == 1
  assert "FAILED  the rows are trained" in capsys.readouterr().out and sorted(tmp_path.rglob("*")) == before


def test_there_is_nothing_that_could_be_evaluated(straight, config, capsys):
  workdir, _ = trained(straight, config, capsys)
  assert main(["evaluate", str(workdir)]) == 1
  assert "names no variants to evaluate" in capsys.readouterr().err


CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "sft" / "chat.py"


@pytest.fixture(scope="module")
def measured(one_device):
  """measured(**overrides) -> what a newborn model scores on the held-out rows; None without any."""
  def measure(**overrides):
    changed = {"data.length": "160", "model.layers": "1", "model.remat": "none", "batch": "8", "mesh.cpu_threads": "0",
               **overrides}
    experiment = build_experiment(run_config.resolve_for("sft", resolve.load(f"{CONFIG}:smoke"), list(changed.items()),
                                          lambda _: None), "sft")
    loss = functools.partial(sft_loss, score=make_score(experiment.model))
    with jax.set_mesh(experiment.mesh), rules.applied():
      params = {"model": experiment.model.init(jax.random.key(3))}
      session = types.SimpleNamespace(state=params, eval_params=lambda state: state)
      made = make_measure(experiment, sft_data.make_sft_data(experiment), loss, session)
      return made and made(params)
  return measure


def test_packing_and_batches_change_nothing(measured):
  packed = measured(**{"data.validation": "0.4", "compute.microbatches": "2"})
  apart = measured(**{"data.validation": "0.4", "data.pack": "false", "compute.microbatches": "1", "batch": "4"})
  assert packed.keys() == {"eval/loss", "eval/mean_token_accuracy"}
  for name, value in packed.items():
    assert value == pytest.approx(apart[name], rel=1e-5)
  assert 5 < packed["eval/loss"] < 6   # bytes, guessed: log(260) is 5.56


def test_without_held_out_rows_nothing_is_measured(measured):
  assert measured() is None
