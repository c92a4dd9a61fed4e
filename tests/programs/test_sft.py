"""A whole supervised run in small."""

import json
import math

import pytest

from sftrl_jax.checkpoints import store as stores
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.evaluate import run as evaluate
from sftrl_jax.programs.start import checkpoint_ref

CONTRACT = {"step", "tokens", "seconds", "compute/train_flops", "compute/rollout_flops", "compute/score_flops",
            "compute/total_flops", "loss", "grad_norm", "learning_rate", "mean_token_accuracy", "entropy",
            "nonfinite_steps", "compile/count", "timing_s/step", "throughput/tokens_per_second", "compute/chip_hours",
            "memory/peak_gib"}


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


def test_a_run_says_where_its_success_will_be(tiny, run_of, lines_of, tmp_path, capsys):
  """From the fourth evaluation on, and not at the end, where it is measured."""
  few = dict(evals__variants="('id_seen',)", evals__temperatures="(0.0,)")
  run_of(tiny("sft", steps=6, evals__every=1, **few), tmp_path)
  lines = [line for line in capsys.readouterr().out.splitlines() if "forecast of success" in line]
  assert [int(line.split()[1]) for line in lines] == [3, 4, 5]
  spent = lines_of(tmp_path, "metrics.jsonl")[-1]["compute/total_flops"]
  assert all(f"at {spent:.2e} FLOPs (80% band): id_seen " in line for line in lines)


def test_an_optimizer_of_ones_own_file_learns_as_that_of_optax(tiny, run_of, lines_of, tmp_path, monkeypatch):
  """A run by path has the bits of the same optimizer by name, from any directory, and refuses a changed file."""
  (tmp_path / "rules.py").write_text(
      "import optax\n\ndef make(learning_rate, momentum: float = 0.5):\n  return optax.sgd(learning_rate, momentum)\n")
  monkeypatch.chdir(tmp_path)
  common = dict(evals__variants="()", optimizer__learning_rate=0.1, optimizer__weight_decay=0.01)
  own = tiny("sft", optimizer__name="rules.py:make", optimizer__args__momentum=0.9, **common)
  assert own.optimizer.to_dict()["args"] == {"momentum": 0.9}
  assert own.optimizer.name == f"{tmp_path / 'rules.py'}:make"
  run_of(own, tmp_path / "own")
  run_of(tiny("sft", optimizer__name="sgd", optimizer__args__momentum=0.9, **common), tmp_path / "optax")
  losses = [[line["loss"] for line in lines_of(tmp_path / name, "metrics.jsonl")] for name in ("own", "optax")]
  assert losses[0] == losses[1] and losses[0][0] != losses[0][1]
  (tmp_path / "rules.py").write_text("import optax\n\ndef make(learning_rate, momentum: float = 0.5):\n"
                                     "  return optax.adam(learning_rate, momentum)\n")
  with pytest.raises(ConfigError, match=r"rules\.py has changed since the run"):
    run_of(own, tmp_path / "own")
  with pytest.raises(ConfigError, match="config.optimizer.args.beta is no argument of rules.py:make"):
    tiny("sft", optimizer__name="rules.py:make", optimizer__args__beta=0.9)
  with pytest.raises(ConfigError, match="config.optimizer.args.momentum is 'much', but should be float"):
    tiny("sft", optimizer__name="rules.py:make", optimizer__args__momentum="much")


def test_an_average_of_a_student_is_evaluated_beside_it_and_is_a_start(finished, tiny, run_of, lines_of, tmp_path):
  config = tiny("sft", ema__decay=0.5, sft__loss="distill", teacher__start=finished("sft"), evals__at="()",
                evals__variants="('id_seen',)", evals__temperatures="(1.0,)", optimizer__learning_rate=0.03,
                schedule__warmup=0, seed=3,
                evals__probes="{'others': {'shifts': ('other_rules',), 'variant': 'other_rules'}}")
  run_of(config, tmp_path / "run")
  lines = {(line["step"], line["variant"]): line for line in lines_of(tmp_path / "run", "evals.jsonl")}
  assert list(lines) == [(step, f"{kind}{name}") for step in (0, 2) for kind in ("", "ema:") for name in (
      "id_seen", "others")]
  assert {name for (_, name), line in lines.items() if line.get("probe")} == {"others", "ema:others"}
  same = lambda a, b: all(a[key] == b[key] for key in ("outcomes", "response_length", "kl"))
  assert same(lines[0, "id_seen"], lines[0, "ema:id_seen"])
  assert not same(lines[2, "id_seen"], lines[2, "ema:id_seen"])
  again, others = evaluate.run(f"{tmp_path / 'run'}:ema", [], str(tmp_path / "out"))
  assert same(again, lines[2, "ema:id_seen"]) and same(others, lines[2, "ema:others"])
  assert str(checkpoint_ref.parse(f"{tmp_path / 'run'}@best:ema:id_seen")) == f"{tmp_path / 'run'}@2:ema"
  with pytest.raises(ConfigError, match="holds no average of its parameters, for its config.ema.decay is 0"):
    evaluate.run(f"{finished('sft')}:ema", [], str(tmp_path / "out"))
  metrics = lines_of(tmp_path / "run", "metrics.jsonl")
  assert all(0 < line["loss"] < line["loss/nll"] for line in metrics)   # two random models are near one another
