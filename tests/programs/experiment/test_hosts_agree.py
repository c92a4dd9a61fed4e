"""Two real processes train as one does, leave checkpoints that one goes on from, and end with one another."""

import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sftrl_jax.parallel import mesh as meshes, peers
from sftrl_jax.programs import data, preference
from sftrl_jax.programs.config import nested
from sftrl_jax.programs.evaluate import run as evaluate
from sftrl_jax.programs.experiment import hosts_agree

ALIKE = {"config": {"seed": 0, "optimizer": {"name": "adamw"}}, "code": "a" * 64, "files named by the config": {},
         "data": "", "versions": ["0.10.2", "0.10.2"], "devices of a process": 4}


def test_what_differs_is_named_with_its_processes():
  assert not hosts_agree.apart([ALIKE] * 3)
  other = {**ALIKE, "code": "b" * 64, "data": "c" * 64, "config": {"seed": 1, "optimizer": {"name": "adamw"}}}
  config, code, data = hosts_agree.apart([ALIKE, ALIKE, other])
  assert config == "config.seed is 0 in process 0, 1 in process 2: give all of them the same command."
  assert code.startswith("code: aaaaaaaaaaaa in processes 0, 1; bbbbbbbbbbbb in process 2: install the same revision")
  assert data.startswith("data: none in processes 0, 1; cccccccccccc in process 2")


