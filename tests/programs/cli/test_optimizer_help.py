"""The page of optimizers, and the flags that it names."""

import re

import pytest

from sftrl_jax.main import main
from sftrl_jax.programs.cli import optimizer_help
from sftrl_jax.programs.config.resolve import ConfigError, build, load
from sftrl_jax.programs.experiment.run_config import resolve_for
from sftrl_jax.training.optimizers.catalogue import catalogue
from sftrl_jax.training.optimizers.optimizer import OptimizerConfig

CONFIGS = {"sft": "configs/general_points/sft.py", "rl": "configs/general_points/ppo.py"}


@pytest.fixture(scope="module")
def files():
  return {verb: load(path) for verb, path in CONFIGS.items()}


def test_the_page_tells_of_everything_and_of_state_as_it_is(monkeypatch, tmp_path, capsys):
  config = tmp_path / "configs" / "task.py"
  config.parent.mkdir()
  config.write_text("def get_config():\n  return dict(optimizer=dict(name='lion'))\n")
  monkeypatch.chdir(tmp_path)
  assert main(["rl", f"--config={config}", "--config.optimizer.name=help"]) == 0
  page, known = capsys.readouterr().out, catalogue()
  assert sorted(path.name for path in tmp_path.iterdir()) == ["configs"]
  assert max(map(len, page.splitlines())) <= optimizer_help.WIDTH
  state = {}
  for name, entry in known.entries.items():
    match = re.search(rf"^  {name} +(\S+) +(\S+)  ", page, re.MULTILINE)
    assert float(match[1]) == entry.learning_rate, name
    state[name] = float(match[2])
  assert (state["adamw"], state["lion"], state["sign_sgd"], state["amsgrad"]) == (8.0, 4.0, 0.0, 12.0)
  assert state["adafactor"] < 0.1 and 1 < state["galore"] < 2 and 4 < state["muon"] < 5
  for name in (*known.refused, *known.wrappers):
    assert re.search(rf"^  {name} +\S+ \S+ ", page, re.MULTILINE), name
  words = set(re.findall(r"\w+", page))
  assert words >= {*known.parts, *(key for entry in known.entries.values() for key in entry.args)}


@pytest.mark.parametrize("verb", CONFIGS)
def test_every_optimizer_swaps_into_a_config_by_its_name_alone(verb, files):
  for name, entry in catalogue().entries.items():
    notes = []
    config = resolve_for(verb, files[verb], [("optimizer.name", name)], note=notes.append)
    section = build(OptimizerConfig, config.optimizer, "config.optimizer")
    if name != files[verb].optimizer.name:
      assert (section.name, section.learning_rate, section.args) == (name, entry.learning_rate, entry.given)
      assert section.clip == files[verb].optimizer.clip and f"-> {name}" in notes[0]


def test_what_the_command_line_says_wins_over_the_table(files):
  words = {"optimizer.args.momentum": "0.5", "optimizer.learning_rate": "1e-2", "optimizer.name": "rmsprop",
           "optimizer.args.centered": "true"}
  notes = []
  section = resolve_for("sft", files["sft"], list(words.items()), note=notes.append).optimizer
  assert section.learning_rate == 1e-2 and "learning_rate" not in notes[0] and "centered" not in notes[0]
  assert section.args.to_dict() == {**catalogue().entries["rmsprop"].given, "momentum": 0.5, "centered": True}
  section = resolve_for("sft", files["sft"], [("optimizer.args.mu_dtype", "bfloat16")]).optimizer   # of the file's own
  assert section.args.to_dict() == {"mu_dtype": "bfloat16"}


@pytest.mark.parametrize("words, message", [
    (["optimizer.args.bb2=0.9"], r"config\.optimizer\.args\.bb2 is no argument of adamw: did you mean b2\?"),
    (["optimizer.args.b1=high"], r"config\.optimizer\.args\.b1 is 'high', but should be float"),
    (["optimizer.args={'nesterov': 1.5}"], r"config\.optimizer\.args\.nesterov is 1\.5, but should be bool"),
    (["optimizer.name=prodigy", "optimizer.args.betas=(0.9,)"], r"args\.betas is .*, but should be 2 values"),
    (["optimizer.name=muon", "optimizer.args.preconditioning=frobenios"], r"should be one of 'frobenius', 'spectral'"),
    (["optimizer.name=momo"], r"config\.optimizer\.name=momo: name is 'momo', which is refused: it models the loss")])
def test_a_wrong_argument_is_told_before_anything_is_built(words, message, files):
  with pytest.raises(ConfigError, match=message):
    resolve_for("sft", files["sft"], [tuple(word.split("=", 1)) for word in words], note=lambda message: None)
