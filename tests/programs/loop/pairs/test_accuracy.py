"""Accuracy on held-out pairs: of each variant, by the model's own order of the two responses."""

import json

import pytest

from sftrl_jax.programs.loop.pairs import accuracy, sampling
from sftrl_jax.programs.start import checkpoint_ref
from sftrl_jax.report.read_workdir import read_evaluations


def test_the_accuracy_of_a_variant_is_its_share_of_pairs_in_the_right_order(scored, score_of, lines_of):
  home, _ = scored
  lines = lines_of(home, "evals.jsonl")
  assert [(line["step"], line["variant"], line["pairs"]) for line in lines] == [
      (step, variant, 5) for step in (0, 1, 2) for variant in ("id_seen", "rule_ood")]
  assert [line["rewards/accuracies"] for line in lines[:2]] == [0, 0]   # a head of zeros prefers nothing
  for line in lines[4:]:
    rows = map(json.loads, (home / sampling.HELDOUT / f"{line['variant']}.jsonl").read_text().splitlines())
    gaps = [score_of(row["prompt"], row["chosen"]) - score_of(row["prompt"], row["rejected"]) for row in rows]
    assert line["rewards/accuracies"] == pytest.approx(sum(gap > 0 for gap in gaps) / 5)
    assert line["rewards/margins"] == pytest.approx(sum(gaps) / 5, rel=1e-3, abs=1e-5)
    assert line["ci95"][0] <= line["rewards/accuracies"] <= line["ci95"][1]


def test_who_reads_evaluations_of_episodes_passes_these_lines_over(scored):
  home, _ = scored
  assert read_evaluations(home / "evals.jsonl") == ()
  with pytest.raises(ValueError, match="has no evaluations"):
    checkpoint_ref.parse(f"{home}@best:id_seen")


def test_all_files_are_packed_alike(scored):
  home, experiment = scored
  corpora = accuracy.heldout_pairs(sampling.with_pairs(experiment, home))
  assert list(corpora) == ["id_seen", "rule_ood"] and len({corpus.most for corpus in corpora.values()}) == 1