@pytest.mark.parametrize("environment,processes,told", [
    ({}, 2, []), ({"TPU_WORKER_HOSTNAMES": "localhost"}, 2, []), ({"TPU_WORKER_HOSTNAMES": "a,b"}, 2, []),
    ({"TPU_WORKER_HOSTNAMES": "a,b,c"}, 2, ["the pod has 3 hosts, but 2 processes run"]),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": "2"}, 2, ["the pod has 4 hosts"])])
def test_every_host_of_the_pod_takes_part(environment, processes, told):
  found = hosts_agree.missing(processes, processes, environment)
  assert [line.startswith(start) for line, start in zip(found, told, strict=True)] == [True] * len(told)


def test_a_process_without_devices_is_missed():
  assert "only 1 of them have devices" in hosts_agree.missing(2, 1, {})[0]


def test_the_digest_of_the_code_follows_its_text(tmp_path):
  (tmp_path / "room").mkdir()
  (tmp_path / "room" / "a.py").write_text("x = 1\n")
  before = hosts_agree.code(tmp_path)
  assert before == hosts_agree.code(tmp_path)
  (tmp_path / "room" / "a.py").write_text("x = 2\n")
  assert before != hosts_agree.code(tmp_path)


# One of two processes: agrees on this and that, trains supervised, by PPO, and supervised again until one is killed.
CHILD = """
import json, os, pathlib, signal, sys, threading, time
import jax
jax.config.update("jax_disable_most_optimizations", True)
from ml_collections import ConfigDict
from sftrl_jax.parallel import hosts, peers
from sftrl_jax.programs import preference, rl, sft
from sftrl_jax.programs.evaluate import run as evaluate
from sftrl_jax.programs.check import run_checks, task_checks
from sftrl_jax.programs.check.expert_episodes import CheckFailed
from sftrl_jax.programs.experiment import hosts_agree
from sftrl_jax.programs.config.errors import ConfigError

hosts.join({})
fellows = peers.connect()
configs, home = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])
assert hosts.gathered([hosts.index()]) == [[0], [1]] and hosts.any_process(not hosts.is_first_process())
assert hosts.led_by_first(lambda: hosts.index()) == 0
try:
  hosts.led_by_first(lambda: json.loads("damaged"))
except ValueError as error:
  assert hosts.is_first_process() or "Process 0 has refused this run" in str(error)
try:
  hosts_agree.check({**configs["sft"], "seed": hosts.index()}, "sft", {}, {})
except ConfigError as error:
  print("REFUSED", error, flush=True)

def die():
  lines = home / "killed" / "metrics.jsonl"
  while not lines.is_file() or len(lines.read_text().splitlines()) < 3:
    time.sleep(0.02)
  os.kill(os.getpid(), signal.SIGKILL)

def wrong():
  if hosts.is_first_process():
    return "fine"
  raise CheckFailed("torn", "mend it")

result = task_checks.run_check("a check that fails on one process", wrong)
assert (result.ok, result.message, result.way_out) == (False, "process 1: torn", "mend it")
for result in run_checks.check_run(ConfigDict(configs["rl"]), "rl", scratch=home / "scratch"):
  print("FOUND", result.ok, result.name, result.message, flush=True)
for name, program in (("sft", sft), ("rl", rl), ("evaluated", None), ("pairs", preference), ("killed", sft)):
  if name == "killed" and not hosts.is_first_process():
    threading.Thread(target=die).start()
  if name == "evaluated":
    evaluate.run(str(home / "rl"), [("evals.episodes", "13")], str(home / name))
    continue
  program.run(ConfigDict(configs[name]), home / name)
"""


@pytest.fixture(scope="module")
def pair(tiny, pair_config, run_in_two, tmp_path_factory):
  """(home of the workdirs, [(exit code, output)] of both): `sft` and `rl` are whole runs, `killed` is not."""
  home = tmp_path_factory.mktemp("pair")
  killed = tiny("sft", steps=100_000, checkpoint__every=1, evals__variants="()")
  configs = {"sft": tiny("sft", evals__variants="()"), "rl": tiny(
      "rl", evals__variants="('id_seen',)", evals__expert_episodes=99, evals__samples=2),
             "pairs": pair_config("reward", steps=2), "killed": killed}
  return home, run_in_two(CHILD, {name: config.to_dict() for name, config in configs.items()}, home)


def test_a_config_that_differs_is_told_once(pair):
  first, second = (said for _, said in pair[1])
  assert "REFUSED The processes of this run are not alike" in first
  assert "config.seed is 0 in process 0, 1 in process 1" in first
  assert "REFUSED The processes of this run are not alike; process 0 says in what." in second


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_two_processes_do_what_one_does(pair, finished, lines_of, verb):
  """Losses to 1e-5; the same episodes, of which each played half."""
  one, two = finished(verb), pair[0] / verb
  lines = list(zip(lines_of(one, "metrics.jsonl"), lines_of(two, "metrics.jsonl"), strict=True))
  assert len(lines) == 2
  for ours, theirs in lines:
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"seconds", "compile/count", "compute/rollout_flops", "compute/total_flops"}:
      if not name.startswith(("timing_s", "throughput", "memory", "compute/chip_hours")):
        assert theirs[name] == pytest.approx(ours[name], rel=1e-5, abs=1e-5), name
  if verb == "rl":
    played = ("train", "id_seen")   # the variants that both have played
    ours, theirs = ([line for line in lines_of(workdir, "episodes.jsonl") if line["variant"] in played]
                    for workdir in (one, two))
    assert ours == theirs and len(ours) == 10
    evals = [line for line in lines_of(one, "evals.jsonl") if line["variant"] in played]
    for ours, theirs in zip(evals, lines_of(two, "evals.jsonl"), strict=True):
      assert theirs["outcomes"] == ours["outcomes"] and theirs["codes"] == ours["codes"]
      assert theirs.get("kl", 0.0) == pytest.approx(ours.get("kl", 0.0), abs=1e-6)


def test_two_processes_learn_from_pairs_as_one_does(pair, pair_config, lines_of, tmp_path):
  preference.run(pair_config("reward", steps=2), tmp_path / "run")
  homes, keys = (tmp_path / "run", pair[0] / "pairs"), ("loss", "grad_norm", "rewards/margins", "compute/total_flops")
  for ours, theirs in zip(*(lines_of(home, "metrics.jsonl") for home in homes), strict=True):
    assert [theirs[key] for key in keys] == pytest.approx([ours[key] for key in keys], rel=1e-4, abs=1e-5)
  ours, theirs = (json.loads((home / "reward_scale.json").read_text()) for home in homes)
  assert theirs == pytest.approx(ours, rel=1e-3, abs=1e-5)


def test_two_processes_check_a_run_together_and_leave_nothing(pair):
  names = ("episodes played by the model", "decoding is the full forward", "sampler and trainer agree",
           "the responses are trained", "3 steps")
  for _, said in pair[1]:
    found = [line for line in said.splitlines() if line.startswith("FOUND ")]
    assert [line.startswith(f"FOUND True {name} ") for line, name in zip(found, names, strict=True)] == [True] * 5
  assert not any((pair[0] / "scratch").iterdir())


def test_two_processes_evaluate_as_one_does(pair, lines_of, tmp_path):
  mine = evaluate.run(str(pair[0] / "rl"), [("evals.episodes", "13")], str(tmp_path))
  theirs = lines_of(pair[0] / "evaluated", "evals.jsonl")
  apart = ("kl", "entropy", "seconds", "reward")
  assert [{key: value for key, value in line.items() if key not in apart} for line in theirs] == [
      {key: value for key, value in line.items() if key not in apart} for line in mine]
  assert [line["expert_states"] for line in mine if line["temperature"] == 0] == [13]
  assert lines_of(pair[0] / "evaluated", "episodes.jsonl") == lines_of(tmp_path, "episodes.jsonl")
  assert sum("Written:" in said for _, said in pair[1]) == 1


TRAINED = """
import json, os, pathlib, sys
import jax
jax.config.update("jax_disable_most_optimizations", True)
from ml_collections import ConfigDict
from sftrl_jax.parallel import hosts, peers
from sftrl_jax.programs import rl, sft

def print_writes(event, args):
  writes = event in ("os.mkdir", "os.rename", "os.remove") or event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)
  if writes and isinstance(args[0], (str, os.PathLike)) and os.fspath(args[0]).startswith(sys.argv[2]):
    print("WRITES", args[0], flush=True)

hosts.join({})
fellows = peers.connect()
if not hosts.is_first_process():
  sys.addaudithook(print_writes)
for name, config in json.loads(sys.argv[1]).items():
  (rl if "algorithm" in config else sft).run(ConfigDict(config), pathlib.Path(sys.argv[2]) / name)
"""


def test_two_processes_are_scored_by_a_reward_model_as_one_is(
    reward_home, tiny, run_of, run_in_two, lines_of, tmp_path):
  config = tiny("rl", reward="", reward_model__start=reward_home(tmp_path / "reward", bias=0.1),
                ppo__kl_target=5.0, ppo__kl_horizon=16, evals__variants="('id_seen',)")
  run_of(config, tmp_path / "one")
  for code, output in run_in_two(TRAINED, {"two": config.to_dict()}, tmp_path):
    assert code == 0, output
  one, two = (lines_of(tmp_path / name, "metrics.jsonl") for name in ("one", "two"))
  for ours, theirs in zip(one, two, strict=True):
    for name in ("loss", "objective/scores", "objective/gold", "objective/kl", "objective/kl_coef",
                 "reward_model/score", "reward_model/outside", "compute/score_flops"):
      assert theirs[name] == pytest.approx(ours[name], rel=1e-5, abs=1e-5), name
  one, two = (lines_of(tmp_path / name, "evals.jsonl") for name in ("one", "two"))
  assert [line["proxy"] for line in two] == pytest.approx([line["proxy"] for line in one], abs=1e-5)
  assert (tmp_path / "two" / "reward_model.json").is_file()


@pytest.fixture(scope="module")
def readers(pictured, run_in_two, tmp_path_factory):
  """(home of the workdirs, {name: config}, [(exit code, output)]) of two processes that train on pictures: by SFT, on
  rows of which two share one, and by PPO. Pictures matter: the connector is large from the start."""
  home = tmp_path_factory.mktemp("readers")
  rows = home / "rows.jsonl"
  data.run(json.loads(json.dumps(nested.plain(pictured("sft")))), rows, count=40)
  shared = {"model__connector_std": 1.0, "checkpoint__every": 0}
  configs = {"sft": pictured("sft", **shared, data__path=rows, data__length=56, model__images=2),
             "ppo": pictured("ppo", **shared, env__attempts=1, evals__variants="('red',)", evals__episodes=8,
                             evals__temperatures="(0.0,)")}
  return home, configs, run_in_two(TRAINED, {name: config.to_dict() for name, config in configs.items()}, home)


@pytest.mark.parametrize("name", ["sft", "ppo"])
def test_two_processes_that_read_pictures_do_what_one_does(readers, run_of, lines_of, tmp_path, monkeypatch, name):
  """Half of the pictures are in each process. One process with as many devices has the same numbers, and one with a
  single device goes on from their checkpoint as from its own."""
  home, configs, _ = readers
  homes, make = (tmp_path / "one", home / name), meshes.make
  with monkeypatch.context() as patch:
    patch.setattr(meshes, "make", lambda config, devices=None: make(config, devices or jax.devices()[:2]))
    run_of(configs[name], homes[0])
  for ours, theirs in zip(*(lines_of(home, "metrics.jsonl") for home in homes), strict=True):
    timed = ("timing_s", "throughput", "memory", "seconds", "compile", "compute/chip")
    keys = [key for key in ours if not key.startswith(timed)]
    assert theirs.keys() == ours.keys() and len(keys) > 5
    assert [theirs[key] for key in keys] == pytest.approx([ours[key] for key in keys], rel=1e-5, abs=1e-6), keys
  if name == "ppo":
    assert lines_of(homes[0], "episodes.jsonl") == lines_of(homes[1], "episodes.jsonl")
    ours, theirs = ({file.name: file.read_bytes() for file in (home / "pictures").iterdir()} for home in homes)
    assert ours == theirs and len(ours) == 8
  close = lambda step: jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, atol=1e-7),
                                    *(arrays_of(home, step) for home in homes))
  close(2)
  if name == "sft":
    longer = configs[name].copy_and_resolve_references()
    longer.steps = 3
    for home in homes:
      run_of(longer, home)
    close(3)


