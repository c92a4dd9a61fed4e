"""Files that survive a kill: whole lines, every step once, numbers that JSON can hold."""

import itertools
import json
import os
import random

import numpy as np
import pytest

from sftrl_jax import jsonl
from sftrl_jax.chat import Message
from sftrl_jax.jsonl import append_line
from sftrl_jax.pictures.read import read
from sftrl_jax.training import log as logs
from sftrl_jax.training.log import Log, LogConfig, cut_after, write_json
from sftrl_jax.training.position import Limits, Position
from sftrl_jax.training.writers.writer import WRITERS


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def log(tmp_path):
  log = Log(tmp_path, LogConfig(writers=(), megabytes=0.001), Limits(4), "run")
  yield log
  log.close()


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
  progress = lambda: json.loads((tmp_path / "progress.json").read_text())
  log.progress("train", Position(step=0), force=True)
  assert progress() == {"phase": "train", "done": 0.0, "text": "step 0/4", "rate": "0.00 it/s", "eta": 0.0,
                        "step": 0}
  now[0] += 0.5
  log.progress("train", Position(step=1))
  assert progress()["done"] == 0.0
  now[0] += 1.5
  log.progress("train", Position(step=1))
  assert progress() == {"phase": "train", "done": 0.25, "text": "step 1/4", "rate": "0.50 it/s", "eta": 6.0,
                        "step": 1}


def test_a_run_that_ends_by_its_flops_says_its_share_of_them_and_not_of_steps_it_never_reaches(tmp_path):
  log = Log(tmp_path, LogConfig(writers=()), Limits(100_000, 8.0), "run")
  log.progress("train", Position(step=3, train_flops=2.0), force=True)
  assert json.loads((tmp_path / "progress.json").read_text())["text"] == "step 3, 25% of the FLOPs"
  log.close()


def test_episodes_stop_at_their_size_and_metrics_do_not(log, tmp_path):
  for step in range(100):
    log.episode({"step": step, "chat": "x" * 100})
    log.metrics(Position(step), {})
  assert 1000 < (tmp_path / "episodes.jsonl").stat().st_size < 1300
  assert len(lines(tmp_path / "metrics.jsonl")) == 100


def test_another_host_writes_nothing(tmp_path):
  log = Log(tmp_path, LogConfig(), Limits(4), "run", writes=False)
  log.start()
  log.metrics(Position(1), {"loss": 1.0})
  log.evaluation({"step": 1})
  log.task({"step": 1})
  log.episode({"step": 1})
  log.progress("train", Position(1), force=True)
  log.say("hello")
  log.close()
  assert not list(tmp_path.iterdir())


class Recorder:
  """A scalar writer that keeps what it gets."""

  package = "json"
  opened: list["Recorder"] = []

  def __init__(self, workdir, step):
    self.step, self.points, self.calls = step, [], []
    self.opened.append(self)

  def scalars(self, step, values):
    self.points += [(step, name, value) for name, value in values.items()]

  def close_part(self):
    self.calls.append("close_part")

  def close(self):
    self.calls.append("close")


@pytest.fixture
def recorder(monkeypatch):
  monkeypatch.setitem(WRITERS, "recorder", Recorder)
  monkeypatch.setattr(Recorder, "opened", [])
  return Recorder


