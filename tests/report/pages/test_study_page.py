from sftrl_jax.report import read_workdir
from sftrl_jax.report.pages import study_page
from sftrl_jax.report.stats import effects


def test_the_table_has_a_row_a_variant_and_decoding(whole_study):
  study = read_workdir.read_study(whole_study)
  header, rows = study_page.result_rows(study, effects.measure(study, 50))
  assert header == ("variant", "decoding", "start", "SFT end", "SFT change", "PPO end", "PPO change", "PPO − SFT")
  assert len(rows) == 6 and all(len(row) == len(header) for row in rows)


def test_a_missing_estimate_is_a_dash():
  assert study_page.cell(None) == "–"