def test_the_second_process_that_reads_pictures_writes_nothing_but_its_part_of_checkpoints(readers):
  for code, output in readers[2]:
    assert code == 0, output
  writes = [line.split(" ", 1)[1] for line in output.splitlines() if line.startswith("WRITES ")]
  assert writes and all(path.endswith("/array_metadatas/process_1") for path in writes)


def arrays_of(workdir, step):
  """The arrays of a checkpoint, whatever processes and devices have written it."""
  path, checkpointer = (workdir / "checkpoints" / str(step) / "state").absolute(), ocp.PyTreeCheckpointer()
  shapes = checkpointer.metadata(path).item_metadata.tree
  as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes,
                          is_leaf=lambda shape: hasattr(shape, "dtype"))
  return checkpointer.restore(path, restore_args=as_numpy)


def test_one_goes_on_from_the_checkpoint_of_two_on_another_mesh(pair, finished, tiny, run_of, lines_of, tmp_path):
  for name, source in (("one", finished("sft")), ("two", pair[0] / "sft")):
    shutil.copytree(source, tmp_path / name)
    more = tiny("sft", steps=3) if name == "one" else tiny(
        "sft", steps=3, evals__variants="()", mesh__data=-1, mesh__fsdp=1)
    run_of(more, tmp_path / name)
  jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, atol=1e-5),
               *(arrays_of(tmp_path / name, 3) for name in ("one", "two")))
  one, two = (lines_of(tmp_path / name, "metrics.jsonl")[-1] for name in ("one", "two"))
  assert one["step"] == 3 and one["loss"] == pytest.approx(two["loss"], abs=1e-5)


def test_when_one_is_killed_the_other_names_it_and_ends_and_the_run_goes_on(pair, tiny, run_of, lines_of, capsys):
  (code, said), (victim, _) = pair[1]
  assert victim == -9 and code == peers.LOST
  assert said.count("error: Process 1 (") == 1 and "is gone, and its connection with it" in said
  workdir = pair[0] / "killed"
  run_of(tiny("sft", steps=6, checkpoint__every=1, evals__variants="()"), workdir)
  assert "going on from step" in capsys.readouterr().out
  assert [line["step"] for line in lines_of(workdir, "metrics.jsonl")] == list(range(1, 7))