def test_writers_get_the_numbers_of_metrics_and_evaluations(tmp_path, recorder):
  log = Log(tmp_path, LogConfig(writers=("recorder",)), Limits(4), "run")
  assert not recorder.opened
  log.start()
  log.metrics(Position(1), {"loss": 1.0, "note": "nan"})
  log.evaluation({"step": 1, "variant": "id_seen", "temperature": 0.0, "success": 0.5, "first_success": 0.25,
                  "episodes": 16})
  log.task({"step": 1, "task": "arc_easy", "metric": "acc", "filter": "none", "value": 0.75})
  log.task({"step": 1, "task": "gsm8k", "metric": "exact_match", "filter": "strict-match", "value": 0.125})
  log.task({"step": 1, "task": "text", "metric": "perplexity", "filter": "none", "value": None})
  log.close_parts()
  log.close()
  (writer,) = recorder.opened
  assert writer.points == [(1, "loss", 1.0), (1, "eval/id_seen/T0/success", 0.5),
                           (1, "eval/id_seen/T0/first_success", 0.25), (1, "task/arc_easy/acc", 0.75),
                           (1, "task/gsm8k/exact_match/strict-match", 0.125)]
  assert [line["value"] for line in lines(tmp_path / "tasks.jsonl")] == [0.75, 0.125, None]
  assert writer.calls == ["close_part", "close_part", "close"]
  assert "note" in lines(tmp_path / "metrics.jsonl")[0]


def test_an_evaluation_made_again_sends_only_the_variants_that_are_missing(tmp_path, recorder):
  """A run that was stopped inside the evaluation of its checkpoint makes all of it again, its tasks too."""
  evaluation = lambda variant, step=2: {"step": step, "variant": variant, "temperature": 0.0, "success": 0.5}
  for line in (evaluation("seen", 1), evaluation("seen"), evaluation("unseen", 3)):
    append_line(tmp_path / "evals.jsonl", line)
  (tmp_path / "evals.jsonl").open("a").write('{"step": 2, "vari')
  task = lambda name, step=2: {"step": step, "task": name, "metric": "acc", "filter": "none", "value": 0.5}
  for line in (task("b", 1), task("a")):
    append_line(tmp_path / "tasks.jsonl", line)
  log = Log(tmp_path, LogConfig(writers=("recorder",)), Limits(4), "run")
  log.start(2)
  cut_after(tmp_path / "evals.jsonl", 2, lambda line: True)
  for line in (evaluation("seen"), evaluation("unseen"), evaluation("seen", 3)):
    log.evaluation(line)
  for line in (task("a"), task("b")):
    log.task(line)
  log.close()
  (writer,) = recorder.opened
  assert writer.step == 2
  assert [(step, name) for step, name, _ in writer.points] == [(2, "eval/unseen/T0/success"),
                                                              (3, "eval/seen/T0/success"), (2, "task/b/acc")]
  assert [(line["step"], line["variant"]) for line in lines(tmp_path / "evals.jsonl")] == [
      (1, "seen"), (2, "seen"), (2, "unseen"), (3, "seen")]


def test_chats_are_written_as_roles_and_texts():
  assert logs.chat_json((Message("user", "q"), Message("assistant", "r"))) == [
      {"role": "user", "text": "q"}, {"role": "assistant", "text": "r"}]


def test_of_a_picture_its_size_and_a_digest_are_written():
  one, other = (np.full((2, 3, 3), level, np.uint8) for level in (0, 1))
  written = [logs.chat_json((Message("user", "q", image),))[0]["image"] for image in (one, one.copy(), other)]
  assert written[0] == written[1] != written[2] and written[0].startswith("3x2 sha256:")


def test_pictures_are_kept_once_by_their_digest_and_small(log, tmp_path, monkeypatch):
  random = np.random.default_rng(0)
  small, large = (random.integers(0, 256, (height, 900, 3)).astype(np.uint8) for height in (2, 500))
  chat = (Message("user", "q", small), Message("assistant", "r"), Message("user", "q", large))
  for _ in range(2):   # as at every evaluation
    log.pictures(chat)
  names = [each["image"].split(":")[1] for each in logs.chat_json(chat) if "image" in each]
  files = sorted((tmp_path / logs.PICTURES).iterdir())
  assert [file.stem for file in files] == sorted(names)
  assert {read(file).shape for file in files} == {(1, 384, 3), (213, 384, 3)}
  monkeypatch.setattr(logs, "MOST_PICTURES", sum(file.stat().st_size for file in files) + 200)
  log.pictures((Message("user", "q", large[:300]),))
  assert len(list((tmp_path / logs.PICTURES).iterdir())) == 2


