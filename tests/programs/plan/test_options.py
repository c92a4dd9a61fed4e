"""Options of plan are checked before anything heavy is loaded."""

import pytest

from sftrl_jax.main import main
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.plan import options


def test_without_a_topology_plan_is_about_local_devices():
  assert options.read_options({}, "sft") == options.PlanOptions("sft")


def test_the_flags_of_a_slice(monkeypatch, tmp_path):
  monkeypatch.setattr(options.topology, "prepare", lambda name: None)
  flags = {"--topology": "v5e-16", "--optimizer": "lion,adafactor", "--show": "sharding", "--price": "1.2",
           "--json": str(tmp_path / "plan.json"), "--tries": "2"}
  read = options.read_options(flags, "rl")
  assert read.where.chips == 16 and read.optimizers == ("lion", "adafactor") and read.price == 1.2
  assert (read.verb, read.show, read.tries) == ("rl", "sharding", 2)


@pytest.mark.parametrize(("flag", "value", "message"), [
    ("--topology", "v5e-17", "v5e-16"), ("--show", "memory", "there is sharding"), ("--price", "-1", "not negative"),
    ("--price", "cheap", "a number"), ("--json", "no/such/folder/plan.json", "in an existing directory")])
def test_wrong_options_are_errors(flag, value, message):
  with pytest.raises(ConfigError, match=message):
    options.read_options({flag: value}, "sft")


def test_a_study_is_no_run():
  with pytest.raises(ConfigError, match="is a study"):
    options.read_options({"--config": "s.py"}, "study")


def test_an_unknown_topology_exits_1_and_lists_the_known(tmp_path, capsys):
  path = tmp_path / "task.py"
  path.write_text("def get_config():\n  return dict(steps=3)\n")
  assert main(["plan", f"--config={path}", "--topology=v5x-16"]) == 1
  assert "v5litepod-N" in capsys.readouterr().err
