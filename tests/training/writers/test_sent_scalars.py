"""A service that overwrites nothing gets each point once, however often its step is computed."""

import json

from sftrl_jax import paths
from sftrl_jax.training.writers.sent_scalars import SentScalars, recorded_config


def test_what_a_killed_process_has_sent_is_not_sent_again(tmp_path):
  path = tmp_path / "service.json"
  killed = SentScalars(path, 0)
  for step in (1, 2, 3):
    assert killed.unsent(step, {"loss": 1.0}) == {"loss": 1.0}
    killed.add(step, {"loss": 1.0})
  resumed = SentScalars(path, 1)
  assert resumed.run_id == killed.run_id
  assert resumed.unsent(2, {"loss": 1.0, "late": 2.0}) == {}
  assert resumed.unsent(3, {"loss": 1.0, "eval/success": 0.5}) == {"eval/success": 0.5}   # it was killed in between
  resumed.add(3, {"eval/success": 0.5})
  assert resumed.unsent(3, {"loss": 1.0, "eval/success": 0.5}) == {}
  assert resumed.unsent(4, {"loss": 1.0}) == {"loss": 1.0}


def test_a_run_that_begins_anew_is_another_run(tmp_path):
  path = tmp_path / "service.json"
  first = SentScalars(path, 0)
  first.add(7, {"loss": 1.0})
  second = SentScalars(path, 0)
  assert second.run_id != first.run_id and second.unsent(1, {"loss": 2.0}) == {"loss": 2.0}
  assert SentScalars(path, 3).run_id == second.run_id


def test_in_a_bucket_only_save_writes(bucket):
  path = paths.as_path("gs://bucket/run/service.json")
  sent = SentScalars(path, 0)
  sent.add(1, {"loss": 1.0})
  assert json.loads(path.read_text())["step"] == -1
  sent.save()
  assert json.loads(path.read_text()) == {"id": sent.run_id, "step": 1, "names": ["loss"]}


def test_the_config_of_the_workdir_is_shown(tmp_path):
  assert recorded_config(tmp_path) == {}
  (tmp_path / "config.json").write_text('{"seed": 3}')
  assert recorded_config(tmp_path) == {"seed": 3}
