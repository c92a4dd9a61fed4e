"""The command line: exit codes, messages, and that a wrong word costs nothing."""

import dataclasses
import json
import os
import subprocess
import sys
import types

import pytest

from sftrl_jax.main import Misuse, main, scan


@dataclasses.dataclass(frozen=True)
class Objective:
  """gamma: discount inside a turn"""

  gamma: float = 1.0


@dataclasses.dataclass(frozen=True)
class Mesh:
  cpu_threads: int = 0


@pytest.fixture
def config(tmp_path):
  path = tmp_path / "configs" / "task.py"
  path.parent.mkdir()
  path.write_text("def get_config():\n  return dict(steps=3, ppo=dict(gamma=0.5))\n")
  return f"--config={path}"


@pytest.fixture
def program(monkeypatch):
  """Programs that remember their calls instead of training; `program.raises` is raised by them."""
  called = types.SimpleNamespace(calls=[], raises=None)

  def run(*arguments):
    called.calls.append(arguments)
    if called.raises:
      raise called.raises
  schema = {"seed": 0, "steps": int, "ppo": Objective, "mesh": Mesh}
  verbs, called.schema = ("sft", "rl"), schema
  kind = types.SimpleNamespace(schema=schema)
  stand_ins = {"experiment.kinds": types.SimpleNamespace(KINDS=dict.fromkeys(verbs, kind)),
               "trainers": types.SimpleNamespace(TRAINERS=dict.fromkeys(verbs, run)),
               "evaluate.run": types.SimpleNamespace(run=run)}
  for name, module in stand_ins.items():
    monkeypatch.setitem(sys.modules, f"sftrl_jax.programs.{name}", module)
    monkeypatch.setattr(f"sftrl_jax.programs.{name}", module, raising=False)
  for name in ("NPROC", "XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL"):
    monkeypatch.setenv(name, os.environ.get(name, ""))
  return called


@pytest.mark.parametrize(("words", "message"), [
    (["stduy"], "did you mean study?"),
    (["sft", "--confg=x"], "did you mean --config?"),
    (["sft", "--ppo.gamma=1"], "written --config.ppo.gamma=VALUE"),
    (["sft", "--config.=1"], "names no key"),
    (["sft", "--config"], "--config needs a value"),
    (["sft", "--config", "--debug"], "--config needs a value"),
    (["sft", "--workdir="], "--workdir is empty"),
    (["sft", "--workdir=a", "--workdir=b"], "given twice"),
    (["sft", "--workdir=a"], "sft needs --config"),
    (["rl", "--config=a.py"], "rl needs --workdir"),
    (["sft", "--config=a.py", "--workdir=b", "word"], "'word' is one word too many"),
    (["evaluate"], "evaluate needs FROM"),
    (["evaluate", "a", "b"], "too many"),
    (["report"], "report needs DIR"),
    (["sft", "--batch=3"], "--batch is no flag of sft: did you mean --config.batch?"),
    (["rl", "--max-nonfinite=3"], "--max-nonfinite is no flag of rl: did you mean --config.max_nonfinite?"),
    (["report", "a", "--config.x=1"], "--config.x is no flag of report"),
    (["report", "--oot=x", "a"], "did you mean --out?"),
])
def test_wrong_words_exit_2_with_the_way_out(words, message, capsys):
  assert main(words) == 2
  printed = capsys.readouterr()
  assert message in printed.err
  assert printed.err.startswith("error: ")
  assert not printed.out


def test_flags_take_their_value_with_or_without_an_equals_sign():
  joined = scan(["rl", "--config=a.py:x=1", "--workdir=w", "--config.a.b=-1", "--debug"])
  apart = scan(["rl", "--debug", "--workdir", "w", "--config.a.b", "-1", "--config", "a.py:x=1"])
  assert joined.flags == apart.flags == {"--config": "a.py:x=1", "--workdir": "w"}
  assert joined.overrides == apart.overrides == (("a.b", "-1"),)
  with pytest.raises(Misuse):
    scan(["rl", "-x"])


def test_help_exits_0_and_nothing_exits_2(capsys):
  assert main(["--help"]) == 0
  overview = capsys.readouterr().out
  assert all(verb in overview for verb in ("study", "sft", "rl", "evaluate", "report"))
  assert main(["sft", "--help"]) == 0
  assert "--workdir" in capsys.readouterr().out
  assert main(["--version"]) == 0
  assert main([]) == 2


