"""The fastest values that fit: of the search, and of a tiny run."""

import json

import pytest

from sftrl_jax.programs.config import nested
from sftrl_jax.programs.config.automatic import KEYS, MICROBATCHES, REMAT, REMATS, asked, counts
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.plan import automatic

BYTES = {"none": 64.0, "light": 32.0, "full": 8.0}   # of all activations


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("limit", [70.0, 40.0, 20.0, 5.0, 1.1, 0.3, 0.05, 0.001])
def test_what_is_chosen_fits_and_nothing_before_it_does(limit, on_cpu):
  groups = automatic.candidates(REMATS, counts(128, 1), 16384, on_cpu)
  tried, fits = [], lambda candidate: BYTES[candidate[0]] / candidate[1] <= limit
  chosen = automatic.search(groups, lambda candidate: tried.append(candidate) or fits(candidate))
  expected = next((candidate for group in groups for candidate in group if fits(candidate)), None)
  assert chosen == expected
  assert len(tried) <= 2 * len(groups) + len(counts(128, 1)).bit_length() and len(set(tried)) == len(tried)


def test_microbatches_stay_large_on_accelerators_until_nothing_else_fits():
  groups = automatic.candidates(REMATS, counts(64, 1), 64 * 256, on_cpu=False)
  for group in groups[:-1]:
    assert all(64 * 256 // count >= automatic.TOKENS for _, count in group)
  assert groups[-1][-1] == (REMATS[-1], 64)
  assert automatic.candidates(["light"], [4], 8, on_cpu=False) == [[("light", 4)]]


def test_microbatches_begin_small_on_cpus():
  for group in automatic.candidates(REMATS, counts(64, 1), 64 * 256, on_cpu=True):
    assert group[0][1] == 64 * 256 // automatic.CACHE_TOKENS and group[-1][1] == 64


@pytest.fixture
def config(tiny):
  return tiny("sft", evals__variants="()", compute__microbatches="auto", model__remat="auto")


def test_a_run_gets_the_first_choice_where_memory_is_ample_and_it_is_said(config, capsys):
  settled = automatic.settle(config, "sft")
  values = {key: nested.at(settled, key) for key in KEYS}
  assert values == {MICROBATCHES: 1, REMAT: "none"} and asked(settled) == () and asked(config) == KEYS
  out = capsys.readouterr().out
  assert "config.model.remat=auto: none" in out and "config.compute.microbatches=auto: 1" in out
  unchanged = {key: value for key, value in nested.flat(nested.plain(settled)).items() if key not in KEYS}
  assert unchanged == {key: value for key, value in nested.flat(nested.plain(config)).items() if key not in KEYS}


def test_where_nothing_fits_a_cpu_the_leanest_is_taken(tiny, monkeypatch):
  config = tiny("sft", evals__variants="()", compute__microbatches="auto", model__remat="light")
  monkeypatch.setattr(automatic, "CPU_SHARE", 1e-9)
  settled = automatic.settle(config, "sft")
  assert settled.compute.microbatches == config.batch and settled.model.remat == "light"


def test_groups_whose_prompt_is_computed_once_stay_whole_unless_nothing_else_fits(tiny, monkeypatch):
  config = tiny("grpo", evals__variants="()", compute__microbatches="auto", compute__share_prompts=True)
  monkeypatch.setattr(automatic, "CACHE_TOKENS", 1)   # as many microbatches as there can be
  assert automatic.settle(config, "rl").compute.microbatches == config.batch // config.grpo.group
  monkeypatch.setattr(automatic, "CPU_SHARE", 1e-9)
  assert automatic.settle(config, "rl").compute.microbatches == config.batch


def test_a_run_that_has_begun_keeps_its_choice(config, tmp_path, capsys):
  record = {"compute": {"microbatches": 4}, "model": {"remat": "light"}}
  (tmp_path / "config.json").write_text(json.dumps(record))
  settled = automatic.settle(config, "sft", tmp_path)
  assert (settled.compute.microbatches, settled.model.remat) == (4, "light")
  assert "as recorded" in capsys.readouterr().out


def test_a_config_without_auto_stays(tiny):
  config = tiny("sft")
  assert automatic.settle(config, "sft") is config


def test_what_trains_nothing_takes_the_leanest_and_records_no_auto(config):
  experiment = build_experiment(config, "sft")
  assert experiment.model.config.remat == REMATS[-1] and experiment.compute.microbatches == config.batch
  assert asked(experiment.config) == ()
