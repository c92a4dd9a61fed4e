"""The learned reward and the environment's over the KL, from the lines that a run writes."""

import json
import math

import pytest

from sftrl_jax.report import read_workdir
from sftrl_jax.report.figures import proxy_figure
from sftrl_jax.report.pages import run_page


@pytest.fixture
def rewarded(make_run, tmp_path):
  """rewarded(gold) -> a run with a reward model, whose proxy rises with the KL and whose gold reward falls."""

  def make(gold=True):
    home = make_run(tmp_path / "run", "ppo", episodes=20)
    lines = [{"step": step, "objective/kl": 0.2 * step, "num_turns/mean": 2.0, "objective/scores": 0.05 * step,
              "reward_model/score": 1.0, **({"objective/gold": 0.5 - 0.01 * step} if gold else {})}
             for step in range(1, 41)]
    (home / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evals = [json.loads(line) for line in (home / "evals.jsonl").read_text().splitlines()]
    changed = [{**line, "proxy": line["step"] / 100, **({"reward": 0.1} if gold else {})} for line in evals]
    (home / "evals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
    return read_workdir.read_run(home)

  return make


def test_rows_have_the_kl_of_a_response(rewarded):
  run = rewarded()
  rows = proxy_figure.proxy_rows(run)
  training = [row for row in rows if row["source"] == proxy_figure.TRAINING]
  assert len(training) == 40 and training[9]["kl"] == pytest.approx(0.2 * 10 / 2)   # of two responses an episode
  assert (training[9]["proxy"], training[9]["gold"]) == (pytest.approx(0.5), pytest.approx(0.4))
  sampled = [row for row in rows if row["source"] == "rule_ood"]
  kls = [e.kl for e in run.curve("rule_ood", 1.0)]
  assert [row["kl"] for row in sampled] == pytest.approx([8.2 * kl for kl in kls])   # tokens of a response
  assert all(row["gold"] == 0.1 for row in sampled)


@pytest.mark.parametrize("gold, panels", [(True, 2), (False, 1)])
def test_a_panel_is_there_for_what_is_known(rewarded, tmp_path, gold, panels):
  run = rewarded(gold)
  rows = proxy_figure.proxy_rows(run)
  assert len(proxy_figure.proxy(rows, "black", run.labels).axes) == panels
  assert any(math.isfinite(row["gold"]) for row in rows) == gold
  blocks = run_page.scores(run, tmp_path / "out")
  assert len(blocks) == 2 and (tmp_path / "out" / "proxy.csv").is_file()


def test_variants_whose_lines_look_alike_have_marks_of_their_own(rewarded):
  run = rewarded()
  rows = proxy_figure.proxy_rows(run)
  rows += [{**row, "source": "length_ood"} for row in rows if row["source"] == "rule_ood"]
  figure = proxy_figure.proxy(rows, "black", run.labels)
  variants = {row["source"] for row in rows} - {proxy_figure.TRAINING}
  for lines in (figure.axes[0].lines, figure.legends[0].get_lines()):
    marks = [line.get_marker() for line in lines if line.get_color() == "black"]
    assert len(marks) == len(set(marks)) == len(variants) >= 3


def test_a_run_without_a_reward_model_has_no_such_figure(make_run, tmp_path):
  run = read_workdir.read_run(make_run(tmp_path / "run", "ppo", episodes=20))
  assert proxy_figure.proxy_rows(run) == [] == run_page.scores(run, tmp_path)
