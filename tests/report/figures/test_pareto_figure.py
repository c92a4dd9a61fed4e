"""New tasks against old ones: paths of runs on probes, and nothing where no run has one."""

import json

from sftrl_jax.report import read_workdir
from sftrl_jax.report.figures import pareto_figure
from sftrl_jax.report.pages import run_page


def with_probe(home, name="second_try"):
  """The run with its shifted variant played as a probe too, and both by averaged parameters."""
  lines = [json.loads(line) for line in (home / "evals.jsonl").read_text().splitlines()]
  probes = [{**line, "variant": name, "probe": True} for line in lines if line["variant"] == "rule_ood"]
  lines += probes + [{**line, "variant": f"ema:{line['variant']}"} for line in (*lines, *probes)]
  (home / "evals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  return home


def test_the_path_of_a_run_joins_its_evaluations_of_one_step(make_run, tmp_path):
  plain = read_workdir.read_run(make_run(tmp_path / "plain", "ppo", episodes=20))
  assert pareto_figure.pareto_rows_of_run(plain) == []
  run = read_workdir.read_run(with_probe(make_run(tmp_path / "run", "ppo", episodes=20)))
  rows = pareto_figure.pareto_rows_of_run(run)
  inside, old = (run.curve(name, 0.0) for name in ("id_seen", "rule_ood"))
  path = [(row["in_distribution"], row["shifted"]) for row in rows if (
      row["temperature"], row["variant"], row["method"]) == (0.0, "second_try", run.name)]
  assert path == [(new.success, e.success) for new, e in zip(inside, old, strict=True)]
  blocks = run_page.evaluations(run, tmp_path / "out")
  assert (tmp_path / "out" / "pareto.png").is_file() and sum("forgotten" in str(block) for block in blocks) == 1


def test_methods_have_looks_of_their_own():
  methods = [f"m{number}" for number in range(20)]
  look = pareto_figure.looks(methods, "m3")
  assert len(set(look.values())) == 20 and look["m3"] == (pareto_figure.style.SFT, "-")