@pytest.mark.parametrize("settings", [dict(every=0), dict(episodes=-1), dict(megabytes=-1.0),
                                      dict(writers=("tensorbord",))])
def test_wrong_settings_are_refused(settings):
  with pytest.raises(ValueError):
    LogConfig(**settings)


class Killed(Exception):
  pass


def go_on(home, checkpoints, steps, chance, kill):
  """One process of a run as programs/run.py orders what is written: from the newest checkpoint to the end, or to where
  `kill` breaks it off. checkpoints: {step: owed}, those that are complete."""
  log = Log(home, LogConfig(writers=()), Limits(steps), "run")
  step, owed, saving = max(checkpoints, default=0), checkpoints.get(max(checkpoints, default=0), False), []
  for name in logs.FILES:
    again = owed and name != "metrics.jsonl"
    cut_after(home / name, step if checkpoints else -1, lambda line, again=again: again and line["kind"] == "eval")

  def save(owed=False):
    log.close_parts()
    saving.append((step, owed))

  def evaluate():
    for variant in ("seen", "unseen"):
      log.evaluation({"step": step, "kind": "eval", "variant": variant, "temperature": 0.0})
      log.episode({"step": step, "kind": "eval", "chat": "x" * chance.randrange(3)})
      kill()
      if step and chance.random() < 0.05:   # SIGTERM: what was begun is owed
        save(owed=True)
        checkpoints.update(saving)
        raise KeyboardInterrupt
    log.task({"step": step, "kind": "eval", "task": "a", "metric": "acc", "filter": "none", "value": 0.5})
    kill()

  if step == 0 or owed:
    evaluate()
  while step < steps:
    step += 1
    log.episode({"step": step, "kind": "train"})
    log.metrics(Position(step), {"kind": "train"})
    kill()
    if step % 3 == 0 or step == steps:
      evaluate()
    if chance.random() < 0.5 and saving:   # it is written while training goes on
      checkpoints.update([saving.pop(0)])
    if step % 2 == 0 or step == steps:
      checkpoints.update(saving)
      saving.clear()
      save()
    kill()
  log.close_parts()
  kill()
  checkpoints.update(saving)
  log.close()


@pytest.mark.parametrize("where", ["objects", "tmp_path"])
def test_however_a_run_is_killed_each_line_is_there_once_when_it_ends(where, request):
  home, steps = request.getfixturevalue(where), 9
  wanted = {"metrics.jsonl": [*range(1, steps + 1)], "evals.jsonl": [0, 0, 3, 3, 6, 6, 9, 9],
            "tasks.jsonl": [0, 3, 6, 9],
            "episodes.jsonl": [0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 6, 6, 7, 8, 9, 9, 9]}
  kills = 0
  for seed in range(150 if where == "objects" else 40):
    chance, checkpoints = random.Random(seed), {}

    def kill(chance=chance):
      if chance.random() < 0.06:
        raise Killed

    for process in itertools.count():
      if where == "objects":
        type(home).left = chance.randrange(20) if process < 6 else None
      try:
        go_on(home, checkpoints, steps, chance, kill if process < 6 else lambda: None)
        break
      except (Killed, KeyboardInterrupt, getattr(home, "killed", Killed)):
        kills += 1
        if checkpoints and chance.random() < 0.1:
          del checkpoints[max(checkpoints)]   # it is found damaged
    if where == "objects":
      type(home).left = None
    written = {name: [json.loads(line)["step"] for file in jsonl.files(home / name)
                      for line in file.read_text().splitlines()] for name in logs.FILES}
    assert written == wanted, f"seed {seed}"
    for name in logs.FILES:
      jsonl.remove(home / name)
  assert kills > 50


def test_what_is_said_once_a_kind(log, capsys):
  for kind, text in (("a", "first"), ("a", "second"), ("b", "third")):
    log.say_once(kind, text)
  assert capsys.readouterr().out == "first\nthird\n"
