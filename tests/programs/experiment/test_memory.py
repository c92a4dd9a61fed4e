"""A run that cannot fit is refused by its key before anything is loaded."""

import pathlib
import types

import pytest

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import memory
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.kinds import KINDS


def built(tiny, method, **keys):
  verb = "rl" if method == "rl" else "sft"
  experiment = build_experiment(tiny(method, **keys), verb)
  return experiment, KINDS[verb].make_learner(experiment)


def test_what_a_run_holds_is_counted(tiny):
  experiment, learner = built(tiny, "rl")
  held = memory.held(experiment, learner)
  assert held["optimizer state"] == 2 * held["gradients"] + 8   # adam's moments and two counters
  assert 0 < held["parameters"] < held["gradients"]   # the value head is trained too
  layered = memory.held(*built(tiny, "rl", ppo__value_layers="(8, 4)"))
  assert layered["gradients"] - held["gradients"] == 4 * (16 * 8 + 8 + 8 * 4 + 4 + 4 - 16)
  longest = max(experiment.actor.cache_len(turn) for turn in range(2))
  assert held["cache of a rollout"] >= 2 * 8 * longest * 16 * 4 and held["batch"] == 8 * learner.length * 20
  assert memory.held(*built(tiny, "lora"))["optimizer state"] < memory.held(*built(tiny, "sft"))["optimizer state"]


@pytest.mark.parametrize("method, keys, message", [
    ("sft", {"model__mlp_dim": 2**31 - 1}, r"^config.model makes this run too large: .* GiB \(param.*smaller model"),
    ("sft", {"data__length": 2**31 - 1}, r"^config.batch makes this .*lower config.batch or config.data.length"),
    ("rl", {"rollout__rows": 2**31 - 8}, r"^config.rollout.rows makes this .*lower config.rollout.rows")])
def test_a_run_larger_than_memory_is_refused_by_its_key(tiny, method, keys, message):
  with pytest.raises(ConfigError, match=message):
    memory.refuse_larger(*built(tiny, method, **keys))
  memory.refuse_larger(*built(tiny, method))


def test_the_peak_is_that_of_the_process_or_of_the_fullest_device(monkeypatch):
  status = pathlib.Path("/proc/self/status")
  if status.is_file():
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    assert memory.peak_gib() == pytest.approx(int(lines["VmHWM"].split()[0]) / 2**20, rel=0.05)
  stats = [{"peak_bytes_in_use": 3 * 2**30, "bytes_limit": 2**34}, {"peak_bytes_in_use": 2**30}, None]
  devices = [types.SimpleNamespace(memory_stats=lambda stat=stat: stat) for stat in stats]
  monkeypatch.setattr(memory.jax, "local_devices", lambda: devices)
  assert memory.peak_gib() == 3.0
