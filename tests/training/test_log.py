"""Files that survive a kill: whole lines, every step once, numbers that JSON can hold."""

import json
import os

import pytest

from sftrl_jax.chat import Message
from sftrl_jax.training import log as logs
from sftrl_jax.training.log import Log, LogConfig, append_line, cut_after, write_json
from sftrl_jax.training.loop import Limits, Position


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def log(tmp_path):
  log = Log(tmp_path, LogConfig(tensorboard=False, megabytes=0.001), Limits(4), "run")
  yield log
  log.close()


def test_lines_are_appended_whole(tmp_path):
  path = tmp_path / "x.jsonl"
  for step in range(3):
    append_line(path, {"step": step, "text": "a\nb"})
  assert lines(path) == [{"step": step, "text": "a\nb"} for step in range(3)]


def test_what_is_not_finite_is_written_as_text(tmp_path):
  append_line(tmp_path / "x", {"loss": float("nan"), "deep": {"a": [1.0, float("-inf")]}, "b": (float("inf"),)})
  text = (tmp_path / "x").read_text()
  refuse = lambda name: pytest.fail(f"{name} is no JSON")
  assert json.loads(text, parse_constant=refuse) == {"loss": "nan", "deep": {"a": [1.0, "-inf"]}, "b": ["inf"]}


def test_a_resumed_run_drops_later_lines_and_a_torn_one(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(5)) + '{"step": 2, "lo')
  cut_after(path, 2)
  assert [line["step"] for line in lines(path)] == [0, 1, 2]
  append_line(path, {"step": 3})
  assert [line["step"] for line in lines(path)] == [0, 1, 2, 3]
  cut_after(path, -1)
  assert path.read_text() == ""
  cut_after(tmp_path / "missing.jsonl", 3)
  assert sorted(os.listdir(tmp_path)) == ["metrics.jsonl"]


def test_json_is_replaced_in_one_move(tmp_path, monkeypatch):
  path = tmp_path / "progress.json"
  write_json(path, {"done": 0.5})
  before = path.stat().st_ino
  write_json(path, {"done": 0.75})
  assert path.stat().st_ino != before and json.loads(path.read_text()) == {"done": 0.75}
  with pytest.raises(TypeError):
    write_json(path, {"done": object()})
  assert json.loads(path.read_text()) == {"done": 0.75}
  assert os.listdir(tmp_path) == ["progress.json"]


def test_metrics_begin_with_the_position(log, tmp_path):
  position = Position(2, 10, 20, 1.5, 3.0, 2.0, 1.0)
  log.metrics(position, {"loss": 0.25})
  (line,) = lines(tmp_path / "metrics.jsonl")
  assert line == {**position.log(), "loss": 0.25} and next(iter(line)) == "step"


def test_progress_says_how_far_and_is_not_written_more_than_once_a_second(log, tmp_path, monkeypatch):
  now = [1000.0]
  monkeypatch.setattr(logs.time, "time", lambda: now[0])
  told = lambda: json.loads((tmp_path / "progress.json").read_text())
  log.progress("train", Position(step=0), force=True)
  assert told() == {"phase": "train", "done": 0.0, "text": "step 0/4", "rate": "0.00 it/s", "eta": 0.0}
  now[0] += 0.5
  log.progress("train", Position(step=1))
  assert told()["done"] == 0.0
  now[0] += 1.5
  log.progress("train", Position(step=1))
  assert told() == {"phase": "train", "done": 0.25, "text": "step 1/4", "rate": "0.50 it/s", "eta": 6.0}


def test_episodes_stop_at_their_size_and_metrics_do_not(log, tmp_path):
  for step in range(100):
    log.episode({"step": step, "chat": "x" * 100})
    log.metrics(Position(step), {})
  assert 1000 < (tmp_path / "episodes.jsonl").stat().st_size < 1300
  assert len(lines(tmp_path / "metrics.jsonl")) == 100


def test_another_host_writes_nothing(tmp_path):
  log = Log(tmp_path, LogConfig(), Limits(4), "run", writes=False)
  log.metrics(Position(1), {"loss": 1.0})
  log.evaluation({"step": 1})
  log.episode({"step": 1})
  log.progress("train", Position(1), force=True)
  log.say("hello")
  log.close()
  assert not list(tmp_path.iterdir())


def test_tensorboard_files_are_written_when_asked_for(tmp_path):
  log = Log(tmp_path, LogConfig(), Limits(4), "run")
  log.metrics(Position(1), {"loss": 1.0, "note": "nan"})
  log.evaluation({"step": 1, "variant": "id_seen", "temperature": 0.0, "success": 0.5, "first_success": 0.25})
  log.close()
  (written,) = (tmp_path / "tensorboard").iterdir()
  content = written.read_bytes()
  assert b"loss" in content and b"eval/id_seen/T0/success" in content and b"note" not in content


def test_chats_are_written_as_roles_and_texts():
  assert logs.chat_json((Message("user", "q"), Message("assistant", "r"))) == [
      {"role": "user", "text": "q"}, {"role": "assistant", "text": "r"}]


@pytest.mark.parametrize("settings", [dict(every=0), dict(episodes=-1), dict(megabytes=-1.0)])
def test_wrong_settings_are_refused(settings):
  with pytest.raises(ValueError):
    LogConfig(**settings)