def test_help_of_a_config_prints_its_keys(config, program, capsys):
  assert main(["sft", config, "--help"]) == 0
  assert "--config.ppo.gamma=0.5" in capsys.readouterr().out
  assert not program.calls


def test_a_run_gets_the_resolved_config_and_the_workdir(config, program, tmp_path):
  assert main(["rl", config, f"--workdir={tmp_path / 'w'}", "--config.steps=1e2"]) == 0
  (settled, workdir), = program.calls
  assert settled.steps == 100
  assert settled.ppo.gamma == 0.5
  assert settled.is_locked
  assert workdir == tmp_path / "w"


def test_a_wrong_key_exits_1_and_makes_nothing(config, program, tmp_path, capsys):
  assert main(["sft", config, f"--workdir={tmp_path / 'w'}", "--config.ppo.gama=1"]) == 1
  printed = capsys.readouterr().err
  assert printed == "error: config.ppo.gama is not a key of config.ppo: did you mean config.ppo.gamma? Valid: gamma.\n"
  assert not program.calls
  assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(("raised", "code", "message"), [
    (ValueError("config.batch is 3."), 1, "error: config.batch is 3."),
    (RuntimeError("2 runs failed"), 1, "error: 2 runs failed"),
    (KeyError("hidden"), 1, "error: KeyError: 'hidden'"),
    (KeyboardInterrupt(), 130, "The same command begins again, or goes on"),
])
def test_failures_have_one_message_and_their_exit_code(config, program, capsys, raised, code, message):
  program.raises = raised
  assert main(["sft", config, "--workdir=w"]) == code
  printed = capsys.readouterr().err
  assert message in printed
  assert "Traceback" not in printed


def test_a_stopped_run_keeps_its_exit_code_and_debug_shows_where(config, program, capsys):
  program.raises = SystemExit(75)
  with pytest.raises(SystemExit) as stopped:
    main(["sft", config, "--workdir=w"])
  assert stopped.value.code == 75
  program.raises = ValueError("x")
  assert main(["sft", config, "--workdir=w", "--debug"]) == 1
  assert "Traceback" in capsys.readouterr().err


def test_threads_are_set_before_jax_is_loaded(config, program, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
  main(["sft", config, "--workdir=w", "--config.mesh.cpu_threads=1"])
  assert os.environ["NPROC"] == "1"
  assert os.environ["XLA_FLAGS"].split() == [
      "--xla_dump_to=x", "--xla_cpu_multi_thread_eigen=false", "intra_op_parallelism_threads=1"]
  main(["sft", config, "--workdir=w", "--config.mesh.cpu_threads=3"])
  assert os.environ["NPROC"] == "3"


def test_evaluate_uses_the_threads_of_its_run(program, tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"mesh": {"cpu_threads": 5}}))
  assert main(["evaluate", f"{tmp_path}@20", "--config.evals.episodes=8"]) == 0
  assert program.calls == [(f"{tmp_path}@20", [("evals.episodes", "8")], "", "")]
  assert os.environ["NPROC"] == "5"


def test_the_best_start_is_pinned_to_its_step(config, program, tmp_path, monkeypatch, capsys):
  home = tmp_path / "first"
  (home / "checkpoints" / "7").mkdir(parents=True)
  (home / "evals.jsonl").write_text('{"step": 7, "variant": "x", "temperature": 0.0, "success": 0.5}\n')
  monkeypatch.setitem(program.schema, "start", "scratch")
  assert main(["rl", config, f"--workdir={tmp_path / 'w'}", f"--config.start={home}@best:x"]) == 0
  (settled, _), = program.calls
  assert settled.start == f"{home}@7" and settled.is_locked
  assert "is step 7: success 50.0%, greedy" in capsys.readouterr().out
  assert main(["rl", config, f"--workdir={tmp_path / 'w'}", f"--config.start={home}@best:y"]) == 1
  assert "no evaluation on 'y'" in capsys.readouterr().err and len(program.calls) == 1


def test_the_module_is_the_command():
  done = subprocess.run([sys.executable, "-m", "sftrl_jax", "trian"], capture_output=True, text=True, check=False)
  assert done.returncode == 2
  assert "is no verb" in done.stderr
