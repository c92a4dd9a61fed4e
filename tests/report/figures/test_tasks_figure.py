"""Old tasks along runs: values of the steps at which the new task was measured, and their means over bases."""

import json

import pytest

from sftrl_jax.report import read_workdir
from sftrl_jax.report.figures import pareto_figure, tasks_figure


def with_tasks(home, drop=0.1, ema=False):
  """The run with two tasks asked at each of its evaluations; `drop` of the accuracy is lost at each."""
  lines = [json.loads(line) for line in (home / "evals.jsonl").read_text().splitlines()]
  places = sorted({(line["step"], line["flops"]) for line in lines})
  about = dict(filter="none", stderr=0.02, n=100, group=False)
  written = [{"task": f"{kind}{task}", "metric": metric, "value": value, "higher_is_better": better, "step": step,
              "flops": flops, **about}
             for number, (step, flops) in enumerate(places) for kind in ("", "ema:")[: 1 + ema]
             for task, metric, value, better in (("arc", "acc", 0.8 - drop * number, True),
                                                 ("text", "perplexity", 9.0 + number, False))]
  (home / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
  return home


def test_the_path_of_a_run_joins_tasks_and_evaluations_of_one_step(make_run, tmp_path):
  run = read_workdir.read_run(with_tasks(make_run(tmp_path / "run", "ppo", episodes=20), ema=True))
  rows = tasks_figure.task_rows_of_run(run)
  arc = [row for row in rows if (row["task"], row["method"]) == ("arc", run.name)]
  assert [row["value"] for row in arc] == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.4])
  assert [row["in_distribution"] for row in arc] == [e.success for e in run.curve("id_seen", 0.0)]
  averaged = [row for row in rows if row["method"] == f"ema:{run.name}"]   # whose variants nobody has played
  assert len(averaged) == 10 and not any("in_distribution" in row for row in averaged)
  assert tasks_figure.axis_of(arc) == "in_distribution" and tasks_figure.axis_of(rows) == "flops"


def test_a_study_has_bases_and_their_mean(make_study, tmp_path):
  home = make_study(tmp_path / "study", bases=2, episodes=20)
  for number, run in enumerate(sorted((home / "runs").iterdir())):
    with_tasks(run, 0.1 if number < 2 else 0.0)   # base 0 forgets
  study = read_workdir.read_study(home)
  rows = tasks_figure.task_rows(study)
  of = lambda base: [row["value"] for row in rows if (row["task"], row["method"], row["base"]) == ("arc", "ppo", base)]
  assert of("base-0") == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.4]) and of("base-1") == pytest.approx([0.8] * 5)
  assert of("mean") == pytest.approx([0.8, 0.75, 0.7, 0.65, 0.6])
  assert all("in_distribution" in row for row in rows) and {row["task"] for row in rows} == {"arc", "text"}
  look = pareto_figure.looks(["sft", "ppo"], "sft")
  figure = tasks_figure.tasks(rows, study.methods, look, "success")
  assert [axis.get_ylabel() for axis in figure.axes] == ["acc", "perplexity"]
  assert figure.axes[0].get_ylim()[0] == 0 and figure.axes[1].get_ylim()[1] > 9


def test_at_most_so_many_tasks_are_drawn():
  rows = [{"task": f"t{number}", "measure": "acc", "method": "m", "base": "mean", "flops": flops, "value": 0.5}
          for number in range(30) for flops in (0.0, 1e9)]
  figure = tasks_figure.tasks(rows, {"m": "M"}, {"m": ("red", "-")}, "success")
  assert len(figure.axes) == tasks_figure.MOST_PANELS
