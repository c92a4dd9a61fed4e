"""Every piece of `sftrl bench` runs on a tiny model; no test depends on its time."""

import json

import pytest

from sftrl_jax.programs.bench import run
from sftrl_jax.programs.config.errors import ConfigError


def test_a_config_of_sft_is_measured_and_written(tiny, small, tmp_path, capsys):
  result = run.run(tiny("sft"), "sft", out=str(tmp_path / "bench"), pairs=1)
  lines = {(line["work"], line["shape"]): line for line in result["lines"]}
  assert list(lines) == [("prefill", "1x8"), ("decode", "batch 2"), ("sft", "16x23"), ("sft ragged", "8x23")]
  for line in lines.values():
    assert line["tokens_per_second"] > 0 and line["of_peak"] > 0 and len(line["runs"]) == 1 and "ratio" not in line
  assert lines["sft", "16x23"]["label_tokens_per_second"] == lines["sft", "16x23"]["tokens_per_second"]
  assert lines["sft", "16x23"]["temporaries"] > 0 and lines["decode", "batch 2"]["of_bandwidth"] > 0
  assert json.loads((tmp_path / "bench" / "bench.json").read_text()) == json.loads(json.dumps(result))
  shown = capsys.readouterr().out
  assert "sft ragged" in shown and "of peak" in shown and "bench.json" in shown


def test_a_config_of_rl_has_its_update_measured(tiny, small):
  result = run.run(tiny("rl"), "rl", pairs=1, only=("rl",))
  assert [line["work"] for line in result["lines"]] == ["ppo score", "ppo update"]
  assert all(line["of_peak"] > 0 for line in result["lines"])


@pytest.mark.parametrize("words, message", [
    (("torch", 5, ()), "--against is 'torch'; known: hf, trl"), (("", 0, ()), "--pairs is 0"),
    (("", 5, ("decoding",)), "--only names 'decoding'; known: prefill, decode, sft, rl, rollout, iteration"),
    (("hf", 5, ("rl",)), "--only names 'rl', which --against=hf does not do: it does prefill, decode, sft")])
def test_wrong_words_are_refused(words, message):
  with pytest.raises(ConfigError, match=message):
    run.refuse(*words)
