import dataclasses
import json
import math

import numpy as np

from sftrl_jax.report.labels import EnvLabels
from sftrl_jax.report.read_workdir import read_study
from sftrl_jax.report.records import number


def test_a_study_knows_its_methods_variants_and_temperatures(make_study, tmp_path):
  study = read_study(make_study(tmp_path, bases=2, episodes=20, skip=("base-1-ppo-0",)))
  assert (study.reference, study.compared_methods) == ("sft", ("ppo",))
  assert study.variants == ("id_seen", "id_unseen", "rule_ood") and study.temperatures == (0.0, 1.0)
  assert (study.held_out, study.has_many_methods) == ("id_unseen", False)


def test_the_reference_is_the_named_method_else_sft_else_the_first(make_study, tmp_path):
  study = read_study(make_study(tmp_path, bases=1, episodes=20))
  assert dataclasses.replace(study, named_reference="ppo").reference == "ppo"
  assert dataclasses.replace(study, runs={}).reference == "sft"
  assert dataclasses.replace(study, runs={}, methods={"a": "A", "b": "B"}).reference == "a"
  assert dataclasses.replace(study, methods={"ppo": "PPO"}, runs={
      key: run for key, run in study.runs.items() if key[1] == "ppo"}).reference == "ppo"


def test_of_several_sft_methods_the_one_of_that_name_is_the_reference(arms_study):
  study = read_study(arms_study)
  renamed = {name: study.methods[name] for name in sorted(study.methods, reverse=True)}
  assert list(renamed)[0] != "sft" and dataclasses.replace(study, methods=renamed).reference == "sft"


def test_labels_come_from_whichever_run_has_them(make_study, tmp_path):
  make_study(tmp_path, bases=2, episodes=20)
  assert read_study(tmp_path).labels.variant("rule_ood") == "OOD, new rule"
  content = {"codes": {}, "variants": {"rule_ood": "new rule"}}
  (tmp_path / "runs" / "base-1-sft-0" / "labels.json").write_text(json.dumps(content))
  assert read_study(tmp_path).labels.variant("rule_ood") == "new rule"


def test_numbers_that_are_none_are_nan():
  for value in (float("inf"), float("nan"), "3", None, True, 10**400, [1]):
    assert math.isnan(number(value))
  assert number(3) == 3.0


def test_the_measure_that_heads_a_report_is_the_named_one_if_lines_hold_it(points_study, whole_study):
  study = read_study(points_study)
  assert study.measures == ("per_step", "success") and study.of_points
  assert dataclasses.replace(study, named_measure="success").measures == ("success", "per_step")
  ones = {key: dataclasses.replace(run, evaluations=tuple(
      dataclasses.replace(e, responses_N=np.minimum(e.responses_N, 1)) for e in run.evaluations))
          for key, run in study.runs.items()}   # where an episode has one response, the two are one
  assert dataclasses.replace(study, runs=ones, named_measure="success", claims=()).measures == ("success",)
  assert dataclasses.replace(study, runs=ones).measures == ("per_step", "success")
  older = dataclasses.replace(read_study(whole_study), named_measure="per_step")
  assert older.measures == ("success",) and not older.of_points


def test_a_part_of_verdicts_is_a_measure_where_the_task_has_a_label_for_it(points_study):
  study = read_study(points_study)
  first, *rest = study.runs.values()
  counts = {name: (np.ones(3), np.ones(3)) for name in ("landmark", "sign")}
  seen = dataclasses.replace(first, labels=EnvLabels(parts={"sign": "signs read", "cards": "hands read"}),
                             evaluations=(dataclasses.replace(first.evaluations[0], parts=counts),))
  study = dataclasses.replace(study, runs=dict(zip(study.runs, (seen, *rest), strict=True)))
  assert study.measures == ("per_step", "success", "sign")
  assert [study.measure_label(name) for name in study.measures] == ["right responses", "success", "signs read"]
  assert study.measure_label("landmark") == "landmark"


def test_methods_are_grouped_by_the_bases_that_they_start_from(arms_study):
  study = read_study(arms_study)
  assert list(study.start_groups) == ["start", "start of PPO CLEAN"]
  assert study.start_groups["start of PPO CLEAN"] == ("ppo_clean",) and "ppo" in study.start_groups["start"]
  assert study.share_bases("sft", "ppo") and not study.share_bases("sft", "ppo_clean") and study.is_registered
