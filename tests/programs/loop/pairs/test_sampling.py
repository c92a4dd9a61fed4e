"""Pairs of an environment: the same ones whatever is decoded together, charged, and there for other runs."""

import json
import math

import pytest
from ml_collections import ConfigDict

from sftrl_jax.programs import preference
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.loop import sft_data
from sftrl_jax.programs.loop.pairs import sampling


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def sampled(config, workdir):
  """The rows of training of a config, without a run."""
  sampling.with_pairs(build_experiment(config, "preference"), workdir)
  return read(workdir / sampling.FILE)


def test_a_run_samples_what_it_wants_and_pays_for_it(scored, lines_of):
  home, _ = scored
  rows, summary = read(home / sampling.FILE), json.loads((home / sampling.SUMMARY).read_text())
  assert len(rows) == summary["pairs"] == 12 and len({row["seed"] for row in rows}) == 12
  assert all(row["reward_chosen"] > row["reward_rejected"] and not row["turned"] for row in rows)
  assert [row["seed"] for row in rows] == sorted((row["seed"] for row in rows), key=lambda seed: int(seed.split()[1]))
  assert summary["prompts"] >= 12 + summary["ties"] + summary["unfinished"] and summary["flops"] > 0
  lines = lines_of(home, "metrics.jsonl")
  assert [line["compute/rollout_flops"] for line in lines] == 2 * [summary["flops"]]
  assert {path.stem: len(read(path)) for path in (home / sampling.HELDOUT).iterdir()} == {"id_seen": 5, "rule_ood": 5}
  assert lines[0]["compile/count"] == lines[-1]["compile/count"]


def test_the_same_pairs_come_whatever_is_decoded_together_and_after_an_interruption(scored, sampling_config, tmp_path):
  whole = read(scored[0] / sampling.FILE)
  more = dict(data__variants="()", data__noise="0.5")
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / sampling.FILE).write_text("half of an interrupted one")   # its summary is not there
  rows = sampled(sampling_config(rollout__rows=8, **more), tmp_path / "run")
  turned = [row for row in rows if row["turned"]]
  assert 0 < len(turned) < 12
  for row, before in zip(rows, whole, strict=True):
    sides = [before["chosen"], before["rejected"]]
    assert row["prompt"] == before["prompt"]
    assert [row["chosen"], row["rejected"]] == (sides[::-1] if row["turned"] else sides)


def test_a_run_that_goes_on_samples_nothing(scored, sampling_config, monkeypatch):
  home, experiment = scored
  monkeypatch.setattr(sampling, "_sample", None)
  given = sampling.with_pairs(experiment, home)
  assert given.data.path == str(home / sampling.FILE) and given.data.flops == json.loads(
      (home / sampling.SUMMARY).read_text())["flops"]


def test_a_start_that_gives_ties_alone_ends_with_the_reason(sampling_config, tmp_path):
  config = sampling_config(reward="", data__prompts_limit=24)   # it is never right
  with pytest.raises(ConfigError, match="24 prompts .config.data.prompts_limit. gave 0 pairs of 12.*of equal reward"):
    preference.run(config, tmp_path / "run")
  assert not (tmp_path / "run" / sampling.SUMMARY).exists()


def test_other_runs_take_the_file_and_are_charged(scored, sampling_config, lines_of, tmp_path):
  home, _ = scored
  path, cost = home / sampling.FILE, json.loads((home / sampling.SUMMARY).read_text())["flops"]
  taken = dict(data__path=path, data__length=128, data__flops="recorded", start="scratch")
  preference.run(sampling_config(objective="dpo", data__heldout=home / sampling.HELDOUT, lora__rank=2, **taken),
                 tmp_path / "dpo")
  first, last = (lines_of(tmp_path / "dpo", "metrics.jsonl")[place] for place in (0, -1))
  assert first["loss"] == pytest.approx(math.log(2), abs=1e-6) and last["compute/rollout_flops"] == cost
  measured = [line for line in lines_of(tmp_path / "dpo", "evals.jsonl") if line["step"] == 0]
  assert [line["rewards/margins"] for line in measured] == pytest.approx([0, 0], abs=1e-6)   # of the start itself


def test_sft_reads_the_preferred_responses_of_the_file_and_is_charged_too(scored, sampling_config):
  home, _ = scored
  config = {key: value for key, value in sampling_config().to_dict().items() if key not in (
      "objective", "bradley_terry")}
  data = {"path": str(home / sampling.FILE), "length": 128}
  config = run_config.resolve_for("sft", ConfigDict({**config, "data": data}), [
      ("data.format", "chosen"), ("data.flops", "recorded")], lambda _: None)
  experiment = sampling.charged(build_experiment(config, "sft"))
  assert experiment.data.flops == json.loads((home / sampling.SUMMARY).read_text())["flops"]
  words = sum(len(row["chosen"][0]["content"].split()) + 1 for row in read(home / sampling.FILE))
  assert sft_data.make_sft_data(experiment).record["label_tokens"] == words
  with pytest.raises(ConfigError, match="but needs `messages`.*config.data.format=chosen learns the preferred"):
    sft_data.make_sft_data(build_experiment(run_config.resolve_for(
        "sft", ConfigDict({**config.to_dict(), "data": data}), [], lambda _: None), "sft"))


@pytest.mark.parametrize("overrides, message", [
    ({"env": "none"}, "config.data.path is '' and config.env.name 'none'"),
    ({"rollout__rows": 15}, "config.rollout.rows is 15"),
    ({"data__variants": "('id_sen',)"}, "config.data.variants names 'id_sen', but general_points has id_seen"),
    ({"data__path": "PAIRS", "data__flops": "recorded"}, "config.data.flops is 'recorded', but there is no"),
    ({"data__path": "PAIRS", "data__flops": "1e9", "flops": "1e9"}, "config.flops is 1e.09, but the data have cost"),
    ({"data__path": "PAIRS", "data__flops": "-1"}, "config.data.flops is -1"),
    ({"data__path": "PAIRS", "data__heldout": "nowhere"}, "config.data.heldout is .*nowhere', but there is no such")])
def test_bad_input_is_one_error(sampling_config, pair_config, pairs, tmp_path, overrides, message):
  make = pair_config if overrides.pop("env", "") else sampling_config
  changed = {key: str(pairs) if value == "PAIRS" else value for key, value in overrides.items()}
  changed |= {"data__path": ""} if make is pair_config else {}
  if "data__heldout" in changed:
    make, changed = pair_config, {"data__heldout": changed["data__heldout"]}
  with pytest.raises(ConfigError, match=message):
    preference.run(make("reward" if make is pair_config else "preference", **changed), tmp_path / "run")
